"""Forms the connections of one generation: each member connects to those of lower rank and accepts the others.

All handshakes go on at the same time in the joining thread. One is a generator: it yields the number of bytes that it
needs next and gets them; it returns the link, or None if the connection is of no use. What it sends fits the empty send
buffer of a fresh connection, so sending never waits.
"""

import contextlib
import errno
import select
import socket
import time
from collections.abc import Generator, Sequence

from cluster.assignment import Member
from cluster.process_group.errors import GroupAborted
from cluster.process_group.interruption import Interruption
from cluster.process_group.links import Link
from cluster.process_group.proof import ANSWER_BYTES, HELLO_BYTES, PROOF_BYTES, Hello, Proof, name_digest
from cluster.reserved_port import split_address

_FIRST_PAUSE_S = 0.005  # before connecting again
_LONGEST_PAUSE_S = 0.2
_MOST_STRANGERS = 256  # connections that have not said who they are; the oldest are closed

Handshake = Generator[int, bytes, Link | None]


class Arrival:
    """An accepted connection that has not been used yet, with what it has sent so far.

    It outlives a generation: a member of the next one may connect before this process knows of it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.generation: int | None = None  # that it says it wants to form; None: it has not said


class _Conversation:
    """A connection whose handshake goes on."""

    def __init__(self, connection: socket.socket, arrival: Arrival | None = None, member: Member | None = None) -> None:
        self.connection = connection
        self.arrival = arrival
        self.member = member  # that this end connected to
        self.handshake: Handshake | None = None
        self.wanted = 0
        self.received = b""


class Joining:
    """One attempt to form a generation.

    Args:
        listener: where the members of higher rank connect; non-blocking.
        arrivals: connections accepted earlier; those of no use now but perhaps later are left in it.
        key: the run's.
        members: all, by rank.
        rank: this process's.
        generation: its number.
        interruption: through which it is aborted.
    """

    def __init__(
        self,
        listener: socket.socket,
        arrivals: list[Arrival],
        key: bytes,
        members: Sequence[Member],
        rank: int,
        generation: int,
        interruption: Interruption,
    ) -> None:
        self._listener = listener
        self._arrivals = arrivals
        self._key = key
        self._itself = members[rank]
        self._generation = generation
        self._interruption = interruption
        self._peers = {member.rank: member for member in members if member.rank != rank}
        self._accepted = {name_digest(peer.worker): peer for peer in self._peers.values() if peer.rank > rank}
        self._links: dict[int, Link] = {}
        self._conversations: dict[int, _Conversation] = {}  # by file descriptor
        self._next_attempt = {peer.rank: 0.0 for peer in self._peers.values() if peer.rank < rank}
        self._pause = dict.fromkeys(self._next_attempt, _FIRST_PAUSE_S)
        self._trouble: dict[int, str] = {}
        self._poll = select.poll()

    def run(self, deadline: float) -> dict[int, Link]:
        """The links to all peers, by rank.

        Args:
            deadline: a value of `time.monotonic()`.

        Raises:
            GroupAborted: the generation was ended.
            TimeoutError: names who is missing.
        """
        self._poll.register(self._interruption.fd, select.POLLIN)
        self._poll.register(self._listener, select.POLLIN)
        try:
            earlier, self._arrivals[:] = list(self._arrivals), []
            for arrival in earlier:
                self._listen_to(arrival)
            while len(self._links) < len(self._peers):
                self._check(deadline)
                now = time.monotonic()
                for rank, due in list(self._next_attempt.items()):
                    if due <= now:
                        self._connect(self._peers[rank])
                wait = min([deadline, *self._next_attempt.values()]) - time.monotonic()
                for fd, _ in self._poll.poll(max(0.0, wait) * 1000):
                    self._handle(fd)
        except BaseException:
            for link in self._links.values():
                link.connection.close()
            raise
        finally:
            for conversation in list(self._conversations.values()):
                self._leave(conversation)
        return self._links

    def _check(self, deadline: float) -> None:
        if self._interruption.has_ended(self._generation):
            raise GroupAborted(f"generation {self._generation} was ended while it formed")
        if time.monotonic() >= deadline:
            missing = [peer for peer in self._peers.values() if peer.rank not in self._links]
            names = ", ".join(
                f"rank {peer.rank} (worker {peer.worker} on host {peer.host} at {peer.address}"
                f"{': ' + self._trouble[peer.rank] if peer.rank in self._trouble else ''})"
                for peer in missing
            )
            raise TimeoutError(f"generation {self._generation} did not form in time: missing {names}")

    def _handle(self, fd: int) -> None:
        if fd == self._interruption.fd:
            self._interruption.clear()
        elif fd == self._listener.fileno():
            with contextlib.suppress(OSError):  # it went away again, or there are no descriptors left
                while True:
                    connection, _ = self._listener.accept()
                    connection.setblocking(False)
                    self._listen_to(Arrival(connection))
        elif fd in self._conversations:
            self._read(self._conversations[fd])

    # This end connects.

    def _connect(self, peer: Member) -> None:
        del self._next_attempt[peer.rank]
        connection = None
        try:
            place = split_address(peer.address)
            family, *_, place = socket.getaddrinfo(*place, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICSERV)[0]
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.setblocking(False)
            code = connection.connect_ex(place)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, errno.errorcode.get(code, ""))
        except OSError as error:
            if connection:
                connection.close()
            self._try_again(peer, error.strerror or str(error))
            return
        conversation = _Conversation(connection, member=peer)
        self._conversations[connection.fileno()] = conversation
        self._poll.register(connection, select.POLLOUT)

    def _try_again(self, peer: Member, trouble: str) -> None:
        self._trouble[peer.rank] = trouble
        self._next_attempt[peer.rank] = time.monotonic() + self._pause[peer.rank]
        self._pause[peer.rank] = min(2 * self._pause[peer.rank], _LONGEST_PAUSE_S)

    def _connecting(self, connection: socket.socket, peer: Member) -> Handshake:
        hello = Hello.to(peer.worker, self._itself.worker, self._generation)
        connection.send(hello.pack())
        proof = Proof.of_answer(self._key, hello, (yield ANSWER_BYTES))
        if proof is None:
            self._trouble[peer.rank] = "what answers there does not know this run's key"
            return None
        connection.send(proof.confirmation())
        mine, theirs = proof.frame_keys()
        return Link(peer, connection, mine, theirs)

    # The other end has connected.

    def _listen_to(self, arrival: Arrival) -> None:
        conversation = _Conversation(arrival.connection, arrival)
        conversation.received = arrival.received
        conversation.handshake = self._accepting(arrival)
        conversation.wanted = next(conversation.handshake)
        self._conversations[arrival.connection.fileno()] = conversation
        self._poll.register(arrival.connection, select.POLLIN)
        self._advance(conversation)
        strangers = [c for c in self._conversations.values() if c.arrival and c.arrival.generation is None]
        if len(strangers) > _MOST_STRANGERS:
            self._end(strangers[0])

    def _accepting(self, arrival: Arrival) -> Handshake:
        hello = Hello.unpack((yield HELLO_BYTES))
        if hello is None or hello.receiver != name_digest(self._itself.worker):
            return None
        arrival.generation = hello.generation
        if hello.generation > self._generation:
            yield HELLO_BYTES + 1  # never: it stays until this generation has formed, and is used in its own
        peer = self._accepted.get(hello.sender)
        if hello.generation != self._generation or peer is None:
            return None
        proof = Proof.new(self._key, hello)
        arrival.connection.send(proof.answer())
        if not proof.is_confirmed((yield PROOF_BYTES)):
            self._trouble[peer.rank] = "who connected in its name does not know this run's key"
            return None
        theirs, mine = proof.frame_keys()
        return Link(peer, arrival.connection, mine, theirs)

    # Both.

    def _read(self, conversation: _Conversation) -> None:
        connection = conversation.connection
        try:
            if conversation.handshake is None:  # it is connected, or failed to
                assert conversation.member
                code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, errno.errorcode.get(code, ""))
                self._poll.modify(connection, select.POLLIN)
                conversation.handshake = self._connecting(connection, conversation.member)
                conversation.wanted = next(conversation.handshake)
                return
            # Not a byte more than the handshake needs: what follows it are frames.
            data = connection.recv(conversation.wanted - len(conversation.received))
        except BlockingIOError:
            return
        except OSError as error:
            self._end(conversation, error.strerror or str(error))
            return
        if not data:
            self._end(conversation, "it closed the connection")
            return
        conversation.received += data
        if conversation.arrival and conversation.arrival.generation is None:
            conversation.arrival.received = conversation.received
        self._advance(conversation)

    def _advance(self, conversation: _Conversation) -> None:
        while len(conversation.received) >= conversation.wanted:
            data, conversation.received = conversation.received, b""
            assert conversation.handshake
            try:
                conversation.wanted = conversation.handshake.send(data)
            except StopIteration as end:
                if end.value is None:
                    self._end(conversation)
                else:
                    self._keep(conversation, end.value)
                return
            except OSError as error:
                self._end(conversation, error.strerror or str(error))
                return

    def _keep(self, conversation: _Conversation, link: Link) -> None:
        self._forget(conversation)
        link.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rank = link.member.rank
        if rank in self._links:  # the other end gave the first one up
            self._links[rank].connection.close()
        self._links[rank] = link

    def _end(self, conversation: _Conversation, trouble: str = "") -> None:
        self._forget(conversation)
        conversation.connection.close()
        peer = conversation.member
        if peer:
            self._try_again(peer, trouble or self._trouble.get(peer.rank, ""))

    def _leave(self, conversation: _Conversation) -> None:
        """Keeps what may be of use in a later generation, and closes the rest."""
        self._forget(conversation)
        arrival = conversation.arrival
        if arrival and (arrival.generation is None or arrival.generation > self._generation):
            self._arrivals.append(arrival)
        else:
            conversation.connection.close()

    def _forget(self, conversation: _Conversation) -> None:
        fd = conversation.connection.fileno()
        del self._conversations[fd]
        self._poll.unregister(fd)
