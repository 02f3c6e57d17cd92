"""Puts requests together while earlier ones are computed, and refuses those that would wait too long.

No request waits for others to come: with nothing being computed, it goes at once. While a batch is computed, the next
one gathers, so batches grow with the load by themselves, as in Clipper (Crankshaw et al., NSDI 2017) but without a
timer. The size is bounded by how long a batch of it took so far; what the queue would take is known from the same
figures, and a request that would wait beyond the bound, or beyond its own deadline, is refused before it is queued.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from delivery.serving.batch_computation import Arrays, compute, padded_size
from delivery.serving.errors import ServingError
from delivery.serving.json_log import MOST_TRACES, JsonLog
from delivery.serving.observation import AnsweredBatch, BatchObserver
from delivery.serving.settings import BatchingSettings
from delivery.serving.signature import Signature
from delivery.serving.trace_context import NO_TRACE, Trace

if TYPE_CHECKING:
    from delivery.serving.spans import Spans

log = logging.getLogger("phalanx.serving")
_SMOOTHING = 0.2


@dataclass(slots=True)
class _Waiting:
    signature: Signature
    inputs: Arrays
    rows: int
    deadline: float
    trace: Trace
    observed: bool
    queued: float
    answer: asyncio.Future[Arrays] = field(repr=False)


class _Computed(NamedTuple):
    answers: list[Arrays | Exception]
    begun: float
    seconds: float


class BatchTimes:
    """How long batches of each allowed size take, seconds; a running mean."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes, self._means = tuple(sizes), dict[int, float]()

    def add(self, rows: int, seconds: float) -> None:
        """Takes note of one batch."""
        size = padded_size(rows, self._sizes)
        before = self._means.get(size, seconds)
        self._means[size] = before + _SMOOTHING * (seconds - before)

    def of(self, rows: int) -> float:
        """What is expected: of this size, else of the nearest known one, in proportion if that is smaller."""
        size = padded_size(rows, self._sizes)
        if size in self._means:
            return self._means[size]
        if larger := [known for known in self._means if known > size]:
            return self._means[min(larger)]
        nearest = max(self._means, default=None)
        return 0.0 if nearest is None else self._means[nearest] * size / nearest

    def largest_within(self, seconds: float) -> int:
        """The largest allowed size that is expected to take no longer; the smallest at least."""
        fitting = [size for size in self._sizes if self.of(size) <= seconds]
        return max(fitting, default=self._sizes[0])


