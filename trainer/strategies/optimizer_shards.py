"""The optimizer's slots, dealt out among the workers of a group: each variable's to an owner and to one who stands by.

Every worker gets the whole sum of a step. It updates the variables whose slots it holds, and gets the new weights of
all others from those who hold theirs. An owner and its stand-by do the same arithmetic on the same numbers, so that the
second copy costs no byte on the way: when one of them dies, nothing is lost.

Source: ZeRO, stage 1 (Rajbhandari, Rasley, Ruwase, He, SC 2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.membership import Collective
from trainer.parameter_server.placement import num_bytes, owner_of
from trainer.state import TrainState
from trainer.strategies.dealing import pair


class ShardsLost(ConnectionError):
    """All who held some of the optimizer's state are gone: the others cannot go on either."""


@dataclass(frozen=True)
class Unit:
    """What is dealt as a whole: a trainable variable.

    Attributes:
        weights: Names in the state of what everybody has: the variable, and its average where there is one.
        slots: Names of what its holders have.
        num_bytes: Of the slots.
    """

    weights: tuple[str, ...]
    slots: tuple[str, ...]
    num_bytes: int


def units_of(state: TrainState) -> tuple[Unit, ...]:
    """The trainable variables, in the model's order, with the slots that belong to them."""
    paths = [variable.path for variable in state.model.trainable_variables]
    slots: dict[str, list[str]] = {path: [] for path in paths}
    by_path = {path: state.variables[f"model/{path}"] for path in paths}
    for variable in state.optimizer.variables:
        owner = owner_of(variable.path, by_path)
        if owner is not None:
            slots[owner].append(f"optimizer/{variable.path}")
    return tuple(
        Unit(
            tuple(name for name in (f"model/{path}", f"ema/{path}") if name in state.variables),
            tuple(slots[path]),
            sum(num_bytes(state.variables[name]) for name in slots[path]),
        )
        for path in paths
    )


def deal_units(sizes: Sequence[int], hosts: Sequence[str]) -> tuple[int, ...]:
    """The owner of each unit, by rank: the largest first, each to whoever has least.

    Args:
        sizes: Bytes of each unit.
        hosts: The host of each member, by rank.

    >>> deal_units([40, 10, 30, 20], ["a", "b"])
    (0, 0, 1, 1)
    """
    loads, owners = [0] * len(hosts), [0] * len(sizes)
    for unit in sorted(range(len(sizes)), key=lambda unit: (-sizes[unit], unit)):
        owner = min(range(len(hosts)), key=lambda rank: (loads[rank], rank))
        owners[unit], loads[owner] = owner, loads[owner] + sizes[unit]
    return tuple(owners)


def holders_of(owner: int, hosts: Sequence[str]) -> tuple[int, ...]:
    """Who has the slots of an owner's units: it, and another member, on another host where that can be.

    >>> holders_of(0, ["a", "b", "c"]), holders_of(0, ["a"])
    ((0, 1), (0,))
    """
    return (owner, pair(hosts)[owner]) if len(hosts) > 1 else (owner,)


