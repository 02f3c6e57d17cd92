"""The two halves of a step over a placed state: gradients on a worker, the update where the weights lie."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import tensorflow as tf

from trainer.parameter_server.pieces import pieces_of
from trainer.parameter_server.placement import PlacedVariable
from trainer.parameter_server.remote_state import RemoteState, Rows
from trainer.parameter_server.row_updates import RowUpdates, of_rows, read, write
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.step.gradients import Batch
from trainer.step.state_tensors import Contribution, add
from trainer.strategies.inner_loop import packed_status


class RemoteStep:
    """A step whose halves run in different processes.

    Args:
        step: Of the config.
        state: Moved.
    """

    def __init__(self, step: Step, state: RemoteState) -> None:
        self._state, self._step = state, step
        self._gradients = step.gradients
        if state.rows is not None:
            # The number of rows differs from batch to batch: XLA would compile each number anew.
            self._gradients = replace(step.gradients, model=state.rows)  # type: ignore[arg-type]
        is_compiled = step.compiles_gradients and state.rows is None
        self._compute = tf.function(self._gradients, jit_compile=True) if is_compiled else self._gradients
        self._flat, optimizer = pieces_of(step, state.placed)
        self._apply = step.apply
        if optimizer is not None:
            self._apply = replace(step.apply, model=optimizer, optimizer=optimizer.rule)  # type: ignore[arg-type]
        self._row_updates = RowUpdates(self._apply)

    @tf.function
    def contribution(self, batch: Batch, first_sample: tf.Tensor, step: tf.Tensor) -> Contribution:
        """A slice's contribution, on the parameter servers when it returns; called on a worker.

        Args:
            batch: Features [b, ...] of the slice.
            first_sample: int64 scalar, its first position in the global batch.
            step: int64 scalar, the number of the step.
        """
        inputs = self._step.gradients.task.inputs(batch)
        values, ids = self._state.values(self._state.placed.trainable, step, inputs)  # type: ignore[arg-type]
        with self._state.with_rows(ids):
            found = self._compute(values, batch, first_sample)
        return self._state.hand_over(found, ids)

    @tf.function
    def finish(self, contributions: list[Contribution], empty_window: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies the contributions of all slices together; called by the coordinator.

        Returns:
            The window and the status of a `LoopResult`.
        """
        with _beside_inputs():
            total = self._total(contributions)
            rows = self._row_updates.rows(total)
            places = self._row_updates.places(self._flat, rows)
            old = tf.nest.map_structure(read, self._flat, places)
            old = old._replace(window=tf.where(empty_window, tf.zeros_like(old.window), old.window))
            with self._row_updates.expecting(rows):
                new, finite = self._apply(old, of_rows(total, rows), self._gradients.changed)
        written = [*map(tf.nest.flatten, (self._flat, old, new, places))]

        def put() -> tf.Tensor:
            for piece, before, after, place in zip(*written, strict=True):
                if after is not before or piece is self._flat.window:
                    write(piece, after, place)
            return tf.constant(True)

        def leave() -> tf.Tensor:
            with tf.device(self._flat.window.device):
                self._flat.window.assign(old.window)
            return tf.constant(False)

        tf.cond(finite, put, leave)
        with tf.device(self._flat.window.device):
            window = tf.where(finite, new.window, old.window)
            return window, packed_status(tf.where(finite, new.step, old.step), finite)

    def _total(self, contributions: list[Contribution]) -> Contribution:
        """The sum, in the tree in which `train.virtual_workers` adds, on the servers of the pieces."""
        first = contributions[0]
        gradients = []
        for number, piece in enumerate(self._flat.trainable):
            with tf.device(piece.device):
                gradients.append(_sum([one.gradients[number] for one in contributions], piece))  # type: ignore[arg-type]
        with tf.device(self._flat.window.device):
            rest = (
                _tree([one._replace(gradients=()) for one in contributions], add) if len(contributions) > 1 else first
            )
        return Contribution(tuple(gradients), rest.statistics, rest.sums)


class RemoteEvaluation:
    """An evaluation step on a placed state.

    Args:
        step: Of the config.
        state: Moved.
        weights: The trainable variables to evaluate.
    """

    def __init__(self, step: EvaluationStep, state: RemoteState, weights: Sequence[PlacedVariable]) -> None:
        self._state, self._task, self._weights = state, step.task, weights
        own = replace(step, model=state.rows) if state.rows is not None else step  # type: ignore[arg-type]
        self._compute = tf.function(own, jit_compile=True) if step.xla and state.rows is None else own

    @tf.function
    def sums(self, batch: Batch) -> EvaluationSums:
        """Of one batch; called on a worker."""
        values, ids = self._state.values(self._weights, tf.constant(0, tf.int64), self._task.inputs(batch))
        with self._state.with_rows(ids):
            return self._compute(list(values.trainable), list(values.non_trainable), batch)


def specs_of(contributions: list[Contribution]) -> list[Contribution]:
    """Their types, for any number of rows."""

    def spec(gradient: tf.Tensor | Rows) -> tf.TensorSpec | Rows:
        if not isinstance(gradient, Rows):
            return tf.TensorSpec(gradient.shape, gradient.dtype)
        return Rows(
            tf.TensorSpec([None, *gradient.values.shape[1:]], gradient.values.dtype),  # type: ignore[arg-type]
            tf.TensorSpec([None], tf.int64),  # type: ignore[arg-type]
        )

    return [
        Contribution(
            tuple(spec(gradient) for gradient in one.gradients),  # type: ignore[arg-type]
            tuple(tf.TensorSpec(change.shape, change.dtype) for change in one.statistics),  # type: ignore[arg-type]
            tf.TensorSpec(one.sums.shape, one.sums.dtype),  # type: ignore[arg-type]
        )
        for one in contributions
    ]


def _sum(gradients: Sequence[tf.Tensor | Rows], piece: tf.Variable) -> tf.Tensor | tf.IndexedSlices:
    first = gradients[0]
    if not isinstance(first, Rows):
        return _tree(gradients, tf.add)  # type: ignore[arg-type]
    dense_shape = tf.constant([int(size or 0) for size in piece.shape], tf.int64)
    if len(gradients) == 1:
        return tf.IndexedSlices(tf.identity(first.values), tf.identity(first.ids), dense_shape)
    # Each row once, as a norm needs it.
    ids = tf.sort(tf.unique(tf.concat([one.ids for one in gradients], 0)).y)
    shape = tf.concat([tf.shape(ids), tf.shape(first.values)[1:]], 0)
    spread = [tf.scatter_nd(tf.searchsorted(ids, one.ids)[:, None], one.values, shape) for one in gradients]
    return tf.IndexedSlices(_tree(spread, tf.add), ids, dense_shape)


def _tree(values: list, add_two: Callable):
    """The sum in the order of `Gradients`' tree."""
    if len(values) == 1:
        return tf.nest.map_structure(tf.identity, values[0])
    middle = (len(values) + 1) // 2
    return add_two(_tree(values[:middle], add_two), _tree(values[middle:], add_two))


@contextlib.contextmanager
def _beside_inputs() -> Iterator[None]:
    """Within it, in a graph, an operation without a device is placed beside what it computes from."""

    def beside(operation: tf.Operation) -> str:
        if operation.device:
            return operation.device
        inputs = [tensor.op for tensor in operation.inputs]
        device = next((one.device for one in inputs if one.device), "")
        for one in inputs:
            if device and not one.device and one.type == "Const":
                one._set_device(device)  # a constant has nothing to go by when it is made
        return device

    with tf.compat.v1.get_default_graph().device(beside):
        yield
