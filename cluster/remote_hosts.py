"""The launcher's side of agents on other machines: it listens, agents connect, and what they say becomes events."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from cluster.assignment import Assignment
from cluster.message_channel import End, MessageChannel
from cluster.mutual_proof import ProofFailed, accept, new_secret
from cluster.remote_agent import GIVEN_UP_S
from cluster.reserved_port import format_address
from cluster.supervisor.events import Event, HostLost, SnapshotTaken, WorkerExited
from cluster.supervisor.records import from_record
from cluster.worker_output import OutputLines, Sink

_log = logging.getLogger(__name__)
# An agent that says nothing for so long is ended by force, where that is possible.
_SILENT_S = 10.0
_CLOSE_S = 40.0


class RemoteHosts:
    """Agents that have connected, by the names of their hosts. Whoever uses it starts the agents.

    A host is lost when its agent's end of the connection has been closed, which its kernel does for a process that
    ends: its workers end with it. A connection that breaks otherwise, or a silence, proves nothing. Then `end_agent` is
    asked, and without its word the host is reported as lost only when the agent's own lease is over.

    Args:
        bind: the address of this machine to listen at.
        on_output: gets the lines that workers print, and must not block.
        on_left: gets each snapshot that a host holds from an earlier launcher, right after the host has joined.
        on_gone: gets a host's name and how its connection ended, before the event that says so.
        end_agent: ends the agent of a host by force. Returns whether it is certain that it has ended; may take long.
        silent_s, given_up_s: seconds of silence until an agent is ended, and until it counts as ended by itself.
    """

    def __init__(
        self,
        bind: str,
        *,
        on_output: Sink = lambda output: None,
        on_left: Callable[[SnapshotTaken], object] = lambda snapshot: None,
        on_gone: Callable[[str], object] = lambda host: None,
        end_agent: Callable[[str], bool] = lambda host: False,
        silent_s: float = _SILENT_S,
        given_up_s: float = GIVEN_UP_S,
    ) -> None:
        self._on_output, self._on_left, self._on_gone, self._end_agent = on_output, on_left, on_gone, end_agent
        self._silent_s, self._given_up_s = silent_s, given_up_s
        self._on_event: Callable[[Event], object] = lambda event: None
        self.secret = new_secret()
        self._lock = threading.Condition()
        self._agents: dict[str, _Connected] = {}
        self._host_of: dict[str, str] = {}
        self._is_closing = False
        family = socket.getaddrinfo(bind, 0, type=socket.SOCK_STREAM)[0][0]
        self._listener = socket.create_server((bind, 0), family=family)
        self.address = format_address(bind, self._listener.getsockname()[1])
        threading.Thread(target=self._listen, name="remote-hosts", daemon=True).start()

    def report_to(self, on_event: Callable[[Event], object]) -> None:
        """Says who gets the events, from threads of the connections. Call it before the first agent is started."""
        self._on_event = on_event

    def has(self, host: str) -> bool:
        """Whether a host's agent is connected."""
        with self._lock:
            return host in self._agents

    def host_of(self, worker: str) -> str | None:
        """The host that a worker was started on."""
        return self._host_of.get(worker)

    def start(self, worker: str, host: str) -> None:
        """Starts a worker on a host."""
        self._host_of[worker] = host
        self.order(worker, "start")

    def form(self, worker: str, assignment: Assignment) -> None:
        """Hands a worker its part in a generation."""
        self.order(worker, "form", assignment=assignment.to_json())

    def order(self, worker: str, kind: str, **content: Any) -> None:
        """Gives the agent of a worker's host an order; one that is gone does nothing with it."""
        with self._lock:
            agent = self._agents.get(self._host_of.get(worker, ""))
        if agent is not None:
            agent.channel.send({"type": kind, "worker": worker, **content})

    def release(self, host: str, reason: str = "it was given back") -> None:
        """Has an agent end its workers and itself. `HostLost` follows, also when it does not answer."""
        with self._lock:
            agent = self._agents.get(host)
        if agent is not None and not agent.is_released:
            agent.reason, agent.is_released = reason, True
            agent.channel.send({"type": "close"})
            threading.Thread(target=self._make_sure, args=(agent,), daemon=True).start()

    def close(self) -> None:
        """Ends all agents with their workers and waits until they are gone."""
        with self._lock:
            self._is_closing = True
            hosts = list(self._agents)
        for host in hosts:
            self.release(host)
        with self._lock:
            self._lock.wait_for(lambda: not self._agents, _CLOSE_S)
        # A thread that waits in `accept` would keep the listening socket open.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # On a thread of its own: whoever connects and says nothing keeps nobody waiting.
            threading.Thread(target=self._admit, args=(connection,), daemon=True).start()

    def _admit(self, connection: socket.socket) -> None:
        try:
            host = accept(connection, self.secret)
        except (ProofFailed, OSError) as error:
            _log.warning("a connection was refused: %s", error)
            connection.close()
            return
        agent = _Connected(host)
        agent.channel = MessageChannel(
            connection,
            lambda message: self._hear(agent, message),
            lambda end: self._ended(agent, end),
            on_silence=lambda seconds: self._worry(agent, seconds),
            silent_s=self._silent_s,
        )
        with self._lock:
            if self._is_closing or host in self._agents:
                connection.close()
                return
            self._agents[host] = agent
        agent.channel.begin()

    def _hear(self, agent: "_Connected", message: dict[str, Any]) -> None:
        try:
            if message["type"] == "output":
                self._on_output(OutputLines(message["worker"], message["rank"], tuple(message["lines"])))
                return
            event = from_record(message["record"])
        except (KeyError, TypeError):
            event = None
        if message.get("type") == "left" and isinstance(event, SnapshotTaken):
            self._on_left(event)
        elif isinstance(event, WorkerExited) and agent.is_released:
            pass  # the loss of the host says it all
        elif isinstance(event, Event):
            self._on_event(event)
        else:
            _log.warning("%s sent what is no event: %.200r", agent.host, message)

    def _worry(self, agent: "_Connected", seconds: float) -> None:
        """An agent has been silent for long."""
        agent.reason = agent.reason or f"its agent has been silent for {seconds:.0f} s"
        if seconds > self._given_up_s:
            agent.channel.cut()  # its lease is over: it has ended its workers, or its machine is gone
        elif not agent.is_being_ended:
            agent.is_being_ended = True
            threading.Thread(target=self._end_by_force, args=(agent,), daemon=True).start()

    def _end_by_force(self, agent: "_Connected") -> None:
        if self._end_agent(agent.host):
            agent.channel.cut()

    def _make_sure(self, agent: "_Connected") -> None:
        """An agent that was asked to end is ended by force when it does not."""
        if not agent.ended.wait(_CLOSE_S / 4):
            self._end_by_force(agent)

    def _ended(self, agent: "_Connected", end: End) -> None:
        agent.ended.set()
        if end == "broken" and not self._end_agent(agent.host):
            agent.reason = agent.reason or "the connection to its agent broke"
            time.sleep(self._given_up_s)
        with self._lock:
            del self._agents[agent.host]
            self._lock.notify_all()
        self._on_gone(agent.host)
        self._on_event(HostLost(time.monotonic(), agent.host, agent.reason or "its agent has ended"))


