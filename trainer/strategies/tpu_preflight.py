"""Why a training cannot run on a TPU, found before one is rented or asked."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

import tensorflow as tf

from trainer.config.combinations import batch_problems
from trainer.config.training import TrainingConfig

# The newest wheel with kernels for TPUs, and the libraries that it was seen to load: its own range of versions resolves
# to one that aborts when it is imported.
_TENSORFLOW_TPU = "2.20.0"
_LIBTPU = ("0.0.20", "0.0.14")


class TpuNotUsable(RuntimeError):
    """This installation cannot drive a TPU."""


def check_tensorflow() -> None:
    """Makes sure that the installed TensorFlow can drive a TPU.

    Raises:
        TpuNotUsable: It has no kernels for TPUs, or a libtpu that does not fit.
    """
    if problem := installation_problem(has_tpu_kernels(), installed_versions()):
        raise TpuNotUsable(problem)


def has_tpu_kernels() -> bool:
    """Whether the installed TensorFlow was built for TPUs; it names the operations either way."""
    from tensorflow.python.framework import kernels

    return bool(kernels.get_registered_kernels_for_op("_InitializeHostForDistributedTPU").kernel)


def installed_versions() -> dict[str, str | None]:
    """Versions of the packages that have to fit together; None for one that is not installed."""
    return {name: _version(name) for name in ("tensorflow", "tensorflow-tpu", "libtpu")}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def installation_problem(has_kernels: bool, versions: Mapping[str, str | None]) -> str | None:
    """What is wrong with an installation, in one sentence; None where nothing is.

    Args:
        has_kernels: As `has_tpu_kernels`.
        versions: As `installed_versions`.
    """
    install = f"pip install tensorflow-tpu=={_TENSORFLOW_TPU} libtpu=={_LIBTPU[0]}"
    if not has_kernels:
        found = versions.get("tensorflow") or versions.get("tensorflow-tpu") or "of an unknown version"
        return (
            f"strategy.name=tpu must have a TensorFlow with kernels for TPUs, which the installed tensorflow {found} "
            f"lacks: on the TPU host uninstall tensorflow and {install}"
        )
    libtpu = versions.get("libtpu")
    if libtpu not in _LIBTPU:
        return (
            f"libtpu {libtpu or 'is not installed, and'} must be one that tensorflow-tpu "
            f"{versions.get('tensorflow-tpu') or _TENSORFLOW_TPU} loads, {' or '.join(_LIBTPU)}: {install}"
        )
    return None


def config_problems(config: TrainingConfig, replicas: int) -> list[str]:
    """What in a config cannot be had on a TPU with so many replicas, one sentence each."""
    problems = batch_problems(config, replicas, "the number of TensorCores")
    if config.precision == "mixed_float16":
        problems.append(
            "precision=mixed_float16 must not be used on a TPU, which has no arithmetic for float16: set "
            "precision=mixed_bfloat16"
        )
    if config.data.remainder == "keep" and replicas * config.train.accumulate == 1:
        problems.append(
            "data.remainder=keep leaves a last batch of another size, and a program for a TPU has one size of batch: "
            "set data.remainder=pad, which weights the padding with zero, or drop"
        )
    return problems


def shape_problems(batch: Mapping[str, tf.TensorSpec]) -> list[str]:
    """What in the batches of a data set no program for a TPU can take, one sentence each.

    Args:
        batch: The features, [B, ...] each.
    """
    problems = []
    for name, spec in batch.items():
        if spec.dtype == tf.string:
            problems.append(
                f"the feature {name} is a string, and a TPU computes with numbers only: encode it in the data, as "
                "table columns with a vocabulary are"
            )
        elif not spec.shape.is_fully_defined():
            problems.append(
                f"the feature {name} has the shape {spec.shape}, and a program for a TPU must know every size: pad or "
                "cut the samples to one size in the data"
            )
    return problems
