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
    """Sees the answered batches that it takes, on the thread that computed them, after their requests were answered.

    What `observe` raises is counted in `phalanx_serving_observer_errors_total` and changes no answer. It must not keep
    the arrays, nor change them, and delays the next batch by as long as it takes. Nobody sees warm-up and shadow
    batches.
    """

    def takes(self, model: str, version: int, signature: str) -> bool:
        """Whether it wants to see a batch of this signature now. Called with every batch: quick, and never raises."""
        ...

    def observe(self, batch: AnsweredBatch) -> None:
        """Takes note of a batch."""
        ...
