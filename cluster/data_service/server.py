"""The serving side: a service worker listens, and answers each training process on threads of its own."""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable

from cluster.data_service.block import Block, Request
from cluster.data_service.wire import BlockConnection, accept
from cluster.reserved_port import format_address

_log = logging.getLogger(__name__)
_BACKLOG = 128


class BlockServer:
    """Answers requests for blocks, several at once: one from each connection.

    Args:
        worker: the name of this service worker.
        host: its machine's address, on which it listens and which training processes reach.
        key: the run's, for its data service.
        answer: reads a block; called from several threads.

    Attributes:
        address: host and port.

    Raises:
        OSError: the address is not this machine's.
    """

    def __init__(self, worker: str, host: str, key: bytes, answer: Callable[[Request], Block]) -> None:
        self._worker, self._key, self._answer = worker, key, answer
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=_BACKLOG)
        self.address = format_address(host, self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._connections: set[BlockConnection] = set()
        self._closing = False
        threading.Thread(target=self._listen, name="block-server", daemon=True).start()

    def close(self) -> None:
        """Listens no more and ends all connections."""
        with self._lock:
            self._closing = True
            connections = list(self._connections)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for the next one
        self._listener.close()
        for connection in connections:
            connection.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._closing:
                    return
                continue  # whoever connected has gone again
            # A handshake takes as long as the other end likes: nobody else waits for it.
            threading.Thread(target=self._serve, args=(connection,), name="block-connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            proved = accept(connection, self._key, self._worker)
        except OSError as error:
            _log.info("a connection was refused: %s", error)
            connection.close()
            return
        with self._lock:
            if self._closing:
                proved.close()
                return
            self._connections.add(proved)
        try:
            while True:
                proved.serve(self._answer)
        except OSError:
            pass  # a training process comes and goes
        finally:
            with self._lock:
                self._connections.discard(proved)
            proved.close()
