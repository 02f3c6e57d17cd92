"""The one order in which the parts of a sum are added, whoever holds them.

The node [b, e) of the tree is the sum of the parts b to e - 1; it splits at (b + e + 1) // 2, as the tree in which a
training step adds its parts. A *piece* is a node all of whose parts one process or host can add alone.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np

Node = tuple[int, int]
_Array = TypeVar("_Array")


def pieces(parts: Collection[int], num_parts: int) -> list[Node]:
    """The fewest nodes that cover exactly these parts, from left to right.

    >>> pieces({0, 1, 2, 3}, 4), pieces({1, 2, 3}, 4), pieces({0, 1}, 3)
    ([(0, 4)], [(1, 2), (2, 4)], [(0, 2)])
    """
    held = frozenset(parts)

    def below(begin: int, end: int) -> list[Node]:
        inside = sum(part in held for part in range(begin, end))
        if inside == end - begin:
            return [(begin, end)]
        if not inside:
            return []
        middle = (begin + end + 1) // 2
        return below(begin, middle) + below(middle, end)

    return below(0, num_parts)


def add_up(arrays: Mapping[Node, _Array], root: Node, add: Callable[[_Array, _Array], _Array]) -> _Array:
    """The sum of the root, out of nodes below it, in the tree's order: `TreeSum` for arrays that NumPy does not know.

    Args:
        arrays: nodes; what lies outside the root is not looked at.
        root: the node wanted.
        add: gives the sum of two arrays, the left one first.

    Raises:
        KeyError: a part of the root is in none of them.

    >>> add_up({(2, 3): "c", (0, 1): "a", (1, 2): "b"}, (0, 3), lambda left, right: f"({left}+{right})")
    '((a+b)+c)'
    """
    if root in arrays:
        return arrays[root]
    begin, end = root
    if end - begin < 2:
        raise KeyError(root)
    middle = (begin + end + 1) // 2
    return add(add_up(arrays, (begin, middle), add), add_up(arrays, (middle, end), add))


class TreeSum:
    """Adds arrays that are nodes of the tree into a node above them, in the tree's order.

    Args:
        leaves: the nodes given; together, without overlap, the root.
        root: the node wanted.

    >>> add = TreeSum([(2, 3), (0, 2)], (0, 3))
    >>> total = np.empty(2, np.float32)
    >>> add([np.float32([1, 2]), np.float32([10, 20])], total)
    >>> total
    array([11., 22.], dtype=float32)
    """

    def __init__(self, leaves: Sequence[Node], root: Node) -> None:
        self._place = {leaf: i for i, leaf in enumerate(leaves)}
        self._out = len(leaves)
        self._free = [self._out]  # operands that can be written: the sum itself first, then scratch
        self._num_scratch = 0
        self._steps: list[tuple[int, int, int]] = []  # target, left, right
        self._single = self._place.get(root)
        self._build(*root)
        self._scratch: list[np.ndarray] = []

    def _build(self, begin: int, end: int) -> int:
        place = self._place.get((begin, end))
        if place is not None:
            return place
        assert end - begin > 1, "the leaves cover the root"
        middle = (begin + end + 1) // 2
        left, right = self._build(begin, middle), self._build(middle, end)
        # The left side takes the sum itself as its target whenever it needs one, so the root ends up there.
        writable = [operand for operand in (left, right) if operand >= self._out]
        if not writable:
            writable = [self._free.pop(0) if self._free else self._new_scratch()]
        self._free = sorted([*self._free, *writable[1:]])
        self._steps.append((writable[0], left, right))
        return writable[0]

    def _new_scratch(self) -> int:
        self._num_scratch += 1
        return self._out + self._num_scratch

    def __call__(self, leaves: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Writes the sum of the leaves, given in the constructor's order, to `out`; all have its shape [E] and type."""
        if self._single is not None:
            np.copyto(out, leaves[self._single])
            return
        if self._num_scratch and (not self._scratch or len(self._scratch[0]) < len(out)):
            self._scratch = [np.empty(len(out), out.dtype) for _ in range(self._num_scratch)]
        operands = [*leaves, out, *(scratch[: len(out)] for scratch in self._scratch)]
        for target, left, right in self._steps:
            np.add(operands[left], operands[right], out=operands[target])
