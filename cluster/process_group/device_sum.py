"""Sums of arrays that stay on the members' devices, in the one order of addition, with as few bytes as a ring has.

What adds up on a device is not told here, nor what moves bytes between two of them: an `Arithmetic` and a `Wire`.

The elements are cut into blocks (`plan.py`), each with an owner. A sum takes four exchanges at most:

1. inside each host every member sends its pieces of a block to the one of the host whose turn the block is, which adds
   them to the host's pieces;
2. each of these sends them to the block's owner, if that is on another host; the owner adds up all;
3. the owner sends the sum to all of its own host, and to the one on every other host whose turn the block is;
4. each of these passes it on inside its host.

On one host 2 and 4 have nothing to do, with one member on each host 1 and 4: what is left is a reduce-scatter and an
all-gather, which move no more than a ring does, 2 (n - 1) / n of the sum for each member. Between hosts each byte
travels once a host in each direction. Unlike in a ring the order of addition does not depend on who holds what: pieces
are nodes of the tree (`tree.py`), and only nodes are added.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from cluster.process_group.plan import Block, blocks, turn
from cluster.process_group.tree import Node, add_up, pieces

Array = Any  # flat, of whatever library knows the device; has a length


class Slice(NamedTuple):
    """Elements of an array on a device; no copy is made of them.

    Attributes:
        array: flat, [N].
        begin, end: the elements.
    """

    array: Array
    begin: int
    end: int


class Arithmetic(Protocol):
    """Memory of one device, and addition on it."""

    def empty(self, num_elements: int) -> Array:
        """An array [num_elements] that a wire may write to; nobody else gets its memory while it is there."""
        ...

    def add(self, left: Slice, right: Slice) -> Array:
        """The sum of two slices of the same length, as an array of its own, rounded as IEEE 754 has it."""
        ...


class Wire(Protocol):
    """Moves bytes between the devices of all members."""

    def exchange(self, sends: Sequence[tuple[int, Slice]], receives: Sequence[tuple[int, Slice]]) -> None:
        """Sends and receives at the same time, each with a rank, which may be this one.

        Between two members what is sent first is received first. All that was computed before is sent as it is then,
        and what is received is there when this returns. All members call it, also those that have nothing to do.

        Raises:
            GroupAborted: the generation was ended.
        """
        ...

    def add_up_in_place(self, array: Array) -> None:
        """Replaces the array of every member by the sum of all, in whatever order; the same one on all members.

        Raises:
            GroupAborted: the generation was ended.
        """
        ...


class _Turn(NamedTuple):
    """A block that this member adds up for its host, or for all.

    Attributes:
        block: it.
        inside: the pieces of other members of the host: rank, node and where they are received.
        outside: those of other hosts.
    """

    block: Block
    inside: list[tuple[int, Node, Slice]]
    outside: list[tuple[int, Node, Slice]]


class DeviceSum:
    """A sum that is taken again and again, of one array for each part of a batch.

    Args:
        wire: between the members; None where there is one member.
        arithmetic: of this member's device.
        hosts: the ranks of each host.
        rank: this member's.
        parts: that each rank holds, by rank: together `range(num_parts)`, each once.
        num_parts: of the sum.
        num_elements: of each part and of the sum.

    Raises:
        ValueError: the parts do not make up the whole, or there are several members and no wire.
    """

    def __init__(
        self,
        wire: Wire | None,
        arithmetic: Arithmetic,
        hosts: Sequence[Sequence[int]],
        rank: int,
        parts: Sequence[range],
        num_parts: int,
        num_elements: int,
    ) -> None:
        if sorted(part for held in parts for part in held) != list(range(num_parts)):
            raise ValueError(
                f"{[list(held) for held in parts]} are not {num_parts} parts: give each rank a range, together all "
                "parts once"
            )
        if wire is None and len(parts) > 1:
            raise ValueError(f"{len(parts)} members need a wire between their devices: pass one")
        self._wire, self._arithmetic, self._rank = wire, arithmetic, rank
        self._parts, self._whole = parts[rank], (0, num_parts)
        self._nodes = [pieces(held, num_parts) for held in parts]
        if wire is None:
            return
        self._result = arithmetic.empty(num_elements)
        self._hosts = hosts
        self._host = next(host for host in hosts if rank in host)
        self._host_nodes = {id(host): pieces([p for mate in host for p in parts[mate]], num_parts) for host in hosts}
        self._blocks = list(blocks(hosts, num_elements, max(1, num_elements)))
        self._turns = [self._taken(block) for block in self._blocks if turn(self._host, block.lane) == rank]
        self._sums_received, self._passed_on, self._sums_passed_on = self._results()

    def _taken(self, block: Block) -> _Turn:
        inside = [(mate, node) for mate in self._host if mate != self._rank for node in self._nodes[mate]]
        outside = []
        if block.owner == self._rank:
            others = [host for host in self._hosts if host is not self._host]
            outside = [(turn(host, block.lane), node) for host in others for node in self._host_nodes[id(host)]]

        def received(told: Sequence[tuple[int, Node]]) -> list[tuple[int, Node, Slice]]:
            length = block.end - block.begin
            return [(sender, node, Slice(self._arithmetic.empty(length), 0, length)) for sender, node in told]

        return _Turn(block, received(inside), received(outside))

    def _results(self) -> tuple[list[tuple[int, Slice]], list[tuple[int, Slice]], list[tuple[int, Slice]]]:
        """What this member receives of the sum first; what it passes on then; and what it is passed on."""
        received, passes, passed = [], [], []
        for block in self._blocks:
            place = Slice(self._result, block.begin, block.end)
            mine = turn(self._host, block.lane)
            if block.owner in self._host or mine == self._rank:
                received.append((block.owner, place))
            if block.owner in self._host:
                continue
            if mine == self._rank:
                passes += [(mate, place) for mate in self._host if mate != self._rank]
            else:
                passed.append((mine, place))
        return received, passes, passed

    def run(self, parts: Sequence[Array]) -> Array:
        """The sum [num_elements] of all parts of all members.

        It is valid until the next run, whose exchanges wait until nothing on the device reads it any more.

        Args:
            parts: this member's, in order: [num_elements] each.

        Raises:
            GroupAborted: the generation was ended.
        """
        own = self._own_pieces(parts)
        if self._wire is None:
            return own[self._whole].array
        hosts_pieces = self._added_inside(own)
        totals = self._added_between(hosts_pieces)
        sends: list[tuple[int, Slice]] = []
        for block in self._blocks:
            if block.owner == self._rank:
                others = [turn(host, block.lane) for host in self._hosts if host is not self._host]
                sends += [(receiver, totals[block]) for receiver in (*self._host, *others)]
        self._wire.exchange(sends, self._sums_received)
        if len(self._hosts) > 1 and any(len(host) > 1 for host in self._hosts):
            self._wire.exchange(self._passed_on, self._sums_passed_on)
        return self._result

    def _own_pieces(self, parts: Sequence[Array]) -> dict[Node, Slice]:
        arrays = {
            (number, number + 1): Slice(array, 0, len(array)) for number, array in zip(self._parts, parts, strict=True)
        }
        return {node: self._sum(arrays, node) for node in self._nodes[self._rank]}

    def _sum(self, arrays: dict[Node, Slice], node: Node) -> Slice:
        def add(left: Slice, right: Slice) -> Slice:
            return Slice(self._arithmetic.add(left, right), 0, left.end - left.begin)

        return add_up(arrays, node, add)

    def _added_inside(self, own: dict[Node, Slice]) -> dict[Block, dict[Node, Slice]]:
        """This host's pieces of the blocks that are this member's turn."""
        assert self._wire is not None
        if any(len(host) > 1 for host in self._hosts):
            sends = [
                (turn(self._host, block.lane), _cut(piece, block))
                for block in self._blocks
                if turn(self._host, block.lane) != self._rank
                for piece in own.values()
            ]
            receives = [(mate, place) for taken in self._turns for mate, _, place in taken.inside]
            self._wire.exchange(sends, receives)
        added = {}
        for block, inside, _ in self._turns:
            arrays = {node: _cut(piece, block) for node, piece in own.items()}
            arrays.update({node: place for _, node, place in inside})
            added[block] = {node: self._sum(arrays, node) for node in self._host_nodes[id(self._host)]}
        return added

    def _added_between(self, hosts_pieces: dict[Block, dict[Node, Slice]]) -> dict[Block, Slice]:
        """The whole sum of the blocks that are this member's."""
        assert self._wire is not None
        if len(self._hosts) > 1:
            sends = [
                (block.owner, piece)
                for block, found in hosts_pieces.items()
                if block.owner not in self._host
                for piece in found.values()
            ]
            receives = [(sender, place) for taken in self._turns for sender, _, place in taken.outside]
            self._wire.exchange(sends, receives)
        totals = {}
        for block, _, outside in self._turns:
            if block.owner == self._rank:
                arrays = hosts_pieces[block] | {node: place for _, node, place in outside}
                totals[block] = self._sum(arrays, self._whole)
        return totals


class FastDeviceSum:
    """A sum in whatever order the wire has: fewer bytes between hosts with several members, and other bits for other
    groups.

    Args:
        wire: between the members; None where there is one member.
        arithmetic: of this member's device.
        num_parts: that this member holds; at least one.
    """

    def __init__(self, wire: Wire | None, arithmetic: Arithmetic, num_parts: int) -> None:
        self._wire, self._arithmetic, self._root = wire, arithmetic, (0, num_parts)

    def run(self, parts: Sequence[Array]) -> Array:
        """See `DeviceSum.run`; what is given is not valid any more."""
        arrays = {(number, number + 1): array for number, array in enumerate(parts)}

        def add(left: Array, right: Array) -> Array:
            length = len(left)
            return self._arithmetic.add(Slice(left, 0, length), Slice(right, 0, length))

        total = add_up(arrays, self._root, add)
        if self._wire is not None:
            self._wire.add_up_in_place(total)
        return total


def _cut(piece: Slice, block: Block) -> Slice:
    return Slice(piece.array, block.begin, block.end)
