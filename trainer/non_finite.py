"""What made a step not finite: the batch, the weights, the first layer whose output is, or the gradients that are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from trainer.session import Session
from trainer.step.randomness import keyed_randomness
from trainer.step.window import LOSS

_SAMPLES_SHOWN = 32
_NAMES_SHOWN = 5


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient is not finite, and the run ends.

    Attributes:
        step: The 0-based number of the step that could not be taken.
        sample_ids: Indices of the batch's samples in the training data.
        causes: What was found, as half sentences.
    """

    def __init__(
        self, step: int, sample_ids: list[int], causes: list[str], change: str, what: str = "the loss"
    ) -> None:
        self.step, self.sample_ids, self.causes = step, sample_ids, causes
        shown = ", ".join(map(str, sample_ids[:_SAMPLES_SHOWN]))
        more = f" and {len(sample_ids) - _SAMPLES_SHOWN} more" if len(sample_ids) > _SAMPLES_SHOWN else ""
        super().__init__(
            f"{what} of step {step + 1} is not finite: {'; '.join(causes)} (samples {shown}{more}): {change}"
        )


def explain(session: Session, step: int, data_step: int) -> NonFiniteLoss:
    """Runs the step's batch again, layer by layer, on the weights before the step.

    Args:
        session: Its state is the one before the step.
        step: The 0-based number of the step.
        data_step: Which batch it had.
    """
    session.state.copy_home()
    batch = next(iter(session.batches(data_step, 1)))
    sample_ids = [int(i) for i in session.order.sample_ids(data_step)]
    causes = [f"feature {name} of the batch is not finite" for name in _non_finite(batch)]
    causes += [
        f"the weights {name.removeprefix('model/')} are not finite already"
        for name in _non_finite({n: v for n, v in session.state.variables.items() if n.startswith("model/")})
    ][:_NAMES_SHOWN]
    causes = causes or _bad_layers(session, batch, step)
    what = "the loss"
    if not causes:
        what, causes = _loss_or_gradient(session, batch)
    return NonFiniteLoss(
        step,
        sample_ids,
        causes,
        "lower optimizer.learning_rate, set optimizer.clip_norm=1.0, correct the samples, or skip such batches with "
        "train.on_nan=rollback",
        what,
    )


def _loss_or_gradient(session: Session, batch: Mapping[str, tf.Tensor]) -> tuple[str, list[str]]:
    """What is not finite where every layer's output is, and where it begins."""
    model, gradients = session.model, session.step.gradients
    state = session.state.read()._replace(
        trainable=tuple(tf.convert_to_tensor(v.value) for v in model.trainable_variables),
        non_trainable=tuple(tf.convert_to_tensor(v.value) for v in model.non_trainable_variables),
    )
    found = gradients(state, batch, tf.constant(0, tf.int64))
    if not np.isfinite(found.sums[LOSS].numpy()):
        return "the loss", ["every layer's output is finite, but not the loss: look at the targets and at the task"]
    named = dict(zip((v.path for v in model.trainable_variables), found.gradients, strict=True))
    named |= {
        model.non_trainable_variables[i].path: t for i, t in zip(gradients.changed, found.statistics, strict=True)
    }
    causes = [f"the gradient of {name} is not finite" for name in _non_finite(named)]
    more = [f"and so are {len(causes) - _NAMES_SHOWN} more"] if len(causes) > _NAMES_SHOWN else []
    causes = causes[:_NAMES_SHOWN] + more
    return "the gradient", causes or ["the square of its norm is beyond float32"]


def _non_finite(tensors: Mapping[str, tf.Tensor | tf.Variable]) -> list[str]:
    found = []
    for name, tensor in tensors.items():
        values = np.asarray(tensor.numpy())
        if values.dtype.kind not in "iub" and not np.isfinite(values.astype(np.float64)).all():
            found.append(name)
    return found


def _bad_layers(session: Session, batch: Mapping[str, tf.Tensor], step: int) -> list[str]:
    """The first layer with an output that is not finite, named with its kind."""
    bad: list[str] = []
    num_samples = next(iter(batch.values())).shape[0]
    with (
        _watched_layers(session.model, bad),
        keyed_randomness(session.config.train.seed, tf.constant(step, tf.int64), tf.constant(0, tf.int64), num_samples),
    ):
        session.model(session.task.inputs(batch), training=True)
    return [f"layer {bad[0]} is the first whose output is not finite"] if bad else []


@contextmanager
def _watched_layers(model: keras.Model, bad: list[str]) -> Iterator[None]:
    """Within it, every innermost layer adds its name to `bad` when its output is not finite."""
    leaves = [layer for layer in model._flatten_layers() if not list(layer._flatten_layers(include_self=False))]

    def watched(layer: keras.Layer, call):
        def checked(*args, **kwargs):
            outputs = call(*args, **kwargs)
            values = {str(i): value for i, value in enumerate(tf.nest.flatten(outputs)) if tf.is_tensor(value)}
            if _non_finite(values):
                bad.append(f"{layer.path} ({type(layer).__name__})")
            return outputs

        return checked

    for layer in leaves:
        layer.call = watched(layer, layer.call)
    try:
        yield
    finally:
        for layer in leaves:
            del layer.call