class WorkersOfAgents:
    """What all kinds of hosts have in common whose agents connect: how their workers get orders."""

    _agents: RemoteHosts | None = None  # until the hosts are opened

    def start(self, worker: str, host: str) -> None:
        """Starts a worker on a host."""
        if self._agents is not None:
            self._agents.start(worker, host)

    def form(self, worker: str, assignment: Assignment) -> None:
        """Hands a worker its part in a generation."""
        if self._agents is not None:
            self._agents.form(worker, assignment)

    def stop(self, worker: str, reason: str) -> None:
        """Asks a worker to save its state and end."""
        self._order(worker, "stop", reason=reason)

    def kill(self, worker: str, reason: str) -> None:
        """Ends a worker at once."""
        self._order(worker, "kill", reason=reason)

    def dump_stacks(self, worker: str) -> None:
        """Has a worker write its stacks to its log."""
        self._order(worker, "dump_stacks")

    def profile(self, worker: str, steps: int) -> None:
        """Has a worker profile its next steps."""
        self._order(worker, "profile", steps=steps)

    def _order(self, worker: str, kind: str, **content: Any) -> None:
        if self._agents is not None:
            self._agents.order(worker, kind, **content)


class _Connected:
    """An agent that has connected."""

    channel: MessageChannel

    def __init__(self, host: str) -> None:
        self.host, self.reason = host, ""
        self.is_released = self.is_being_ended = False
        self.ended = threading.Event()
