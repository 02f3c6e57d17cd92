"""Weights to begin with, from another run, a checkpoint or a Keras file; as much of them as fits."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.checkpoint.format import MANIFEST, Checkpoint, DamagedCheckpoint, read_checkpoint
from trainer.checkpoint.host_buffer import ArraySpec
from trainer.checkpoint.store import CheckpointStore

WEIGHTS, AVERAGED_WEIGHTS = "model/", "ema/"


class WarmStartError(ValueError):
    """Nothing can be loaded, or not what was asked for. The message is one sentence for the user."""


@dataclass(frozen=True)
class Skipped:
    """A variable that keeps its initial value.

    Attributes:
        path: the variable.
        reason: why, as half a sentence.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class WarmStart:
    """What is loaded and what is not.

    Attributes:
        loaded: for each variable that is loaded, its values, in the type and shape that it wants.
        sources: for each of these, the name of the array in the file.
        skipped: the variables that are not loaded.
        unused: the arrays of the file that no variable takes.
    """

    loaded: dict[str, np.ndarray]
    sources: dict[str, str]
    skipped: list[Skipped]
    unused: list[str]


def read_weights(path: Path | str, *, averaged: bool = False) -> dict[str, np.ndarray]:
    """The weights in a file or folder, by variable path.

    Args:
        path: a run folder, its `checkpoints` folder, one checkpoint, or a `.keras` file.
        averaged: take the moving averages that `train.ema` keeps, not the weights themselves.

    Raises:
        WarmStartError: there is nothing of that kind, or it cannot be read.
    """
    path = Path(path)
    if path.suffix == ".keras":
        return _read_keras(path)
    if not path.is_dir():
        rule = "is not a run folder, a checkpoint or a .keras file" if path.exists() else "does not exist"
        raise WarmStartError(f"warm_start.path={path} {rule}: name one of these")
    checkpoint = _read_newest(path)
    prefix = AVERAGED_WEIGHTS if averaged else WEIGHTS
    weights = {name.removeprefix(prefix): array for name, array in checkpoint.arrays.items() if name.startswith(prefix)}
    if not weights:
        kind = "averaged weights (it was trained without train.ema)" if averaged else "weights"
        raise WarmStartError(f"warm_start.path={checkpoint.path} holds no {kind}: choose another checkpoint")
    return weights


def plan_warm_start(
    available: Mapping[str, np.ndarray],
    wanted: Mapping[str, ArraySpec],
    include: Sequence[str] = (".*",),
    exclude: Sequence[str] = (),
) -> WarmStart:
    """Decides which variable takes which array.

    A variable takes the array of its own path. The name of the model, which Keras puts before the paths of some models
    and numbers as models are made, does not count: `mlp/dense/kernel` takes `sequential_3/dense/kernel`.

    Args:
        available: arrays by path.
        wanted: shape and type of the model's variables, by path.
        include: regular expressions; a variable is loaded if one is found anywhere in its path.
        exclude: regular expressions of variables that are not loaded, whatever `include` says.

    Raises:
        WarmStartError: a pattern is not a regular expression or matches no variable, or nothing could be loaded.

    >>> plan = plan_warm_start(
    ...     {"old/dense/kernel": np.ones((2, 3), np.float32), "old/head/kernel": np.ones((3, 10), np.float32)},
    ...     {"new/dense/kernel": ArraySpec((2, 3), "float32"), "new/head/kernel": ArraySpec((3, 7), "float32")},
    ... )
    >>> plan.sources, plan.skipped
    ({'new/dense/kernel': 'old/dense/kernel'}, [Skipped(path='new/head/kernel', reason='its shape is (3, 7), that of \
old/head/kernel is (3, 10)')])
    """
    included, excluded = _compile("include", include, wanted), _compile("exclude", exclude, wanted)
    own_name, other_name = _model_name(wanted), _model_name(available)
    by_path = {name.removeprefix(other_name): name for name in available}
    loaded, sources, skipped = {}, {}, []
    for path, spec in wanted.items():
        if not any(pattern.search(path) for pattern in included):
            skipped.append(Skipped(path, "no pattern of warm_start.include matches it"))
            continue
        if match := next((pattern for pattern in excluded if pattern.search(path)), None):
            skipped.append(Skipped(path, f"warm_start.exclude has {match.pattern}"))
            continue
        source = by_path.get(path.removeprefix(own_name))
        if source is None:
            skipped.append(Skipped(path, "there is no array of that path"))
            continue
        if reason := _misfit(source, available[source], spec):
            skipped.append(Skipped(path, reason))
            continue
        loaded[path] = np.asarray(available[source]).astype(spec.numpy_dtype, copy=False)
        sources[path] = source
    if not loaded:
        first = f"{skipped[0].path}: {skipped[0].reason}" if skipped else "the model has no variables"
        raise WarmStartError(
            f"the warm start would load nothing ({first}): choose another warm_start.path, or change warm_start.include"
        )
    used = set(sources.values())
    return WarmStart(loaded, sources, skipped, [name for name in available if name not in used])


