"""Fewer bytes for the numbers of a sum that leave a host.

An encoding gives back to the bit what it was given. What is lost is lost before, in the same way wherever a part is
computed and whatever leaves the host: `settle` rounds each part once, and the sum of all once. Sums of some parts,
which a host that holds several of them sends, are float32 and stay so. So the sum is the same to the bit for every
dealing.

Sources: bfloat16 and float16 on the wire as in Horovod's compression; pairs of places and values as in Deep Gradient
Compression (Lin et al., ICLR 2018).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np

_DENSE = 0xFFFFFFFF
_PAIR_BYTES = 8

Row = tuple[np.ndarray, bool]
"""float32 [E], and whether it is a part or the whole sum, and so has been settled."""


class WrongEncoding(Exception):
    """Bytes are none that `encode` gives. The message ends a sentence about whoever sent them."""


class Encoding(Protocol):
    """How rows of numbers look on their way."""

    def settle(self, values: np.ndarray) -> None:
        """Rounds numbers in place to what can be encoded."""
        ...

    def encode(self, rows: Sequence[Row]) -> np.ndarray:
        """The bytes of rows of one length."""
        ...

    def decode(self, data: np.ndarray, num_elements: int, settled: Sequence[bool]) -> list[np.ndarray]:
        """The rows again; `settled` says of each what `encode` was told.

        Raises:
            WrongEncoding: they are none.
        """
        ...


class Halves(ABC):
    """Two bytes for each number that has been settled, four for others."""

    @abstractmethod
    def settle(self, values: np.ndarray) -> None: ...  # noqa: D102

    @abstractmethod
    def _halves(self, values: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _whole(self, halves: np.ndarray) -> np.ndarray: ...

    def encode(self, rows: Sequence[Row]) -> np.ndarray:  # noqa: D102
        return np.concatenate([(self._halves(row) if settled else row).view(np.uint8) for row, settled in rows])

    def decode(self, data: np.ndarray, num_elements: int, settled: Sequence[bool]) -> list[np.ndarray]:  # noqa: D102
        sizes = [num_elements * (2 if one else 4) for one in settled]
        if len(data) != sum(sizes):
            raise WrongEncoding(f"sent {len(data)} bytes where {sum(sizes)} are expected")
        rows = np.split(data, np.cumsum(sizes)[:-1])
        return [
            self._whole(row.view(np.uint16)) if one else row.view(np.float32)
            for row, one in zip(rows, settled, strict=True)
        ]


class Bfloat16(Halves):
    """The upper half of a float32, rounded to the nearest, ties to even: its range with 8 bits of mantissa.

    >>> values = np.float32([1.0, 1.003, 3e38])
    >>> Bfloat16().settle(values)
    >>> values
    array([1.0000000e+00, 1.0000000e+00, 3.0040553e+38], dtype=float32)
    """

    def settle(self, values: np.ndarray) -> None:  # noqa: D102
        nan = np.isnan(values)
        if nan.any():
            values[nan] = np.nan  # of which no bit is carried into the sign
        bits = values.view(np.uint32)
        bits += ((bits >> 16) & 1) + 0x7FFF
        bits &= 0xFFFF0000

    def _halves(self, values: np.ndarray) -> np.ndarray:
        return (values.view(np.uint32) >> 16).astype(np.uint16)

    def _whole(self, halves: np.ndarray) -> np.ndarray:
        return (halves.astype(np.uint32) << 16).view(np.float32)


class Float16(Halves):
    """11 bits of mantissa, from 6e-8 to 65504: what is larger becomes infinite, and the step is left out."""

    def settle(self, values: np.ndarray) -> None:  # noqa: D102
        with np.errstate(over="ignore"):
            values[:] = values.astype(np.float16)

    def _halves(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float16).view(np.uint16)

    def _whole(self, halves: np.ndarray) -> np.ndarray:
        return halves.view(np.float16).astype(np.float32)


class Sparse:
    """Places and values of what is not zero, for numbers most of which are; nothing is rounded.

    Zeros come back without a sign, so none has one.
    """

    def settle(self, values: np.ndarray) -> None:  # noqa: D102
        values += np.float32(0)  # which makes a negative zero a positive one, and nothing else

    def encode(self, rows: Sequence[Row]) -> np.ndarray:  # noqa: D102
        pieces: list[np.ndarray] = []
        for row, _ in rows:
            places = np.flatnonzero(row).astype(np.uint32)
            if _PAIR_BYTES * len(places) < row.nbytes:
                pieces += [np.array([len(places)], np.uint32), places, row[places].view(np.uint32)]
            else:
                pieces += [np.array([_DENSE], np.uint32), row.view(np.uint32)]
        return np.concatenate(pieces).view(np.uint8)

    def decode(self, data: np.ndarray, num_elements: int, settled: Sequence[bool]) -> list[np.ndarray]:  # noqa: D102
        if len(data) % 4:
            raise WrongEncoding(f"sent {len(data)} bytes where a multiple of 4 is expected")
        words, rows, at = data.view(np.uint32), [], 0
        for _ in settled:
            number = int(words[at]) if at < len(words) else num_elements
            is_dense = number == _DENSE
            length = num_elements if is_dense else 2 * number
            content = words[at + 1 : at + 1 + length]
            if len(content) < length or (not is_dense and number >= num_elements):
                raise WrongEncoding("sent fewer numbers than it says")
            at += 1 + length
            if is_dense:
                rows.append(content.view(np.float32))
                continue
            places, row = content[:number], np.zeros(num_elements, np.float32)
            if number and places.max() >= num_elements:
                raise WrongEncoding(f"sent a number for place {places.max()} of {num_elements}")
            row[places] = content[number:].view(np.float32)
            rows.append(row)
        if at != len(words):
            raise WrongEncoding(f"sent {len(words) - at} numbers too many")
        return rows


ENCODINGS: dict[str, Encoding] = {"bfloat16": Bfloat16(), "float16": Float16(), "sparse": Sparse()}
