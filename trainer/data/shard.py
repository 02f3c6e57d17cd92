"""Which part of every global batch a process reads."""

from __future__ import annotations

from typing import NamedTuple


class Shard(NamedTuple):
    """Consecutive parts of a global batch that is cut into equal ones.

    Attributes:
        begin: The first part, 0-based.
        end: The part after the last.
        num_parts: Parts of the whole batch.

    >>> Shard(1, 3, 4).rows(32)
    slice(8, 24, None)
    """

    begin: int
    end: int
    num_parts: int

    def rows(self, batch_size: int) -> slice:
        """The shard's rows of a batch.

        Raises:
            ValueError: The batch cannot be cut into so many equal parts, or has no such parts.
        """
        if batch_size % self.num_parts or not 0 <= self.begin < self.end <= self.num_parts:
            raise ValueError(
                f"data.batch_size={batch_size} must be a multiple of the {self.num_parts} parts that read it: "
                f"set data.batch_size to {-(-batch_size // self.num_parts) * self.num_parts}"
            )
        size = batch_size // self.num_parts
        return slice(self.begin * size, self.end * size)


WHOLE = Shard(0, 1, 1)
