"""Takes snapshots beside the loop: a thread copies the values that the loop hands over."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from trainer.checkpoint.host_buffer import ArraySpec
from trainer.snapshot.file import SnapshotFile

_LOOK_S = 0.1


@dataclass(frozen=True)
class SnapshotPlan:
    """Where and how often.

    Attributes:
        path: The file, on a tmpfs of this host; None where another worker of the host takes them for this one too.
        every: Steps between two snapshots; the same for all workers of a group, because their calls of the inner loop
            end there, and they count each other's votes call by call. None: it is chosen while the run goes on.
    """

    path: Path | None
    every: int | None


class _Job(NamedTuple):
    step: int
    tensors: Mapping[str, tf.Tensor | np.ndarray]
    metadata: Mapping[str, Any]


class SnapshotTaker:
    """Writes snapshots on a thread of its own.

    The loop hands over tensors, not variables: a step makes new tensors and never changes one, so they may be copied
    while the next steps are running. A snapshot that comes while the one before is still being written is left out.

    Args:
        path: Of the file.
        specs: Shape and type of each array, by name.
        on_taken: Called on the thread with a step, the time at which writing began (since the epoch) and its seconds,
            when a kill of this process cannot take the snapshot back any more.
        on_failed: Called on the thread, once, with what made it give up.

    Raises:
        OSError: The host has not enough memory for it.
    """

    def __init__(
        self,
        path: Path,
        specs: Mapping[str, ArraySpec],
        on_taken: Callable[[int, float, float], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self._on_taken, self._on_failed = on_taken, on_failed
        self._file = SnapshotFile(path, specs)
        self._idle = threading.Event()
        self._idle.set()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether a snapshot would be taken now."""
        return self._idle.is_set()

    def take(self, step: int, tensors: Mapping[str, tf.Tensor | np.ndarray], metadata: Mapping[str, Any]) -> bool:
        """Hands a state over, whose arrays nobody changes any more; returns whether it was taken."""
        if not self.ready:
            return False
        self._idle.clear()
        self._jobs.put(_Job(step, tensors, metadata))
        return True

    def finish(self) -> None:
        """Waits for what is being written; returns at once when writing has failed."""
        while not self._idle.wait(_LOOK_S) and self._thread.is_alive():
            pass

    def close(self) -> None:
        """Finishes what is being written and ends the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            began_at, began = time.time(), time.monotonic()
            try:
                self._file.write(job.step, {name: partial(_values, t) for name, t in job.tensors.items()}, job.metadata)
            except Exception as error:
                self._on_failed(error)
                return  # and never idle again: nothing more is taken
            step = job.step
            del job  # its tensors are the memory of a whole state
            self._idle.set()
            self._on_taken(step, began_at, time.monotonic() - began)


def _values(tensor: tf.Tensor | np.ndarray) -> np.ndarray:
    return tensor if isinstance(tensor, np.ndarray) else tensor.numpy()
