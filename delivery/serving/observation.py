"""The place where others watch what is served: drift monitors, recorders.

Shape legend: B rows of one request's batch, padding not included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class AnsweredBatch:
    """Rows that were computed together and answered.

    Attributes:
        model: Its name.
        version: Its version.
        signature: That answered.
        inputs: As the signature took them, [B, ...] by input.
        outputs: As it answered, [B, ...] by output.
        rows: B.
    """

    model: str
    version: int
    signature: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    rows: int


class BatchObserver(Protocol):
    """Sees each answered batch, on the thread that computed it, after its requests were answered.

    What it raises is counted in `phalanx_serving_observer_errors_total` and changes no answer. It must not keep the
    arrays, nor change them, and delays the next batch by as long as it takes. Warm-up and shadow batches are not shown.
    """

    def observe(self, batch: AnsweredBatch) -> None:
        """Takes note of a batch."""
        ...
