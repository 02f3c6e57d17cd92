"""The asking side: a training process takes blocks in their order from whichever service workers answer.

No worker answers for a block alone. One that dies, is cut off or is frozen costs a repeated request; where none is left
this process reads the blocks itself, to the same bytes, and goes on asking when workers are back.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

from cluster.data_service.block import Block, Request
from cluster.data_service.board import PATIENCE, Board, Patience, Reader
from cluster.data_service.wire import BlockConnection, NotAnswered, connect
from cluster.data_service.worker_list import WorkerList

_log = logging.getLogger(__name__)
HERE = "this process"
# Two requests under way to each worker: it reads one block while the other travels.
_CONNECTIONS = 2
_LOOK_S = 0.25
_TURN_S = 0.05
_RETRY_S = 1.0
_ANSWER_S = 60.0
_ARRIVAL_S = 60.0
_MOST_BYTES = 512 << 20


class BlockClient:
    """Asks the service workers that a list names. One stretch of blocks is read at a time; a new one ends the last.

    Args:
        workers: the list.
        key: the run's, for its data service.
        patience: with workers.
        warn: gets a sentence for the person, once, when this process has to read by itself.

    Attributes:
        warn: as given; may be set later.
    """

    def __init__(
        self,
        workers: WorkerList,
        key: bytes,
        patience: Patience = PATIENCE,
        warn: Callable[[str], object] = _log.warning,
    ) -> None:
        self.warn = warn
        self._list, self._key, self._patience = workers, key, patience
        # One lock, and whom a change concerns: whoever waits for a block, idle connections, this process's own readers.
        self._lock = threading.RLock()
        self._arrived, self._free, self._alone = (threading.Condition(self._lock) for _ in range(3))
        self._board: Board | None = None
        self._ask: Callable[[int], Request] = lambda index: {}
        self._read_here: Callable[[Request], Block] | None = None
        self._wanted: dict[str, str] = {}
        self._connected: dict[Reader, BlockConnection] = {}
        self._threads: set[tuple[str, str]] = set()
        self._had_workers = self._has_warned = self._is_started = False
        self._closed = threading.Event()
        self._began = time.monotonic()

    def blocks(
        self, num_blocks: int, request: Callable[[int], Request], read_here: Callable[[Request], Block]
    ) -> Iterator[Block]:
        """Gives blocks in their order.

        Args:
            num_blocks: how many.
            request: what to ask for the block of a number.
            read_here: reads a block in this process, as a worker would; called from several threads, by its own error
                ends a block that no one can read.

        Raises:
            Exception: what `read_here` raised.
        """
        with self._lock:
            self._board = board = Board(num_blocks, self._window(None), self._patience)
            self._ask, self._read_here = request, read_here
            self._began = time.monotonic()
            self._start()
            self._notify_all()
        return self._results(board)

    def close(self) -> None:
        """Ends all connections; the threads follow by themselves."""
        with self._lock:
            self._closed.set()
            self._board = None
            connections = list(self._connected.values())
            self._notify_all()
        for connection in connections:
            connection.close()

    @property
    def num_workers(self) -> int:
        """Service workers that answer."""
        with self._lock:
            return len(self._answering(time.monotonic()))

    def _results(self, board: Board) -> Iterator[Block]:
        result: Block | BaseException | None = None
        try:
            while not board.is_over:
                with self._lock:
                    while self._board is board and (result := board.next_result()) is None:
                        self._arrived.wait()
                    if self._board is not board:
                        return  # another stretch has begun: nobody wants these any more
                    if isinstance(result, Block):
                        board.window = self._window(result)
                    (self._free if self._answering(time.monotonic()) else self._alone).notify()
                if isinstance(result, BaseException):
                    raise result
                assert result is not None, "the wait has ended"
                yield result
        finally:
            with self._lock:
                if self._board is board:
                    self._board = None

    def _notify_all(self) -> None:
        for concerned in (self._arrived, self._free, self._alone):
            concerned.notify_all()

    def _window(self, block: Block | None) -> int:
        """Blocks that may lie ready: enough that no connection is idle, and no more than memory allows."""
        window = 2 + 2 * _CONNECTIONS * max(1, len(self._wanted))
        return window if block is None else max(2, min(window, _MOST_BYTES // max(1, block.num_bytes)))

    def _answering(self, now: float) -> set[str]:
        board = self._board
        return {reader.worker for reader in self._connected if board is None or board.answers(now, reader)}

    def _start(self) -> None:
        if self._is_started:
            return
        self._is_started = True
        threading.Thread(target=self._look_at_list, name="data-service", daemon=True).start()
        for number in range(min(4, os.cpu_count() or 1)):
            reader = Reader(HERE, number)
            threading.Thread(target=self._work_here, args=(reader,), name="data-here", daemon=True).start()

    # Each of the following runs on a thread of its own.

    def _look_at_list(self) -> None:
        """Has a thread for each connection that the list asks for."""
        while not self._closed.is_set():
            workers = self._list.read()
            with self._lock:
                self._wanted = workers
                new = [(name, address) for name, address in workers.items() if (name, address) not in self._threads]
                self._threads.update(new)
                warning = self._warning(time.monotonic())
            if warning:
                self.warn(warning)
            for name, address in new:
                for number in range(_CONNECTIONS):
                    threading.Thread(
                        target=self._ask_worker, args=(Reader(name, number), address), name="data-worker", daemon=True
                    ).start()
            self._closed.wait(_LOOK_S)

    def _warning(self, now: float) -> str | None:
        if self._answering(now):
            self._had_workers = True
            return None
        if self._has_warned or self._board is None:
            return None
        if not self._had_workers and now - self._began < _ARRIVAL_S:
            return None  # they import TensorFlow first
        self._has_warned = True
        return "no worker of the data service answers: this process reads the samples itself until one does"

    def _ask_worker(self, reader: Reader, address: str) -> None:
        while not self._closed.is_set() and self._wanted.get(reader.worker) == address:
            try:
                connection = connect(address, self._key, reader.worker, _ANSWER_S)
            except OSError as error:
                _log.info("data service worker %s at %s cannot be reached: %s", reader.worker, address, error)
                self._closed.wait(_RETRY_S)
                continue
            with self._lock:
                self._connected[reader] = connection
            try:
                self._work(reader, connection.ask, lambda: self._wanted.get(reader.worker) == address)
            except OSError as error:
                _log.info("data service worker %s is lost: %s", reader.worker, error)
            finally:
                with self._lock:
                    del self._connected[reader]
                    self._alone.notify_all()
                connection.close()
            self._closed.wait(_RETRY_S)
        with self._lock:
            self._threads.discard((reader.worker, address))

    def _work_here(self, reader: Reader) -> None:
        """Reads what no worker reads."""

        def read(request: Request) -> Block:
            assert self._read_here is not None, "set with every board"
            return self._read_here(request)

        self._work(reader, read, lambda: True)

    def _work(self, reader: Reader, read: Callable[[Request], Block], goes_on: Callable[[], bool]) -> None:
        """Reads one block after another.

        Raises:
            OSError: the reader, a connection, is lost; its block is given back.
        """
        is_here = reader.worker == HERE
        changed = self._alone if is_here else self._free
        while not self._closed.is_set() and goes_on():
            with self._lock:
                board, index = self._board, self._take(reader, is_here)
                if board is None or index is None:
                    changed.wait(_TURN_S if board is not None else _LOOK_S)
                    continue
                request = self._ask(index)
            result, refused = None, False
            try:
                result = read(request)
            except NotAnswered as why:
                _log.warning("data service worker %s cannot read a block: %s", reader.worker, why)
                refused = True
            except Exception as error:
                if not is_here:
                    with self._lock:
                        board.give_back(index, reader, refused=False)
                        self._free.notify_all()
                    raise
                result = error
            with self._lock:
                if result is not None:
                    board.put(time.monotonic(), index, reader, result)
                    self._arrived.notify_all()
                else:
                    board.give_back(index, reader, refused)
                    self._alone.notify_all()

    def _take(self, reader: Reader, is_here: bool) -> int | None:
        board, now = self._board, time.monotonic()
        if board is None:
            return None
        if is_here and self._answering(now):
            return board.take_here(now, reader)
        return board.take(now, reader)