def _read_newest(path: Path) -> Checkpoint:
    """The checkpoint that a folder is, or the newest good one below it. Never changes another run's folder."""
    damages: list[str] = []
    if (path / MANIFEST).exists():
        try:
            return read_checkpoint(path)
        except DamagedCheckpoint as damage:
            damages.append(str(damage))
    else:
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        store = CheckpointStore(folder)
        found = store.newest_verified(lambda damage, _: damages.append(str(damage)), set_aside=False)
        if found is not None:
            return found
    rule = f"cannot be read: {damages[0]}" if damages else "holds no checkpoint"
    raise WarmStartError(f"warm_start.path={path} {rule}: choose another run or checkpoint")


def _read_keras(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise WarmStartError(f"warm_start.path={path} does not exist: name a .keras file, a run or a checkpoint")
    import keras  # takes seconds, and the other sources need none of it

    try:
        model: keras.Model = keras.saving.load_model(path, compile=False)  # type: ignore[assignment]
    except Exception as error:  # whatever its layers raise
        reason = str(error).strip().partition("\n")[0]
        raise WarmStartError(
            f"warm_start.path={path} cannot be loaded ({reason}): save it anew with Keras {keras.__version__}, or use "
            "a checkpoint"
        ) from None
    return {variable.path: np.asarray(variable.value) for variable in model.variables}


def _compile(setting: str, patterns: Sequence[str], wanted: Mapping[str, ArraySpec]) -> list[re.Pattern[str]]:
    compiled = []
    for text in patterns:
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise WarmStartError(
                f"warm_start.{setting} has {text!r}, which is no regular expression: {error}"
            ) from None
        if wanted and not any(pattern.search(path) for path in wanted):
            some = ", ".join(list(wanted)[:3])
            raise WarmStartError(
                f"warm_start.{setting} has {text!r}, which matches no variable of the model: they are named {some}, ..."
            )
        compiled.append(pattern)
    return compiled


def _model_name(paths: Collection[str]) -> str:
    """The first part that all paths share, with its slash, if a layer and a variable still follow it; else nothing."""
    firsts = {path.partition("/")[0] for path in paths}
    return f"{firsts.pop()}/" if len(firsts) == 1 and all(path.count("/") >= 2 for path in paths) else ""


def _misfit(source: str, array: np.ndarray, spec: ArraySpec) -> str | None:
    if tuple(array.shape) != tuple(spec.shape):
        return f"its shape is {tuple(spec.shape)}, that of {source} is {tuple(array.shape)}"
    if array.dtype != spec.numpy_dtype and not (_is_float(array.dtype) and _is_float(spec.numpy_dtype)):
        return f"its type is {spec.numpy_dtype.name}, that of {source} is {array.dtype.name}"
    return None


def _is_float(dtype: np.dtype) -> bool:
    # numpy counts the 16- and 8-bit floats of ml_dtypes among its void types ("V").
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))
