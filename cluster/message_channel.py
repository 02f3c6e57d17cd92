"""Messages both ways between two processes, over a socket, with signs of life, on a thread of its own."""

import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from cluster.message_lines import BadMessage, MessageReader, encode

# How the other end went: it closed the socket, which its kernel also does for a process that has ended; the network
# says that the connection is of no use, which proves nothing about the process; or this end closed it.
End = Literal["closed", "broken", "left"]

PULSE = "pulse"
_PULSE_S = 1.0
_PIECE = 1 << 16
# What may wait for a slow network before messages that are not needed are dropped.
_ROOM = 4 << 20
_FLUSH_S = 5.0


class MessageChannel:
    """One end of a connection. Each end sends a pulse every second, so that the other can tell silence from quiet.

    Args:
        connection: a connected stream socket, which belongs to the channel from now on.
        on_message: gets each message but the pulses, on the channel's thread, and must not block.
        on_end: is called once, as the last, on the channel's thread.
        on_silence: gets the seconds since the last sign of life, about once a second while these are many.
        silent_s: how many are many.
        pulse_s: between two pulses.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_message: Callable[[dict[str, Any]], object],
        on_end: Callable[[End], object],
        *,
        on_silence: Callable[[float], object] = lambda seconds: None,
        silent_s: float = 10.0,
        pulse_s: float = _PULSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection, self._on_message, self._on_end = connection, on_message, on_end
        self._on_silence, self._silent_s, self._pulse_s, self._clock = on_silence, silent_s, pulse_s, clock
        self._lock = threading.Lock()
        self._outgoing = bytearray()
        self._close_by: float | None = None
        self._is_cut = False
        self._waker, self._wake_up = socket.socketpair()
        self._wake_up.setblocking(False)
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # a pair of sockets of this machine has no such option
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._thread = threading.Thread(target=self._serve, name="message-channel", daemon=True)

    def begin(self) -> None:
        """Begins to send and to receive."""
        self._thread.start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message, from any thread, without waiting; to an end that is gone it does nothing."""
        line = encode(message)
        with self._lock:
            self._outgoing += line
        self._wake()

    def send_if_room(self, message: Mapping[str, Any]) -> bool:
        """Sends a message that nobody misses, unless the other end is behind with reading.

        Returns:
            Whether it was sent.
        """
        with self._lock:
            if len(self._outgoing) > _ROOM:
                return False
        self.send(message)
        return True

    def close(self) -> None:
        """Delivers what waits, within some seconds, and ends the channel. A second call does nothing."""
        with self._lock:
            self._close_by = self._close_by or self._clock() + _FLUSH_S
        self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(2 * _FLUSH_S)

    def cut(self) -> None:
        """Ends the channel at once, whatever waits, from any thread."""
        self._is_cut = True
        self._wake()

    def _wake(self) -> None:
        # It is awake when its socket is full, and gone when that is closed.
        with contextlib.suppress(OSError):
            self._wake_up.send(b"\0")

    # Everything below runs on the channel's thread.

    def _serve(self) -> None:
        end: End = "broken"
        with selectors.DefaultSelector() as selector, self._connection, self._waker, self._wake_up:
            selector.register(self._waker, selectors.EVENT_READ)
            selector.register(self._connection, selectors.EVENT_READ)
            try:
                end = self._converse(selector)
            except OSError as error:
                # A pipe whose reader is gone was closed by it: nobody between the two can do that.
                end = "closed" if error.errno == errno.EPIPE else "broken"
        self._on_end(end)

    def _converse(self, selector: selectors.BaseSelector) -> End:
        reader = MessageReader()
        heard_at = told_at = self._clock()
        pulse_at = heard_at
        while True:
            now = self._clock()
            with self._lock:
                if now >= pulse_at:
                    self._outgoing += encode({"type": PULSE})
                    pulse_at = now + self._pulse_s
                self._send_some()
                is_empty, close_by = not self._outgoing, self._close_by
            if self._is_cut or (close_by is not None and (is_empty or now >= close_by)):
                return "left"
            if now - heard_at > self._silent_s and now - told_at >= self._pulse_s:
                told_at = now
                self._on_silence(now - heard_at)
            events = selectors.EVENT_READ | (0 if is_empty else selectors.EVENT_WRITE)
            selector.modify(self._connection, events)
            for key, mask in selector.select(max(0.0, pulse_at - self._clock())):
                if key.fileobj is self._waker:
                    self._waker.recv(_PIECE)
                elif mask & selectors.EVENT_READ:
                    data = self._connection.recv(_PIECE)
                    if not data:
                        return "closed"
                    heard_at = self._clock()
                    self._pass_on(reader.feed(data))

    def _send_some(self) -> None:
        try:
            while self._outgoing:
                del self._outgoing[: self._connection.send(self._outgoing[:_PIECE])]
        except BlockingIOError:
            pass

    def _pass_on(self, messages: list[dict[str, Any] | BadMessage]) -> None:
        for message in messages:
            # A line that is none of ours cannot come from our other end: the connection is of no use.
            if isinstance(message, BadMessage):
                raise OSError(errno.EPROTO, str(message))
            if message["type"] != PULSE:
                self._on_message(message)
