"""Reads that are tried again, and asked for twice when they are slow; bounded in number and in time.

The second request of a slow read is the "hedged request" of Dean and Barroso, The Tail at Scale (2013): sent after the
95th percentile of what reads took, it costs a few per cent more requests and cuts the tail.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from trainer.data.checks import DataError
from trainer.object_store.stores import Store, StoredObject, StoreError

T = TypeVar("T")

THREADS = 32
"""Requests at once, second ones included."""
HEDGED_PERCENTILE = 95
_REMEMBERED = 256
_FEWEST = 20
"""Reads that must have been seen before one of them can be called slow."""
_HEDGED_SHARE = 0.1
"""Of all reads, at most so many are asked for twice: where all are slow, twice as many would be slower."""
_SHORTEST_HEDGE_S = 0.005


@dataclass
class Counts:
    """What reading took. Read it at any time; several threads write it, under a lock."""

    reads: int = 0
    requests: int = 0
    hedged: int = 0
    retried: int = 0
    bytes: int = 0


@dataclass
class PatientStore:
    """A store whose failures are waited out.

    Args:
        store: What may fail.
        retries: Tries after the first one.
        timeout_s: After which a try has failed.
        hedge: Whether slow reads are asked for twice.
        first_wait_s, longest_wait_s: Before the second try, doubled for each later one.

    Attributes:
        counts: What it took so far.
    """

    store: Store
    retries: int = 6
    timeout_s: float = 30.0
    hedge: bool = True
    first_wait_s: float = 0.1
    longest_wait_s: float = 10.0
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "object-store")
        self._lock = threading.Lock()
        self._took: deque[float] = deque(maxlen=_REMEMBERED)
        self._jitter = random.Random()

    def find(self, pattern: str) -> list[str]:
        """The URLs that a pattern matches.

        Raises:
            DataError: The store cannot be reached, or refuses.
        """
        return self._tried(lambda: self.store.find(pattern), pattern, "it cannot be listed")

    def look(self, url: str) -> StoredObject:
        """Size and version of an object.

        Raises:
            DataError: It does not exist, or the store cannot be reached.
        """
        return self._tried(lambda: self.store.look(url, self.timeout_s), url, "it cannot be reached")

    def read(self, one: StoredObject, start: int, stop: int) -> bytes:
        """Reads bytes [start, stop).

        Raises:
            DataError: The object is gone or has changed, or every try has failed.
        """
        with self._lock:
            self.counts.reads += 1
            self.counts.bytes += stop - start
        what = f"its bytes {start} to {stop} cannot be read"
        return self._tried(lambda: self._read_hedged(one, start, stop), one.url, what)

    def close(self) -> None:
        """Starts no more requests."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _tried(self, ask: Callable[[], T], url: str, what: str) -> T:
        began, last = time.monotonic(), StoreError("it was not tried")
        for attempt in range(self.retries + 1):
            try:
                return ask()
            except StoreError as error:
                last = error
            if attempt < self.retries:
                with self._lock:
                    self.counts.retried += 1
                # Half of it by chance, so that workers that failed together do not come back together.
                longest = min(self.longest_wait_s, self.first_wait_s * 2**attempt)
                time.sleep(longest * (0.5 + self._jitter.random() / 2))
        seconds = time.monotonic() - began
        rule = f"{what}: {self.retries + 1} tries in {seconds:.1f} s failed, the last one like this: {last}"
        raise DataError(url, "", rule, "see to the store and resume the run, or raise data.store.retries") from last

    def _read_hedged(self, one: StoredObject, start: int, stop: int) -> bytes:
        deadline = time.monotonic() + self.timeout_s
        running = {self._begin(one, start, stop)}
        patience = self._patience()
        if patience is not None:
            done, _ = wait(running, timeout=patience)
            if not done and self._may_hedge():
                running.add(self._begin(one, start, stop))
        error: Exception | None = None
        while running:
            done, running = wait(running, max(0.0, deadline - time.monotonic()), FIRST_COMPLETED)
            if not done:
                raise StoreError(f"no answer within {self.timeout_s:g} s")
            for future in done:
                error = future.exception()  # type: ignore[assignment]
                if error is None:
                    for other in running:
                        other.cancel()
                    return future.result()
                if isinstance(error, DataError):
                    raise error
        assert error is not None, "one of them ended"
        raise error

    def _begin(self, one: StoredObject, start: int, stop: int) -> Future[bytes]:
        with self._lock:
            self.counts.requests += 1
        return self._pool.submit(self._read_once, one, start, stop)

    def _read_once(self, one: StoredObject, start: int, stop: int) -> bytes:
        began = time.monotonic()
        held = self.store.read(one, start, stop, self.timeout_s)
        if len(held) != stop - start:
            raise StoreError(f"it broke off after {len(held)} of {stop - start} bytes")
        with self._lock:
            self._took.append(time.monotonic() - began)
        return held

    def _patience(self) -> float | None:
        """Seconds after which a read is slow; None: it is never asked for twice."""
        with self._lock:
            if not self.hedge or len(self._took) < _FEWEST:
                return None
            return max(_SHORTEST_HEDGE_S, float(np.percentile(self._took, HEDGED_PERCENTILE)))

    def _may_hedge(self) -> bool:
        with self._lock:
            if self.counts.hedged >= 1 + _HEDGED_SHARE * self.counts.reads:
                return False
            self.counts.hedged += 1
            return True
