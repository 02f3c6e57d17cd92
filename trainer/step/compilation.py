"""What of a step XLA compiles, where `train.xla_scope` leaves the choice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, NamedTuple

import keras
import tensorflow as tf

from trainer.config.train import TrainConfig

Scope = Literal["step", "loop", "update"]

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


class Compilation(NamedTuple):
    """How the two halves of a step are computed.

    Attributes:
        scope: What is compiled as one program; None: nothing.
        kernels: TensorFlow's own kernels change the variables (`trainer.optimizers.kernels`).
    """

    scope: Scope | None
    kernels: bool = False


def choose_compilation(
    train: TrainConfig, model: keras.Model, may_use_kernels: bool, comes_apart: bool = False
) -> Compilation:
    """Chooses for a config.

    A function of the config, the model and the kind of machine, never of a measurement: the choice changes the last
    bits of a loss, and the same config on the same machine draws the same curve.

    Args:
        train: The config's section.
        model: Built.
        may_use_kernels: Whether strategy and optimizer allow `Compilation.kernels`.
        comes_apart: Whether something is wanted of the first half before its end: a program gives all of it then.
    """
    if not train.xla:
        return Compilation(None)
    if train.xla_scope != "auto":
        return Compilation(train.xla_scope)
    if not comes_apart and not (_has_convolutions(model) and _convolves_faster_outside_xla()):
        return Compilation("step")
    return Compilation(None, kernels=True) if may_use_kernels else Compilation("update")


def _has_convolutions(model: keras.Model) -> bool:
    return any(isinstance(layer, _CONVOLUTIONS) for layer in model._flatten_layers())


def _convolves_faster_outside_xla() -> bool:
    """Whether TensorFlow's own convolutions beat XLA's here.

    They come from oneDNN, which has kernels for AVX-512 that XLA's CPU compiler does not reach: 1.5 times as fast as a
    compiled step on such a processor, 0.7 times on one that ends at AVX2 (docs/design/step.md).
    """
    return not tf.config.list_logical_devices("GPU") and "avx512f" in _processor_flags()


def _processor_flags() -> list[str]:
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("flags"):
                    return line.partition(":")[2].split()
        except OSError:
            pass
    return []
