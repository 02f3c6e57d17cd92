"""The thread that writes checkpoints, so that the step loop waits only for the copy from the device to the host.

A save that comes while the one before is still being written is declined, not queued: the loop asks again at its next
boundary with a newer state. So memory stays at one copy of the state, and what is on the disk is never older than
the interval plus one write.

How often a checkpoint is possible depends on the model: 1 MB of state takes milliseconds, 10 GB a minute. So the writer
also measures what saving costs, and declines a save as long as it would take more than `max_overhead` of the run's
time. That an overhead, not a frequency, is what one wants to fix is CheckFreq's finding (Mohan, Phanishayee,
Chidambaram, FAST 2021).
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.checkpoint.format import encode_metadata
from trainer.checkpoint.host_buffer import ArraySpec, HostBuffer
from trainer.checkpoint.store import CheckpointStore

_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that is durable.

    Attributes:
        step: the step it was taken after.
        path: its folder.
        stall_s: seconds that the loop spent filling the buffer.
        write_s: seconds from `save` until it was durable.
    """

    step: int
    path: Path
    stall_s: float
    write_s: float


@dataclass(frozen=True)
class FailedCheckpoint:
    """A checkpoint that could not be written; the earlier ones are untouched.

    Attributes:
        step: the step it was to be taken after.
        reason: one sentence for the user.
        retry_s: seconds until the next save is taken.
    """

    step: int
    reason: str
    retry_s: float


@dataclass(frozen=True)
class _Job:
    step: int
    state: HostBuffer | Mapping[str, np.ndarray]
    metadata: bytes
    stall_s: float
    taken_at: float


class CheckpointWriter:
    """Writes checkpoints on a thread of its own.

    ```
    if due and writer.ready:
        buffer = writer.buffer(specs)
        for name, view in buffer.views.items():
            np.copyto(view, variables[name])
        writer.save(step, buffer, metadata)
    ```

    Args:
        store: where they go; `prepare` has been called.
        on_saved: called on the writer's thread when a checkpoint is durable.
        on_failed: called on the writer's thread, once for each save that failed.
        before_commit: called on the writer's thread when the files are on the disk and before the checkpoint becomes
            visible; for records that must not be older than the checkpoint.
        max_overhead: most of the run's time that saves may cost, as a fraction: the time that the loop is held up, and
            the thread's own processor time. All of it counts, however many cores there are: a step that is spread over
            all cores is as slow as the slowest. None takes every save that it can.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        on_saved: Callable[[SavedCheckpoint], None] | None = None,
        on_failed: Callable[[FailedCheckpoint], None] | None = None,
        before_commit: Callable[[], None] | None = None,
        max_overhead: float | None = 0.005,
    ) -> None:
        self.store = store
        self._on_saved, self._on_failed, self._before_commit = on_saved, on_failed, before_commit
        self._max_overhead = max_overhead
        self._buffer: HostBuffer | None = None
        self._filling_since: float | None = None
        self._not_before = 0.0
        self._num_failures = 0  # in a row
        self._error: BaseException | None = None  # of a callback, for the loop to raise
        self._idle = threading.Event()
        self._idle.set()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="checkpoint-writer", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return not self._idle.is_set()

    @property
    def ready(self) -> bool:
        """Whether a save would be taken now. Ask before copying anything: it costs less than a microsecond."""
        return self._idle.is_set() and time.monotonic() >= self._not_before

    def buffer(self, specs: Mapping[str, ArraySpec]) -> HostBuffer:
        """The buffer to fill for the next save: the same one each time, as long as the specs are the same.

        Waits while it is being written. The time from here to `save` counts as what the loop was held up.
        """
        begin = time.monotonic()
        self._idle.wait()
        if self._buffer is None or (specs is not self._buffer.specs and specs != self._buffer.specs):
            self._buffer = HostBuffer(specs)
        self._filling_since = begin
        return self._buffer

    def save(
        self,
        step: int,
        state: HostBuffer | Mapping[str, np.ndarray],
        metadata: Mapping[str, Any],
        *,
        wait: bool = False,
    ) -> bool:
        """Hands a state over, or declines it.

        Args:
            step: the step that the state belongs to.
            state: a filled buffer, or arrays; neither may be changed while `busy`.
            metadata: anything that JSON can hold; it may be changed after the call.
            wait: take it in any case and return when it is durable, for the last save of a run.

        Returns:
            Whether it was taken; with `wait`, whether it is durable.

        Raises:
            BaseException: what a callback of an earlier save raised.
        """
        self._raise_error()
        now = time.monotonic()
        stall_s = now - self._filling_since if self._filling_since is not None else 0.0
        self._filling_since = None
        if wait:
            self._idle.wait()
        elif not self.ready:
            return False
        job = _Job(step, state, encode_metadata(metadata), stall_s, now)
        self._idle.clear()
        self._jobs.put(job)
        if not wait:
            return True
        self._idle.wait()
        self._raise_error()
        return self._num_failures == 0

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits until nothing is being written.

        Returns:
            False when the time ran out.

        Raises:
            BaseException: what a callback raised.
        """
        finished = self._idle.wait(timeout_s)
        self._raise_error()
        return finished

    def close(self) -> None:
        """Finishes what is being written and ends the thread."""
        self._jobs.put(None)
        self._thread.join()
        self._raise_error()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        # A failed callback must not hide the exception that ends the run.
        with contextlib.suppress(BaseException) if exception[0] is not None else contextlib.nullcontext():
            self.close()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._write(job)
            except BaseException as error:
                self._error = error
            finally:
                del job
                self._idle.set()

    def _write(self, job: _Job) -> None:
        cpu_before = time.thread_time()
        try:
            path = self.store.commit(job.step, job.state, job.metadata, self._before_commit)
        except Exception as error:
            self._num_failures += 1
            retry_s = min(_FIRST_RETRY_S * 2 ** (self._num_failures - 1), _LAST_RETRY_S)
            self._not_before = time.monotonic() + retry_s
            if self._on_failed:
                self._on_failed(FailedCheckpoint(job.step, self._reason(job.step, error), retry_s))
            return
        self._num_failures = 0
        if self._max_overhead is not None:
            cost_s = job.stall_s + time.thread_time() - cpu_before
            self._not_before = job.taken_at + cost_s / self._max_overhead
        if self._on_saved:
            write_s = time.monotonic() - job.taken_at
            self._on_saved(SavedCheckpoint(job.step, path, job.stall_s, write_s))

    def _reason(self, step: int, error: Exception) -> str:
        text = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        return (
            f"the checkpoint of step {step} could not be written to {self.store.folder}: {text}; the earlier "
            "ones are kept: free space there, or make it writable"
        )
