"""Layers that are frozen until a step.

A step is traced once, with a branch for each stage: which one is taken follows from the step's number, so that a run
that is resumed, or a worker that takes another's place, is in the right stage without being told. In a branch the
frozen layers are what Keras makes of `layer.trainable = False`: no gradient is computed for them, and batch
normalisation uses its moving averages and leaves them alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from trainer.config.freeze import FreezeConfig
from trainer.optimizers.schedules import in_steps


@dataclass(frozen=True)
class Stage:
    """Layers that thaw together.

    Attributes:
        thaw: The first step, counted from 0, that trains them.
        layers: The layers.
    """

    thaw: int
    layers: tuple[keras.layers.Layer, ...]


@dataclass(frozen=True)
class Thawing:
    """The stages of a training, the first to thaw first."""

    stages: tuple[Stage, ...]

    def num_frozen(self, step: tf.Tensor) -> tf.Tensor:
        """How many stages, counted from the last, are frozen at a step (int64 scalar); int32 scalar."""
        return tf.add_n([tf.cast(step < stage.thaw, tf.int32) for stage in self.stages])

    def frozen_layers(self, num_frozen: int) -> list[keras.layers.Layer]:
        """The layers of so many stages, counted from the last."""
        stages = self.stages[len(self.stages) - num_frozen :]
        return [layer for stage in stages for layer in stage.layers]

    def thaws(self, variables: Sequence[keras.Variable]) -> list[int]:
        """For each variable, the first step that trains it."""
        steps = {id(v): stage.thaw for stage in self.stages for layer in stage.layers for v in _own_variables(layer)}
        return [steps.get(id(variable), 0) for variable in variables]


def freeze_layers(model: keras.Model, config: Sequence[FreezeConfig], steps_per_epoch: int) -> Thawing | None:
    """Freezes layers for ever, and says which others are frozen until when.

    A layer that several entries name thaws with the last of them.

    Args:
        model: Built; layers that never thaw are not trainable afterwards.
        config: The `freeze` section.
        steps_per_epoch: For intervals in epochs.

    Returns:
        None where no layer thaws.

    Raises:
        ValueError: A pattern fits no layer, or nothing is left to train.
    """
    layers = _layers_by_path(model)
    thaws: dict[str, float] = {}
    for entry in config:
        thaw = float("inf") if entry.until is None else in_steps(entry.until, steps_per_epoch)
        for pattern in entry.layers:
            found = [path for path in layers if re.search(pattern, path)]
            if not found:
                some = ", ".join(list(layers)[:3])
                raise ValueError(
                    f"freeze has the pattern {pattern!r}, which fits no layer of the model: they are named {some}, ..."
                )
            thaws.update({path: max(thaw, thaws.get(path, 0)) for path in found})
    if thaws and not any(
        v.trainable for path in layers.keys() - thaws.keys() for v in layers[path].trainable_variables
    ):
        raise ValueError("freeze leaves no layer to train at the first step: leave out the pattern of the last layer")
    for path, thaw in thaws.items():
        if thaw == float("inf"):
            layers[path].trainable = False
    steps = sorted({int(thaw) for thaw in thaws.values() if thaw != float("inf")})
    stages = [Stage(step, tuple(layers[path] for path, thaw in thaws.items() if thaw == step)) for step in steps]
    return Thawing(tuple(stages)) if stages else None


@contextlib.contextmanager
def frozen(layers: Sequence[keras.layers.Layer]) -> Iterator[None]:
    """Within it these layers are not trainable. For tracing the forward pass."""
    for layer in layers:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in layers:
            layer.trainable = True


def _layers_by_path(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers with weights of their own; a layer's path is that of its weights without the last part."""
    found = {}
    for layer in model._flatten_layers():
        own = [v for v in _own_variables(layer) if not v.path.endswith("seed_generator_state")]
        if own:
            found[own[0].path.rpartition("/")[0]] = layer
    return found


def _own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    return [*layer._trainable_variables, *layer._non_trainable_variables]
