"""Connections to the other members, and the one loop that moves frames over all of them at the same time.

An operation says what it sends and what it expects, then calls `finish`. The loop belongs to the calling thread, which
sleeps in the kernel while nothing can move. A member whose connection breaks is waited for until the group is aborted:
whether it is dead is for the supervisor to say.
"""

import collections
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import google_crc32c
import numpy as np

from cluster.assignment import Member
from cluster.process_group.errors import GroupAborted, PeerFault
from cluster.process_group.frames import HEADER_BYTES, Header, pack_header, unpack_header
from cluster.process_group.interruption import Interruption

# A payload is an array of bytes: its CRC is taken and it is sent and received with no copy of it.
Payload = np.ndarray
Then = Callable[[Payload], None]

_NOTHING = np.empty(0, np.uint8)
_BUFFERS_A_CALL = 16
_LARGEST_BLOB = 1 << 31


def as_bytes(array: np.ndarray) -> Payload:
    """The bytes of a C-contiguous array, shared with it."""
    return array.reshape(-1).view(np.uint8)


def checksum_of(payload: Payload | bytes) -> int:
    """CRC-32C, as in a frame's header."""
    return google_crc32c.value(payload) if len(payload) else 0


@dataclass
class _Receive:
    """An expected frame: where its payload goes (None: wherever, it may have any size), and what follows."""

    target: Payload | Callable[[], Payload] | None
    then: Then | None


class Link:
    """One connection that both ends have proved.

    Args:
        member: the other end.
        connection: to it; non-blocking.
        send_key: of the MACs of this end's frames.
        receive_key: of the other end's.
    """

    def __init__(self, member: Member, connection: socket.socket, send_key: bytes, receive_key: bytes) -> None:
        self.member = member
        self.connection = connection
        self.fd = connection.fileno()
        self.send_key, self.receive_key = send_key, receive_key
        self.num_sent = self.num_received = 0
        self.waiting: collections.deque[memoryview] = collections.deque()
        self.source: Iterator[tuple[int, int, Payload]] | None = None
        self.expected: dict[tuple[int, int], _Receive] = {}
        self.header_data = bytearray(HEADER_BYTES)
        self.header_have = 0
        self.header: Header | None = None
        self.receive: _Receive | None = None
        self.payload = _NOTHING
        self.payload_view = memoryview(b"")
        self.payload_have = 0
        self.is_broken = False
        self.watched = 0

    @property
    def is_ahead(self) -> bool:
        """Whether the next frame has come and belongs to an operation that this process has not begun."""
        return self.header is not None and self.receive is None

    def fault(self, what: str) -> PeerFault:
        """That the other end did something wrong."""
        return PeerFault(self.member, what)


