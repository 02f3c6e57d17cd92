"""The two halves of a step over a placed state: gradients on a worker, the update where the weights lie."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import tensorflow as tf

from trainer.parameter_server.packed_batch import Layout, unpack
from trainer.parameter_server.pieces import pieces_of
from trainer.parameter_server.placement import PlacedVariable
from trainer.parameter_server.remote_state import HandedOver, RemoteState, Rows
from trainer.parameter_server.roles import COORDINATOR
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

    def contribution(self, layout: Layout) -> Callable[[tf.Tensor, dict[str, tf.Tensor]], HandedOver]:
        """A function to be traced, that computes a slice's contribution on a worker and leaves it on the servers.

        Its arguments are those of `packed_batch.pack`, whose two numbers are that of the step and the slice's first
        position in the global batch.

        Args:
            layout: Of the slice.
        """

        def contribution(packed: tf.Tensor, others: dict[str, tf.Tensor]) -> HandedOver:
            batch, position = unpack(layout, packed, others)
            inputs = self._step.gradients.task.inputs(batch)
            values, looked_up = self._state.values(self._state.placed.trainable, position[0], inputs)  # type: ignore[arg-type]
            with self._state.with_rows(looked_up):
                found = self._compute(values, batch, position[1])
            handed_over = self._state.hand_over(found, looked_up)
            _leave_results_where_they_are()
            return handed_over

        return tf.function(contribution)

    def empty_window(self) -> None:
        """Begins a window; called by the coordinator before the first step of one."""
        self._flat.window.assign(tf.zeros(self._flat.window.shape))

    def window(self) -> tf.Tensor:
        """The window, at the coordinator."""
        with tf.device(COORDINATOR):
            return tf.identity(self._flat.window.read_value())

    @tf.function
    def finish(self, handed_over: list[HandedOver]) -> tf.Tensor:
        """Applies the contributions of all slices together; called by the coordinator, which nothing of it runs on.

        Returns:
            The status of a `LoopResult`, at the coordinator.
        """
        with _beside_inputs(self._flat.window.device):
            total = self._total([self._state.taken(one) for one in handed_over])
            rows = self._row_updates.rows(total)
            places = self._row_updates.places(self._flat, rows)
            old = read(self._flat, places)
            with self._row_updates.expecting(rows):
                new, finite = self._apply(old, of_rows(total, rows), self._gradients.changed)
            status = packed_status(tf.where(finite, new.step, old.step), finite)

        def put() -> tf.Tensor:
            write(self._flat, places, old, new)
            return tf.constant(True)

        with tf.device(self._flat.window.device):
            tf.cond(finite, put, lambda: tf.constant(False))
        with tf.device(COORDINATOR):
            return tf.identity(status)

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
        values, looked_up = self._state.values(self._weights, tf.constant(0, tf.int64), self._task.inputs(batch))
        with self._state.with_rows(looked_up):
            return self._compute(list(values.trainable), list(values.non_trainable), batch)


def specs_of(handed_over: list[HandedOver]) -> list[HandedOver]:
    """Their types, for any number of rows."""

    def rows(one: Rows) -> Rows:
        shape = [None, *one.values.shape[1:]]
        return Rows(tf.TensorSpec(shape, one.values.dtype), tf.TensorSpec([None], tf.int64))  # type: ignore[arg-type]

    return [
        HandedOver(
            tuple(tf.TensorSpec(parcel.shape, parcel.dtype) for parcel in one.parcels),  # type: ignore[arg-type]
            tuple(map(rows, one.rows)),
        )
        for one in handed_over
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


def _leave_results_where_they_are() -> None:
    """To be called last in a traced function. What it returns passes through an operation that TensorFlow adds then,
    and that would fetch each result to the device of the function, to be sent back from there."""

    def beside(operation: tf.Operation) -> str:
        if operation.device or operation.type != "Identity":
            return operation.device
        return operation.inputs[0].op.device

    # A scope would end with the traced function, and this is for what comes after it.
    tf.compat.v1.get_default_graph()._add_device_to_stack(beside)


@contextlib.contextmanager
def _beside_inputs(otherwise: str) -> Iterator[None]:
    """Within it, in a graph, an operation without a device is placed beside what it computes from.

    Args:
        otherwise: The device of those that have nothing to go by, such as what computes from arguments alone.
    """
    graph = tf.compat.v1.get_default_graph()

    def beside(operation: tf.Operation) -> str:
        if operation.device:
            return operation.device
        inputs = [tensor.op for tensor in operation.inputs]
        device = next((one.device for one in inputs if one.device), otherwise if inputs else "")
        for one in inputs:
            if device and not one.device and one.type == "Const":
                one._set_device(device)  # a constant has nothing to go by when it is made
        return device

    with graph.device(beside):
        yield
    for operation in graph.get_operations():
        if not operation.device and operation.type != "Placeholder":
            operation._set_device(otherwise)