class OptimizerShards:
    """What one worker holds of the optimizer's state, from one group to the next.

    Args:
        state: Built with all of it; what is not held is given back by `release`.

    Attributes:
        units: See `units_of`.
        updates: bool [units], for the update: which units this worker updates.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self.units = units_of(state)
        self._dealt_names = {name for unit in self.units for name in (*unit.weights, *unit.slots)}
        self.updates = tf.Variable(tf.fill([len(self.units)], True), trainable=False, name="updates")
        self._held = set(range(len(self.units)))
        self._is_whole = True  # the weights of all units are those of the state's step
        self._collective: Collective | None = None
        self._owners: tuple[int, ...] = ()
        self._hosts: Sequence[str] = ()

    def word(self) -> dict[str, Any]:
        """What this worker tells the others when a group is formed."""
        return {"held": sorted(self._held), "is_whole": self._is_whole}

    def deal(self, collective: Collective, hosts: Sequence[str]) -> None:
        """Who holds what in a group; nothing moves."""
        self._collective, self._hosts = collective, hosts
        self._owners = deal_units([unit.num_bytes for unit in self.units], hosts)

    def release(self) -> None:
        """Gives the memory back of all that this worker is not to hold."""
        assert self._collective is not None, "dealt before"
        rank = self._collective.rank
        self._held = {i for i, owner in enumerate(self._owners) if rank in holders_of(owner, self._hosts)}
        self.updates.assign([i in self._held for i in range(len(self.units))])
        absent = {name for i, unit in enumerate(self.units) if i not in self._held for name in unit.slots}
        for name in absent:
            # Graphs know the shape that it had, and none of them uses it as long as it is not held.
            _put(self._state.variables[name], tf.zeros([0], self._state.variables[name].dtype))
        self._state.absent = frozenset(absent)

    @property
    def held_bytes(self) -> int:
        """Of the slots that this worker holds."""
        return sum(self.units[i].num_bytes for i in self._held)

    def meet(self) -> None:
        """Returns when all members have the sum of a step: from here on, none of them can do without it."""
        assert self._collective is not None
        self._collective.all_gather(b"")

    def updated(self) -> None:
        """The units that this worker holds are a step ahead of all others."""
        self._is_whole = False

    def exchange(self) -> None:
        """Gets the new weights of all other units. All members call it after the same update."""
        assert self._collective is not None
        everybody = range(len(self._hosts))
        for owner in everybody:
            holders = holders_of(owner, self._hosts)
            names = self._weights(i for i in range(len(self.units)) if self._owners[i] == owner)
            self._move(holders, [rank for rank in everybody if rank not in holders], names)
        self._is_whole = True

    def spread(self, words: Sequence[Mapping[str, Any]], newest: int) -> None:
        """Brings all members of a group that has been dealt to the newest state.

        Args:
            words: Of the members, by rank: "step", and what `word` says.
            newest: The step of those who are ahead.

        Raises:
            ShardsLost: Nobody has the slots of some unit.
        """
        assert self._collective is not None
        rank, ranks = self._collective.rank, range(len(words))
        ahead = [each for each in ranks if words[each]["step"] == newest]
        behind = [each for each in ranks if each not in ahead]
        incomplete = [*behind, *(each for each in ahead if not words[each]["is_whole"])]
        has = {each: set(words[each]["held"]) for each in ahead}
        sources = [next((each for each in ahead if i in has[each]), None) for i in range(len(self.units))]
        lost = [self.units[i].weights[0] for i, source in enumerate(sources) if source is None]
        if lost:
            raise ShardsLost(
                f"the optimizer's state of {lost[0]} and of {len(lost) - 1} more variables is gone with both workers "
                "that held it: the run goes on from its newest checkpoint"
            )
        self._move(ahead, behind, sorted(self._state.variables.keys() - self._dealt_names))
        for source in ahead:
            units = [i for i in range(len(self.units)) if sources[i] == source]
            self._move([source], [each for each in incomplete if each != source], self._weights(units))
            for receiver in ranks:
                wanted = [
                    i
                    for i in units
                    if receiver in holders_of(self._owners[i], self._hosts) and i not in has.get(receiver, ())
                ]
                self._move([source], [receiver], [name for i in wanted for name in self.units[i].slots])
        if rank in incomplete:
            self._is_whole = True
        self.release()

    def gather(self, into: Mapping[str, np.ndarray] | None) -> None:
        """Fills in the chief's arrays what others hold. All members call it.

        Args:
            into: The chief's, by name, C-contiguous; None of all others.
        """
        assert self._collective is not None
        held = {i for i, owner in enumerate(self._owners) if 0 in holders_of(owner, self._hosts)}
        for owner in range(len(self._hosts)):
            units = [i for i in range(len(self.units)) if self._owners[i] == owner and i not in held]
            names = [name for i in units for name in self.units[i].slots]
            if not names:
                continue
            if self._collective.rank == 0:
                assert into is not None, "the chief saves"
                arrays = [into[name] for name in names]
            else:
                arrays = self._values(names) if self._collective.rank == owner else []
            self._collective.transfer([owner], [0], arrays)

    def _weights(self, units: Iterable[int]) -> list[str]:
        return [name for i in units for name in self.units[i].weights]

    def _values(self, names: Sequence[str]) -> list[np.ndarray]:
        return [np.ascontiguousarray(self._state.variables[name].read_value()) for name in names]

    def _move(self, senders: Sequence[int], receivers: Sequence[int], names: Sequence[str]) -> None:
        """From senders, who all have them, to receivers; for others nothing happens."""
        assert self._collective is not None
        rank = self._collective.rank
        receivers = [each for each in receivers if each not in senders]
        if not receivers or not names:
            return
        arrays: list[np.ndarray] = []
        if rank in senders:
            arrays = self._values(names)
        elif rank in receivers:
            shapes = self._state.shapes()
            arrays = [np.empty(*shapes[name]) for name in names]
        self._collective.transfer(senders, receivers, arrays)
        if rank in receivers:
            for name, array in zip(names, arrays, strict=True):
                _put(self._state.variables[name], tf.constant(array))


def _put(variable: tf.Variable, value: tf.Tensor) -> None:
    """Sets a variable whatever shape it has now: one that is not held has none."""
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value, validate_shape=False)
