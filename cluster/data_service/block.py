"""What is asked of a service worker and what it answers. Neither side's meaning matters to the transport."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

Request = Mapping[str, Any]
"""What JSON holds. Any worker can answer it at any time with the same bytes."""


class Block(NamedTuple):
    """An answer.

    Attributes:
        arrays: by name; of any shape, with a type of NumPy's own.
        notes: whatever JSON holds.
    """

    arrays: dict[str, np.ndarray]
    notes: Any = None

    @property
    def num_bytes(self) -> int:
        """Of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())
