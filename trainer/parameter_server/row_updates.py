"""Updates of the rows that have a gradient alone, where the rule leaves all others as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import keras
import tensorflow as tf

from trainer.step.apply import Apply
from trainer.step.state_tensors import Contribution, StateTensors


class RowUpdates:
    """Which rows of the weights and slots a step reads and writes.

    A rule without momentum and decay changes nothing in a row whose gradient is zero. So an update of the rows that
    have one gives the same bits as that of the whole table, and takes as long as the batch is large.

    Args:
        apply: The second half of a step; its rule is built on the pieces of the state.
    """

    def __init__(self, apply: Apply) -> None:
        rule = apply.optimizer
        is_bare = not rule.weight_decay and apply.ema_decay is None and not apply.thaws
        self._applies = is_bare and (
            isinstance(rule, keras.optimizers.Adagrad) or (isinstance(rule, keras.optimizers.SGD) and not rule.momentum)
        )
        self._weights, self._slots = list(apply.model.trainable_variables), list(rule.variables)
        accumulators = {id(slot): number for number, slot in enumerate(getattr(rule, "_accumulators", ()))}
        self._weight_of = {
            number: accumulators[id(slot)] for number, slot in enumerate(rule.variables) if id(slot) in accumulators
        }

    def rows(self, total: Contribution) -> dict[int, tf.Tensor]:
        """The rows to update, int64 [R], each once, by the number of the weight; those that are not there are whole."""
        if not self._applies:
            return {}
        gradients = enumerate(total.gradients)
        return {number: gradient.indices for number, gradient in gradients if isinstance(gradient, tf.IndexedSlices)}

    def places(self, state: StateTensors, rows: Mapping[int, tf.Tensor]) -> StateTensors:
        """The rows of each variable of a state; None where it is whole."""
        whole = tf.nest.map_structure(lambda _: None, state)
        return whole._replace(
            trainable=tuple(rows.get(number) for number in range(len(state.trainable))),
            optimizer=tuple(rows.get(self._weight_of.get(number, -1)) for number in range(len(state.optimizer))),
        )

    @contextlib.contextmanager
    def expecting(self, rows: Mapping[int, tf.Tensor]) -> Iterator[None]:
        """Within it the rule takes any number of rows of these weights and their slots for the whole of them."""
        slots = (self._slots[slot] for slot, weight in self._weight_of.items() if weight in rows)
        variables = [*(self._weights[number] for number in rows), *slots]
        shapes = [variable._shape for variable in variables]
        try:
            for variable, shape in zip(variables, shapes, strict=True):
                variable._shape = (None, *shape[1:])  # Keras compares values with it
            yield
        finally:
            for variable, shape in zip(variables, shapes, strict=True):
                variable._shape = shape


def of_rows(total: Contribution, rows: Mapping[int, tf.Tensor]) -> Contribution:
    """The contribution with the gradients of these weights as those of their rows."""
    gradients = (gradient.values if i in rows else gradient for i, gradient in enumerate(total.gradients))  # type: ignore[union-attr]
    return total._replace(gradients=tuple(gradients))


def read(state: StateTensors, places: StateTensors) -> StateTensors:
    """What the rule starts from: the values where they lie; of weights of which only some rows change, no change yet.

    The rules that rows are for subtract something from a weight and do not look at it. So what they make of -0 is that
    to the bit, with its sign turned, and the rows themselves need not be read.
    """

    def value(piece: tf.Variable, rows: tf.Tensor | None) -> tf.Tensor:
        with tf.device(piece.device):
            return piece.read_value() if rows is None else tf.gather(piece, rows)

    def before(piece: tf.Variable, rows: tf.Tensor | None) -> tf.Tensor:
        if rows is None:
            return value(piece, None)
        with tf.device(piece.device):
            # 0 would lose the sign of a zero: -0 minus x is -x for every x.
            return tf.fill([tf.size(rows), *piece.shape[1:]], tf.constant(-0.0, piece.dtype))

    values = tf.nest.map_structure(value, state._replace(trainable=()), places._replace(trainable=()))
    return values._replace(trainable=tuple(map(before, state.trainable, places.trainable)))  # type: ignore[arg-type]


def write(state: StateTensors, places: StateTensors, old: StateTensors, new: StateTensors) -> None:
    """Stores what a rule has made of what `read` gave; leaves alone what it has not changed."""
    added = [*map(id, state.trainable)]
    for piece, rows, before, after in zip(*map(tf.nest.flatten, (state, places, old, new)), strict=True):
        if after is before:
            continue
        with tf.device(piece.device):
            if rows is None:
                piece.assign(after)
            elif id(piece) in added:
                piece.scatter_add(tf.IndexedSlices(after, rows))
            else:
                piece.scatter_update(tf.IndexedSlices(after, rows))