class Links:
    """All connections of one member of a group.

    Args:
        links: by the other member's rank.
        generation: the group's.
        interruption: through which the group is aborted.
        patience_s: how long to look again and again before one sleeps. Loopback moves twice as much when neither end
            sleeps: whoever is woken tends to be put on the processor of whoever wakes it.

    Attributes:
        num_bytes_sent: over all connections, headers included.
        looks: whether the present operation looks again and again before it sleeps.
    """

    def __init__(
        self, links: Mapping[int, Link], generation: int, interruption: Interruption, patience_s: float
    ) -> None:
        self._links = dict(links)
        self._by_fd = {link.fd: link for link in links.values()}
        self._generation = generation
        self._interruption = interruption
        self._patience_s = patience_s
        self.num_bytes_sent = 0
        self.looks = True
        self._operation = 0
        self._num_expected = 0
        self._sending: set[Link] = set()
        self._touched: set[Link] = set()  # their watched events may have to change
        self._is_closed = False
        self._poll = select.poll()
        self._poll.register(interruption.fd, select.POLLIN)

    def begin(self, looks: bool = True) -> None:
        """Begins the next operation.

        Args:
            looks: whether it looks again and again before it sleeps, where it has the patience.

        Raises:
            GroupAborted: the group is over.
        """
        self.check()
        self.looks = looks
        self._operation += 1

    def check(self) -> None:
        """Raises GroupAborted if the group is over."""
        if self._is_closed or self._interruption.has_ended(self._generation):
            raise GroupAborted(f"generation {self._generation} was ended")

    def send(
        self, rank: int, kind: int, tag: int = 0, payload: Payload | bytes = b"", checksum: int | None = None
    ) -> None:
        """Sends a frame, in the order of the calls; the payload must not change before `finish` returns.

        Args:
            rank: of the receiver.
            kind: of the frame.
            tag: of the frame.
            payload: of the frame.
            checksum: `checksum_of` the payload, where it is sent to several; None: not known yet.
        """
        link = self._links[rank]
        self._enqueue(link, kind, tag, payload, checksum)
        self._sending.add(link)
        if len(link.waiting) <= 2:  # nothing was waiting before it: most small frames leave here
            self._write(link)
        self._touched.add(link)

    def send_from(self, rank: int, source: Iterable[tuple[int, int, Payload]]) -> None:
        """Sends frames (kind, tag, payload) that `source` makes one by one, each when the one before has left.

        A payload may be overwritten when the next is asked for. Frames given to `send` go first.
        """
        link = self._links[rank]
        assert link.source is None, "one source a link and operation"
        link.source = iter(source)
        self._sending.add(link)
        self._touched.add(link)

    def receive(
        self,
        rank: int,
        kind: int,
        tag: int = 0,
        target: Payload | Callable[[], Payload] | None = _NOTHING,
        then: Then | None = None,
    ) -> None:
        """Expects a frame.

        Args:
            rank: of the sender.
            kind: of the frame.
            tag: of the frame.
            target: where its payload goes, which must have its size; a callable is asked when the frame's header has
                come; None: a new array of whatever size the frame has.
            then: called with the payload when it is complete; may send and expect more.
        """
        link = self._links[rank]
        assert (kind, tag) not in link.expected
        link.expected[kind, tag] = _Receive(target, then)
        self._num_expected += 1
        self._touched.add(link)

    def finish(self, deadline: float | None = None) -> None:
        """Moves frames until all that this operation sends has left and all that it expects has come.

        Args:
            deadline: a value of `time.monotonic()`; None: until the group is aborted.

        Raises:
            GroupAborted: the group was aborted.
            PeerFault: a member sent something wrong.
            TimeoutError: the deadline has passed; names the members that were waited for.
        """
        self.check()
        for link in [link for link in self._touched if link.is_ahead]:
            self._open_frame(link)
        while self._num_expected or self._sending:
            for link in self._touched:
                self._watch(link)
            self._touched.clear()
            for fd, events in self._ready(deadline):
                if fd == self._interruption.fd:
                    self._interruption.clear()
                    self.check()
                    continue
                link = self._by_fd[fd]
                self._touched.add(link)
                if events & select.POLLNVAL:
                    self._lose(link)
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    self._read(link)
                if events & select.POLLOUT:
                    self._write(link)

    def wait_for_end(self, patience_s: float) -> None:
        """Waits for an abort, this many seconds at most.

        Raises:
            GroupAborted: it came.
        """
        deadline = time.monotonic() + patience_s
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            select.select([self._interruption.fd], [], [], left)
            self._interruption.clear()

    def sleep(self, fd: int, patience_s: float) -> None:
        """Returns when the descriptor is readable, or after so many seconds.

        Raises:
            GroupAborted: the group was aborted.
        """
        self.check()
        poll = select.poll()
        poll.register(self._interruption.fd, select.POLLIN)
        poll.register(fd, select.POLLIN)
        if any(found == self._interruption.fd for found, _ in poll.poll(patience_s * 1000)):
            self._interruption.clear()
            self.check()

    def fault(self, rank: int, what: str) -> PeerFault:
        """That a member did something wrong."""
        return self._links[rank].fault(what)

    def close(self) -> None:
        """Closes all connections; later operations raise GroupAborted."""
        self._is_closed = True
        for link in self._links.values():
            link.connection.close()
            link.source = None
            link.waiting.clear()
            link.expected.clear()

    def _ready(self, deadline: float | None) -> list[tuple[int, int]]:
        """The descriptors that something can be done with, and what."""
        until = time.perf_counter() + (self._patience_s if self.looks else 0.0)
        while time.perf_counter() < until:
            found = self._poll.poll(0)
            if found:
                return found
            os.sched_yield()
        return self._poll.poll(self._patience(deadline))

    def _patience(self, deadline: float | None) -> float | None:
        """Milliseconds to wait for."""
        if deadline is None:
            return None
        left = deadline - time.monotonic()
        if left <= 0:
            late = sorted(link.member.worker for link in self._links.values() if link.expected or link.waiting)
            raise TimeoutError(f"no answer from {', '.join(late)} in generation {self._generation}")
        return left * 1000

    def _watch(self, link: Link) -> None:
        wanted = 0
        if not link.is_broken:
            if link.receive or (link.expected and not link.is_ahead):
                wanted |= select.POLLIN
            if link.waiting or link.source:
                wanted |= select.POLLOUT
        if wanted == link.watched:
            return
        if wanted:
            self._poll.register(link.fd, wanted)
        else:  # also so that a broken connection, which is always "ready", does not keep the loop busy
            self._poll.unregister(link.fd)
        link.watched = wanted

    def _lose(self, link: Link) -> None:
        link.is_broken = True

    def _enqueue(self, link: Link, kind: int, tag: int, payload: Payload | bytes, checksum: int | None = None) -> None:
        checksum = checksum_of(payload) if checksum is None else checksum
        header = Header(kind, tag, self._generation, self._operation, len(payload), checksum)
        link.waiting.append(memoryview(pack_header(header, link.send_key, link.num_sent)))
        link.num_sent += 1
        if len(payload):
            link.waiting.append(memoryview(payload) if isinstance(payload, bytes) else payload.data)

    def _write(self, link: Link) -> None:
        if link.is_broken:
            return
        for _ in range(4):  # then the other direction and the other links get their turn
            if not link.waiting and link.source:
                frame = next(link.source, None)
                if frame is None:
                    link.source = None
                else:
                    self._enqueue(link, *frame)
            if not link.waiting:
                self._sending.discard(link)
                return
            buffers = [link.waiting[i] for i in range(min(len(link.waiting), _BUFFERS_A_CALL))]
            try:
                sent = link.connection.sendmsg(buffers)
            except BlockingIOError:
                return
            except OSError:
                self._lose(link)
                return
            self.num_bytes_sent += sent
            while sent and sent >= len(link.waiting[0]):
                sent -= len(link.waiting.popleft())
            if sent:
                link.waiting[0] = link.waiting[0][sent:]
        if not link.waiting and not link.source:
            self._sending.discard(link)

    def _read(self, link: Link) -> None:
        try:
            while True:
                if link.receive is None:
                    if link.is_ahead or not link.expected:
                        return
                    got = link.connection.recv_into(memoryview(link.header_data)[link.header_have :])
                    link.header_have += got
                    if got and link.header_have == HEADER_BYTES:
                        self._accept_header(link)
                        continue
                else:
                    got = link.connection.recv_into(link.payload_view[link.payload_have :])
                    link.payload_have += got
                    if got and link.payload_have == len(link.payload):
                        self._close_frame(link)
                        return  # the other direction and the other links get their turn
                if not got:
                    self._lose(link)
                    return
        except BlockingIOError:
            pass
        except OSError:
            self._lose(link)

    def _accept_header(self, link: Link) -> None:
        header = unpack_header(link.header_data, link.receive_key, link.num_received)
        if header is None:
            raise link.fault("sent a header that fails its authentication: damaged, forged, or not the next one")
        link.header = header
        link.num_received += 1
        link.header_have = 0
        self._open_frame(link)

    def _open_frame(self, link: Link) -> None:
        header = link.header
        assert header is not None
        if header.generation != self._generation:
            raise link.fault(f"answers in generation {header.generation} to generation {self._generation}")
        if header.operation > self._operation and not link.expected:
            return  # it is ahead
        receive = link.expected.pop((header.kind, header.tag), None)
        if header.operation != self._operation or receive is None:
            raise link.fault(
                f"sent frame {header.kind}/{header.tag} of operation {header.operation}, which nobody expects in "
                f"operation {self._operation}"
            )
        target = receive.target
        if target is None:
            if header.num_bytes > _LARGEST_BLOB:
                raise link.fault(f"sent a message of {header.num_bytes} bytes, more than {_LARGEST_BLOB}")
            target = np.empty(header.num_bytes, np.uint8)
        elif not isinstance(target, np.ndarray):
            target = target()
        if len(target) != header.num_bytes:
            raise link.fault(f"sent {header.num_bytes} bytes where {len(target)} are expected")
        link.receive, link.payload, link.payload_have = receive, target, 0
        link.payload_view = target.data
        if not header.num_bytes:
            self._close_frame(link)

    def _close_frame(self, link: Link) -> None:
        header, receive, payload = link.header, link.receive, link.payload
        assert header and receive
        if header.num_bytes and google_crc32c.value(payload) != header.checksum:
            raise link.fault(f"sent {header.num_bytes} bytes that do not have their checksum: damaged on the way")
        link.header = link.receive = None
        link.payload, link.payload_view = _NOTHING, memoryview(b"")
        self._num_expected -= 1
        if receive.then:
            receive.then(payload)
