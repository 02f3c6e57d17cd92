"""A training state on the parameter servers: what a worker reads of it, and what it leaves there."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from trainer.parameter_server.parcels import Item, Parcels, read_together
from trainer.parameter_server.placement import PlacedVariable, Placement, owner_of
from trainer.parameter_server.tables import NeededRows, RowModel, tables_of
from trainer.state import TrainState
from trainer.step.state_tensors import Contribution, StateTensors


class Rows(NamedTuple):
    """A gradient that is zero in all rows but these: what a `tf.IndexedSlices` is, as two tensors of their own, so that
    a traced function can be for any number of rows.

    Attributes:
        values: [R, ...].
        ids: int64 [R], which row each is; each once.
    """

    values: tf.Tensor
    ids: tf.Tensor


class HandedOver(NamedTuple):
    """A contribution on the parameter servers.

    Attributes:
        parcels: All that is no `Rows`, as `Parcels` puts it together.
        rows: The gradients of rows, in the order of the pieces.
    """

    parcels: tuple[tf.Tensor, ...]
    rows: tuple[Rows, ...]


class LookedUp(NamedTuple):
    """Rows of a placed table.

    Attributes:
        needed: Which.
        values: [R, ...], where they are needed.
        sizes: int32 scalars, how many are of each piece.
        places: For each piece, int64, its rows, where it lies.
    """

    needed: NeededRows
    values: tf.Tensor
    sizes: tuple[tf.Tensor, ...]
    places: tuple[tf.Tensor, ...]

    def cut(self, gradient: tf.Tensor) -> list[Rows]:
        """A gradient of the rows, as that of each piece."""
        if len(self.places) == 1:
            return [Rows(gradient, self.places[0])]
        parts, begin = [], tf.constant(0)
        for size, places in zip(self.sizes, self.places, strict=True):
            parts.append(Rows(gradient[begin : begin + size], places))
            begin += size
        return parts


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
        self._layout: _Layout | None = None

    @property
    def placed(self) -> StateTensors:
        """The placed variables."""
        return self._state.placed

    def values(
        self, weights: Sequence[PlacedVariable], step: tf.Tensor, inputs: object
    ) -> tuple[StateTensors, dict[int, LookedUp]]:
        """What a worker reads before it computes.

        Args:
            weights: The trainable variables, or their averages.
            step: The number of the step.
            inputs: Of the model, which say what rows are needed.

        Returns:
            The values, rows in place of tables; and which rows these are, by table.
        """
        placed = self.placed
        numbers = [i for i in range(len(weights)) if i not in self.tables]
        whole: list[PlacedVariable] = [weights[i] for i in numbers]
        whole += [*placed.non_trainable, *placed.loss_scale]  # type: ignore[list-item]
        parts = iter(read_together([piece for variable in whole for piece in variable.pieces]))
        found = [variable.joined([next(parts) for _ in variable.pieces]) for variable in whole]
        dense, found = dict(zip(numbers, found, strict=False)), found[len(numbers) :]
        others, scale = found[: len(placed.non_trainable)], found[len(placed.non_trainable) :]
        needed = self.rows.needed(dense, others, inputs, lambda i: len(weights[i].pieces) > 1) if self.rows else {}
        looked_up = {i: _look_up(weights[i], rows) for i, rows in needed.items()}
        trainable = tuple(dense[i] if i in dense else looked_up[i].values for i in range(len(weights)))
        return StateTensors(step, trainable, tuple(others), (), (), tuple(scale), tf.zeros([0])), looked_up

    def with_rows(self, looked_up: dict[int, LookedUp]) -> contextlib.AbstractContextManager[None]:
        """Within it the model is called with rows in place of tables."""
        needed = {number: rows.needed for number, rows in looked_up.items()}
        return self.rows.with_rows(needed) if self.rows else contextlib.nullcontext()

    def hand_over(self, contribution: Contribution, looked_up: dict[int, LookedUp]) -> HandedOver:
        """The contribution where it is needed: each gradient cut into the pieces of its weight, on their servers."""
        gradients: list[tf.Tensor | Rows] = []
        servers: list[str] = []
        for number, (weight, gradient) in enumerate(zip(self.placed.trainable, contribution.gradients, strict=True)):
            is_rows = number in looked_up
            gradients += looked_up[number].cut(gradient) if is_rows else weight.split(gradient)  # type: ignore[attr-defined]
            servers += [piece.device for piece in weight.pieces]  # type: ignore[attr-defined]
        whole = [(one, server) for one, server in zip(gradients, servers, strict=True) if not isinstance(one, Rows)]
        whole += [(one, self._first) for one in (*contribution.statistics, contribution.sums)]
        items = [Item(server, value.dtype, _known(value.shape)) for value, server in whole]
        self._layout = _Layout(
            Parcels(items), tuple(isinstance(one, Rows) for one in gradients), len(contribution.statistics)
        )
        parcels = []
        for parcel, (server, _) in zip(
            self._layout.parcels.wrap([value for value, _ in whole]), self._layout.parcels.groups, strict=True
        ):
            with tf.device(server):
                parcels.append(tf.identity(parcel))
        rows = []
        for one, server in zip(gradients, servers, strict=True):
            if isinstance(one, Rows):
                with tf.device(server):
                    rows.append(Rows(tf.identity(one.values), tf.identity(one.ids)))
        return HandedOver(tuple(parcels), tuple(rows))

    def taken(self, handed_over: HandedOver) -> Contribution:
        """What was handed over, on the servers of the pieces; `Rows` in place of some gradients."""
        assert self._layout is not None, "a contribution is computed before one is used"
        parcels, unwrapped = self._layout.parcels, []
        for number, ((server, _), parcel) in enumerate(zip(parcels.groups, handed_over.parcels, strict=True)):
            with tf.device(server):
                unwrapped.append(parcels.unwrapped(number, parcel))
        values, rows = parcels.in_order(unwrapped), iter(handed_over.rows)
        left = iter(values)
        gradients = tuple(next(rows) if is_rows else next(left) for is_rows in self._layout.is_rows)
        statistics = tuple(next(left) for _ in range(self._layout.num_statistics))
        return Contribution(gradients, statistics, next(left))  # type: ignore[arg-type]


class _Layout(NamedTuple):
    """How a contribution is handed over.

    Attributes:
        parcels: Of all that are no rows.
        is_rows: For each piece of the weights, whether its gradient is that of rows.
        num_statistics: Of the contribution.
    """

    parcels: Parcels
    is_rows: tuple[bool, ...]
    num_statistics: int


def _known(shape: tf.TensorShape) -> tuple[int, ...] | None:
    return tuple(shape) if shape.is_fully_defined() else None  # type: ignore[return-value]


def _look_up(weight: PlacedVariable, needed: NeededRows) -> LookedUp:
    """Rows of a placed table, looked up where they lie; the ids rise where it is divided."""
    found, there = [], []
    here = _local_ids(weight, needed.ids)
    for piece, local in zip(weight.pieces, here, strict=True):
        with tf.device(piece.device):
            there.append(tf.identity(local))
            found.append(tf.gather(piece, there[-1]))
    # A tensor of its own on this side: else its shape would be asked of the server.
    values = tf.identity(found[0]) if len(found) == 1 else tf.concat(found, 0)
    return LookedUp(needed, values, tuple(tf.size(local) for local in here), tuple(there))


def _local_ids(weight: PlacedVariable, ids: tf.Tensor) -> list[tf.Tensor]:
    if len(weight.pieces) == 1:
        return [ids]
    edges = tf.searchsorted(ids, tf.constant(weight.bounds, tf.int64))
    return [ids[edges[k] : edges[k + 1]] - weight.bounds[k] for k in range(len(weight.pieces))]
