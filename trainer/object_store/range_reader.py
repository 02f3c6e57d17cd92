"""Reads ranges of objects through the cache: each block once, however many ask for it, and some before anybody does."""

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby

from trainer.object_store.block_cache import BlockCache
from trainer.object_store.patience import PatientStore
from trainer.object_store.stores import StoredObject

AHEAD_THREADS = 8
_MOST_WAITING = 4096
"""Blocks that wait to be fetched ahead; more are left to who reads them."""
_LONGEST_REQUEST = 8 << 20
"""Bytes of one request, where neighbouring blocks are asked for together."""

Block = tuple[StoredObject, int]


class RangeReader:
    """Safe to use from several threads.

    Args:
        store: Where objects are.
        cache: Where blocks are kept.
        block_bytes: Of a block.
    """

    def __init__(self, store: PatientStore, cache: BlockCache, block_bytes: int) -> None:
        self.store, self._cache, self._block_bytes = store, cache, block_bytes
        self._ahead = ThreadPoolExecutor(AHEAD_THREADS, "fetch-ahead")
        self._lock = threading.Lock()
        self._coming: dict[Block, Future[bytes]] = {}
        self._waiting = 0

    def read(self, one: StoredObject, start: int, stop: int) -> bytes:
        """Reads bytes [start, stop), which lie within the object.

        Raises:
            DataError: The object is gone or has changed, or every try has failed.
        """
        if stop <= start:
            return b""
        first, last = start // self._block_bytes, (stop - 1) // self._block_bytes
        held = b"".join(self._blocks(one, range(first, last + 1)))
        return held[start - first * self._block_bytes : stop - first * self._block_bytes]

    def fetch_ahead(self, ranges: Iterable[tuple[StoredObject, int, int]]) -> None:
        """Has ranges brought into the cache by threads; returns at once. What fails is left to who reads it."""
        for one, start, stop in ranges:
            wanted = range(start // self._block_bytes, -(-stop // self._block_bytes))
            missing = [number for number in wanted if not self._cache.has(one, self._block_bytes, number)]
            if not missing:
                continue
            with self._lock:
                if self._waiting + len(missing) > _MOST_WAITING:
                    return
                self._waiting += len(missing)
            self._ahead.submit(self._fetch, one, missing).add_done_callback(partial(self._fetched, len(missing)))

    def close(self) -> None:
        """Fetches no more ahead."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self.store.close()

    def _fetch(self, one: StoredObject, numbers: list[int]) -> None:
        for _ in self._blocks(one, numbers):
            pass

    def _fetched(self, count: int, future: Future[None]) -> None:
        with self._lock:
            self._waiting -= count
        if not future.cancelled():
            future.exception()

    def _blocks(self, one: StoredObject, numbers: Iterable[int]) -> list[bytes]:
        """The blocks, from the cache, from whoever is fetching them, or from the store."""
        held: dict[int, bytes] = {}
        others: dict[int, Future[bytes]] = {}
        mine: list[int] = []
        numbers = list(numbers)
        for number in numbers:
            block = self._cache.get(one, self._block_bytes, number)
            if block is not None:
                held[number] = block
                continue
            with self._lock:
                coming = self._coming.get((one, number))
                if coming is None:
                    self._coming[one, number] = Future()
                    mine.append(number)
                else:
                    others[number] = coming
        held |= self._fetch_mine(one, mine)
        held |= {number: future.result() for number, future in others.items()}
        return [held[number] for number in numbers]

    def _fetch_mine(self, one: StoredObject, numbers: list[int]) -> dict[int, bytes]:
        held: dict[int, bytes] = {}
        size, most = self._block_bytes, max(1, _LONGEST_REQUEST // self._block_bytes)
        try:
            # A number less its place is the same for neighbours.
            for _, run in groupby(enumerate(numbers), lambda pair: (pair[1] - pair[0], pair[0] // most)):
                together = [number for _, number in run]
                first = together[0] * size
                body = self.store.read(one, first, min(one.size, (together[-1] + 1) * size))
                for number in together:
                    block = body[number * size - first : (number + 1) * size - first]
                    self._cache.put(one, size, number, block)
                    held[number] = block
        except BaseException as error:
            self._settle(one, numbers, held, error)
            raise
        self._settle(one, numbers, held, None)
        return held

    def _settle(
        self, one: StoredObject, numbers: list[int], held: dict[int, bytes], error: BaseException | None
    ) -> None:
        for number in numbers:
            with self._lock:
                future = self._coming.pop((one, number))
            if number in held:
                future.set_result(held[number])
            else:
                future.set_exception(error or AssertionError("every block is read or has an error"))