class Batcher:
    """The queue of one version of a model.

    Args:
        model: Its name.
        version: Its version.
        settings: Sizes and bounds.
        metrics: Counts rows, times and the queue; a `ServingMetrics`.
        observers: See each answered batch; none for a shadow.
        clock: Seconds, as `time.monotonic`.
        json_log: Is told of each batch.
        spans: So is this one.
    """

    def __init__(
        self,
        model: str,
        version: int,
        settings: BatchingSettings,
        metrics: Any,
        observers: Sequence[BatchObserver] = (),
        clock: Callable[[], float] = time.monotonic,
        json_log: JsonLog | None = None,
        spans: Spans | None = None,
    ) -> None:
        self._model, self._version, self._settings, self._clock = model, version, settings, clock
        self._observers = observers
        self._tell(metrics, json_log, spans)
        self._queues: dict[Any, deque[_Waiting]] = {}
        self._queued_rows = 0
        self._running = 0
        self._threads = ThreadPoolExecutor(settings.parallel, thread_name_prefix=f"{model}-{version}")
        self._bound = settings.latency_bound_ms / 1000
        self.times = BatchTimes(settings.sizes)

    def expected_s(self, rows: int) -> float:
        """Seconds until rows that came now would be answered."""
        largest = self._largest()
        ahead = math.ceil(self._queued_rows / largest) * self.times.of(largest) / self._settings.parallel
        running = self.times.of(largest) if self._running >= self._settings.parallel else 0.0
        return running + ahead + self.times.of(min(rows, largest))

    async def answer(
        self, signature: Signature, inputs: Arrays, deadline: float, trace: Trace = NO_TRACE, observed: bool = True
    ) -> Arrays:
        """Computes a request, together with others.

        Args:
            signature: Of this version's model.
            inputs: Checked already.
            deadline: By the clock; a request that is still waiting then is not computed.
            trace: Where it belongs, for what is told of its batch.
            observed: Whether the observers may see it; not if it is a copy of another one.

        Raises:
            ServingError: RESOURCE_EXHAUSTED: it would wait too long; DEADLINE_EXCEEDED; or what the model said.
        """
        rows, largest = signature.rows(inputs), self._settings.sizes[-1]
        self._admit(rows, deadline)
        if rows <= largest or not signature.is_batched:
            return await self._queue(signature, inputs, rows, deadline, trace, observed)
        parts = [
            self._queue(signature, {key: value[start : start + largest] for key, value in inputs.items()},
                        min(largest, rows - start), deadline, trace, observed)
            for start in range(0, rows, largest)
        ]  # fmt: skip
        answers = await asyncio.gather(*parts)
        return {key: np.concatenate([answer[key] for answer in answers]) for key in answers[0]}

    def warm(self, call: Callable[[], object]) -> None:
        """Runs a call on each thread that will compute, and waits: TensorFlow prepares itself for every thread."""
        together = threading.Barrier(self._settings.parallel)  # so that none of them takes two

        def run() -> None:
            together.wait()
            call()

        for done in [self._threads.submit(run) for _ in range(self._settings.parallel)]:
            done.result()

    @contextmanager
    def telling(self, metrics: Any, json_log: JsonLog | None) -> Iterator[None]:
        """Tells these, and no spans, of what comes and ends meanwhile, instead of those that it has been given."""
        told = self._metrics, self._json_log, self._spans
        self._tell(metrics, json_log, None)
        try:
            yield
        finally:
            self._tell(*told)

    def _tell(self, metrics: Any, json_log: JsonLog | None, spans: Spans | None) -> None:
        self._metrics, self._json_log, self._spans = metrics, json_log, spans
        labels = (self._model, str(self._version))
        self._rows_seen = metrics.batch_rows.labels(*labels)
        self._seconds_seen = metrics.batch_seconds.labels(*labels)
        self._waits_seen = metrics.queue_seconds.labels(*labels)
        self._queue_gauge = metrics.queue_rows.labels(*labels)

    def close(self) -> None:
        """Ends the threads; the queue is empty by then."""
        self._threads.shutdown(wait=False)

    def _admit(self, rows: int, deadline: float) -> None:
        left = deadline - self._clock()
        if left <= 0:
            raise ServingError("DEADLINE_EXCEEDED", "the deadline had passed before the request was queued")
        expected = self.expected_s(rows)
        # With nothing ahead a request is taken even if the model is slow: waiting would not make it faster.
        busy = self._queued_rows or self._running >= self._settings.parallel
        if busy and (self._queued_rows + rows > self._settings.max_queued_rows or expected > min(self._bound, left)):
            self._metrics.refused.labels("queue").inc()
            raise ServingError(
                "RESOURCE_EXHAUSTED",
                f"model {self._model} is busy: the answer would take {expected * 1000:.0f} ms; try again later",
                retry_after_s=max(0.05, expected),
            )

    def _queue(
        self, signature: Signature, inputs: Arrays, rows: int, deadline: float, trace: Trace, observed: bool
    ) -> asyncio.Future[Arrays]:
        answer = asyncio.get_running_loop().create_future()
        waiting = _Waiting(signature, inputs, rows, deadline, trace, observed, self._clock(), answer)
        # What cannot share a batch has a queue of its own: another signature, other lengths.
        key = (signature.name, *(value.shape[1:] for value in inputs.values())) if signature.is_batched else object()
        self._queues.setdefault(key, deque()).append(waiting)
        self._queued_rows += rows
        self._begin()
        return answer

    def _begin(self) -> None:
        while self._running < self._settings.parallel and (batch := self._take()):
            self._running += 1
            task = asyncio.get_running_loop().run_in_executor(self._threads, self._compute, batch)
            task.add_done_callback(lambda done, batch=batch: self._finish(batch, done))
        self._queue_gauge.set(self._queued_rows)

    def _take(self) -> list[_Waiting]:
        """The oldest request and those that go with it, as many as are expected to stay within half the bound."""
        largest, now = self._largest(), self._clock()
        while self._queues:
            key = min(self._queues, key=lambda key: self._queues[key][0].queued)
            queue, batch, rows = self._queues[key], list[_Waiting](), 0
            while queue and (not batch or rows + queue[0].rows <= largest):
                waiting = queue.popleft()
                self._queued_rows -= waiting.rows
                if waiting.answer.done():  # the client has left
                    continue
                if waiting.deadline <= now:
                    waiting.answer.set_exception(
                        ServingError("DEADLINE_EXCEEDED", "the deadline passed while the request waited")
                    )
                    continue
                batch.append(waiting)
                rows += waiting.rows
                self._waits_seen.observe(now - waiting.queued)
            if not queue:
                del self._queues[key]
            if batch:
                return batch
        return []

    def _largest(self) -> int:
        return self.times.largest_within(self._bound / 2)

    def _compute(self, batch: list[_Waiting]) -> _Computed:
        begun, started = self._clock(), time.perf_counter()
        sizes = self._settings.sizes
        answers = compute(batch[0].signature, [one.inputs for one in batch], [one.rows for one in batch], sizes)
        return _Computed(answers, begun, time.perf_counter() - started)

    def _finish(self, batch: list[_Waiting], done: asyncio.Future[_Computed]) -> None:
        self._running -= 1
        rows = sum(one.rows for one in batch)
        if (error := done.exception()) is not None:
            traces = [one.trace.id for one in batch if one.trace.id][:MOST_TRACES]
            which = {"model": self._model, "version": self._version, "traces": traces}
            log.error("a batch failed", exc_info=error, extra=which)
            failure = ServingError("INTERNAL", "the server failed to compute the request; its log says why")
            answers: Sequence[Arrays | Exception] = [failure for _ in batch]
        else:
            answers, begun, seconds = done.result()
            if not any(isinstance(answer, Exception) for answer in answers):  # halving says nothing about a size
                self.times.add(rows, seconds)
            self._seconds_seen.observe(seconds)
            self._rows_seen.observe(rows)
            if self._json_log is not None:
                traces = (one.trace.id for one in batch)
                self._json_log.batch(self._model, self._version, rows, seconds, traces)
            if self._spans is not None:
                waited = ((one.trace, one.queued) for one in batch)
                self._spans.batch(self._model, self._version, rows, begun, seconds, waited)
        self._begin()  # before the answers are written, so that the next batch is computed meanwhile
        for one, answer in zip(batch, answers, strict=True):
            if one.answer.done():
                continue
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
        # Asked first: to put a batch together again for nobody would cost each of them.
        signature = batch[0].signature.name
        if watching := [one for one in self._observers if one.takes(self._model, self._version, signature)]:
            self._threads.submit(self._show, watching, batch, answers)

    def _show(
        self, watching: Sequence[BatchObserver], batch: list[_Waiting], answers: Sequence[Arrays | Exception]
    ) -> None:
        good = [
            (one, answer)
            for one, answer in zip(batch, answers, strict=True)
            if one.observed and isinstance(answer, Mapping)
        ]
        if not good:
            return
        first = batch[0].signature
        seen = AnsweredBatch(
            self._model,
            self._version,
            first.name,
            {key: np.concatenate([one.inputs[key] for one, _ in good]) for key in first.inputs}
            if first.is_batched
            else good[0][0].inputs,
            {key: np.concatenate([answer[key] for _, answer in good]) for key in first.outputs}
            if first.is_batched
            else good[0][1],
            sum(one.rows for one, _ in good),
        )
        for observer in watching:
            try:
                observer.observe(seen)
            except Exception:
                self._metrics.observer_errors.inc()
                log.exception("an observer failed", extra={"model": self._model, "version": self._version})
