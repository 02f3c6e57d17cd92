"""A training state on the parameter servers: what a worker reads of it, and what it leaves there."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from trainer.parameter_server.placement import PlacedVariable, Placement, owner_of
from trainer.parameter_server.tables import RowModel, tables_of
from trainer.state import TrainState
from trainer.step.state_tensors import Contribution, StateTensors


class Rows(NamedTuple):
    """A gradient that is zero in all rows but these: what a `tf.IndexedSlices` is, as two tensors of their own, so that
    a traced function can be for any number of rows.

    Attributes:
        values: [R, ...].
        ids: int64 [R], which row each is; each once, rising.
    """

    values: tf.Tensor
    ids: tf.Tensor


class RemoteState:
    """A training state that has moved to the parameter servers.

    Args:
        state: Here; moved by this.
        placement: Chooses the servers.
    """

    def __init__(self, state: TrainState, placement: Placement) -> None:
        self._first = placement.first
        weights = {variable.path: variable._value for variable in state.model.trainable_variables}
        self.tables = tables_of(state.model, lambda table: placement.is_large(table))
        self.rows = RowModel(state.model, self.tables) if self.tables else None
        devices: dict[str, list[str]] = {}

        def place(name: str, variable: tf.Variable) -> PlacedVariable:
            kind, _, path = name.partition("/")
            if kind == "optimizer":
                path = owner_of(path, weights) or ""
            if path not in weights:
                return PlacedVariable(variable, [placement.first])
            if path not in devices:
                devices[path] = placement.devices_of(weights[path])
            # What the rule keeps in another shape, such as sums over rows, is for the whole weight and not divided.
            is_alike = variable.shape == weights[path].shape
            return PlacedVariable(variable, devices[path] if is_alike else devices[path][:1])

        state.move(place)  # type: ignore[arg-type]
        self._state = state

    @property
    def placed(self) -> StateTensors:
        """The placed variables."""
        return self._state.placed

    def values(
        self, weights: Sequence[PlacedVariable], step: tf.Tensor, inputs: object
    ) -> tuple[StateTensors, dict[int, tf.Tensor]]:
        """What a worker reads before it computes.

        Args:
            weights: The trainable variables, or their averages.
            step: The number of the step.
            inputs: Of the model, which say what rows are needed.

        Returns:
            The values, rows in place of tables; and which rows these are, by table.
        """
        placed = self.placed
        dense = {i: weight.read_value() for i, weight in enumerate(weights) if i not in self.tables}
        others = [variable.read_value() for variable in placed.non_trainable]
        ids = self.rows.ids(dense, others, inputs) if self.rows else {}
        looked_up = {i: _gather(weights[i], ids[i]) for i in ids}
        trainable = tuple(dense[i] if i in dense else looked_up[i] for i in range(len(weights)))
        scale = tuple(variable.read_value() for variable in placed.loss_scale)
        return StateTensors(step, trainable, tuple(others), (), (), scale, tf.zeros([0])), ids

    def with_rows(self, ids: dict[int, tf.Tensor]) -> contextlib.AbstractContextManager[None]:
        """Within it the model is called with rows in place of tables."""
        return self.rows.with_rows(ids) if self.rows else contextlib.nullcontext()

    def hand_over(self, contribution: Contribution, ids: dict[int, tf.Tensor]) -> Contribution:
        """The contribution where it is needed: each gradient cut into the pieces of its weight, on their servers."""
        gradients: list[tf.Tensor | Rows] = []
        for number, (weight, gradient) in enumerate(zip(self.placed.trainable, contribution.gradients, strict=True)):
            cut = _slices(weight, ids[number], gradient) if number in ids else weight.split(gradient)  # type: ignore[arg-type]
            for piece, part in zip(weight.pieces, cut, strict=True):
                with tf.device(piece.device):
                    gradients.append(tf.nest.map_structure(tf.identity, part))
        with tf.device(self._first):
            statistics = tuple(tf.identity(change) for change in contribution.statistics)
            return Contribution(tuple(gradients), statistics, tf.identity(contribution.sums))  # type: ignore[arg-type]


def _gather(weight: PlacedVariable, ids: tf.Tensor) -> tf.Tensor:
    """Rows of a placed table, looked up where they lie; `ids` rise."""
    found = []
    for piece, local in zip(weight.pieces, _local_ids(weight, ids), strict=True):
        with tf.device(piece.device):
            found.append(tf.gather(piece, local))
    return found[0] if len(found) == 1 else tf.concat(found, 0)


def _slices(weight: PlacedVariable, ids: tf.Tensor, rows: tf.Tensor) -> list[Rows]:
    """A gradient of rows, as that of each piece."""
    slices, begin = [], tf.constant(0)
    for local in _local_ids(weight, ids):
        end = begin + tf.size(local)
        slices.append(Rows(rows[begin:end], local))
        begin = end
    return slices


def _local_ids(weight: PlacedVariable, ids: tf.Tensor) -> list[tf.Tensor]:
    if len(weight.pieces) == 1:
        return [ids]
    edges = tf.searchsorted(ids, tf.constant(weight.bounds, tf.int64))
    return [ids[edges[k] : edges[k + 1]] - weight.bounds[k] for k in range(len(weight.pieces))]
