"""Exports a trained model as a SavedModel that serves raw inputs, checked against the model before anyone sees it.

Shape legend: B batch.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from delivery.package.file_kinds import DESCRIPTION
from delivery.parity import TOLERANCE, ExportRefused, Parity
from delivery.serving_module import ServedModel
from trainer.atomic_file import sync_folder, sync_tree
from trainer.data.source import Schema
from trainer.tasks.task import Batch, Task

__all__ = ["DESCRIPTION", "ExportRefused", "ExportResult", "Unpublished", "export_saved_model"]

_UNFINISHED = ".unfinished-"
_BEFORE = ".before"


@dataclass(frozen=True)
class ExportResult:
    """What was exported.

    Attributes:
        path: `export/<version>`.
        signatures: Their names.
        largest_difference: Between the saved and the trained model, relative to answers above 1, else absolute.
        num_samples: Held-out samples that both answered.
        size: Bytes on the disk.
        duration: Seconds that it took.
    """

    path: Path
    signatures: tuple[str, ...]
    largest_difference: float
    num_samples: int
    size: int
    duration: float


@dataclass(frozen=True)
class Unpublished:
    """An export that is written and checked, and that nobody sees yet.

    Attributes:
        path: Its folder, under a hidden name.
        loaded: The SavedModel, read back from there.
        served: What it was made from.
        samples: The held-out features that it was checked on, [B, ...] each.
        facts: What its description says.
    """

    path: Path
    loaded: Any
    served: ServedModel
    samples: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


def export_saved_model(
    model: keras.Model,
    task: Task,
    schema: Schema,
    folder: Path,
    *,
    batch: Batch,
    trainable: Sequence[tf.Variable] | None = None,
    version: int = 1,
    precision: str = "float32",
    description: Mapping[str, Any] | None = None,
    complete: Callable[[Unpublished], object] | None = None,
) -> ExportResult:
    """Writes `folder/<version>`: whole, checked and durable, or not at all.

    The signature `serving_default`, also under the task's own name (`classify`, `regress`, `embed`, ...), takes any
    number of raw samples: uint8 pixels, strings for categories, tokens of any length up to the context, numbers.
    Where that differs from what the model takes, `<name>_tensors` takes the model's own features. An earlier export
    of the same version is replaced.

    Args:
        model: Built and trained.
        task: Names inputs and predictions.
        schema: Of the training data.
        folder: `export` in the run folder; created.
        batch: Real held-out samples, features [B, ...] by name; every signature is checked on them.
        trainable: The model's trainable variables to export, in its order; the averaged ones, for example. None: the
            model's own.
        version: Names the folder, as servers expect.
        precision: That the model computes in; decides how closely the answers must agree.
        description: Goes into `assets.extra/phalanx.json` beside what is known here.
        complete: Adds the other files of a package before anybody sees the folder.

    Raises:
        ExportRefused: The saved model does not answer as the trained one.
        OSError: The folder cannot be written.
    """
    started = time.monotonic()
    chosen = zip(model.trainable_variables, trainable or [v._value for v in model.trainable_variables], strict=True)
    exported = {id(variable): value for variable, value in chosen}
    model = task.served(model)
    weights = (
        [_value(exported[id(variable)]) for variable in model.trainable_variables],
        [_value(variable._value) for variable in model.non_trainable_variables],
    )
    samples = _features(task, batch)
    folder.mkdir(parents=True, exist_ok=True)
    _clear_after_a_kill(folder)
    unfinished = folder / f"{_UNFINISHED}{version}"
    try:
        served = ServedModel(model, task, schema, weights, samples)
        tf.saved_model.save(served.module, str(unfinished), signatures=served.functions)
        with contextlib.suppress(
            OSError
        ):  # empty, because tables are made of constants; a model of one's own may differ
            (unfinished / "assets").rmdir()
        # Referenced to the end: its functions do not keep its variables.
        loaded = tf.saved_model.load(str(unfinished))
        difference = Parity(model, task, weights, TOLERANCE[precision]).check(loaded, served.inputs_of, samples)
        num_samples = len(next(iter(samples.values())))
        facts = {**(description or {}), **_facts(served), "precision": precision}
        facts |= {"largest_difference": difference, "num_samples": num_samples}
        _describe(unfinished / DESCRIPTION, facts)
        if complete is not None:
            complete(Unpublished(unfinished, loaded, served, samples, facts))
        size = sync_tree(unfinished)
        _publish(unfinished, folder / str(version))
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return ExportResult(
        folder / str(version), tuple(served.functions), difference, num_samples, size, time.monotonic() - started
    )


def _value(variable: tf.Variable) -> np.ndarray:
    return variable.read_value().numpy()


def _features(task: Task, batch: Batch) -> dict[str, np.ndarray]:
    """What the model is called with for a batch, by name; samples that reading left out have weight 0 and are dropped.

    Raises:
        ValueError: No sample is left to check the export with.
    """
    inputs = task.inputs(batch)
    named = inputs if isinstance(inputs, Mapping) else {next(iter(task.input_features)): inputs}
    features = {name: np.asarray(values) for name, values in named.items()}
    if "sample_weight" in batch:
        is_kept = np.asarray(batch["sample_weight"]) > 0
        features = {name: values[is_kept] for name, values in features.items()}
    if not len(next(iter(features.values()))):
        raise ValueError("there is no held-out sample to check the export with: hold out at least one")
    return features


def _facts(served: ServedModel) -> dict[str, Any]:
    """What a program wants to know of the model before it loads it."""
    signatures = {}
    for name, function in served.functions.items():
        inputs = {key: given.spec for key, given in served.inputs_of[name].items()}
        sides: dict[str, Mapping[str, Any]] = {"inputs": inputs, "outputs": function.structured_outputs}
        signatures[name] = {
            side: {key: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()} for key, spec in sorted(part.items())}
            for side, part in sides.items()
        }
    names = served.class_names
    return {"signatures": signatures, "class_names": list(names) if names else None, "tensorflow": tf.__version__}


def _describe(path: Path, facts: Mapping[str, Any]) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _clear_after_a_kill(folder: Path) -> None:
    """Removes what a killed export has left, and puts back the earlier export that it was about to replace."""
    for before in folder.glob(f"{_UNFINISHED}*{_BEFORE}"):
        place = folder / before.name.removeprefix(_UNFINISHED).removesuffix(_BEFORE)
        if not place.exists():
            os.rename(before, place)
    for abandoned in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(abandoned)


def _publish(finished: Path, place: Path) -> None:
    """Renames a finished export to its place; the one before it steps aside first and is deleted after."""
    before = finished.with_name(f"{_UNFINISHED}{place.name}{_BEFORE}")
    if place.exists():
        os.rename(place, before)
    os.rename(finished, place)
    sync_folder(place.parent)
    shutil.rmtree(before, ignore_errors=True)
