"""Several hosts played by this machine, each a process with an agent: one can be lost, leave and come back."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from cluster.assignment import Assignment
from cluster.local import LocalHost
from cluster.message_lines import BadMessage, MessageReader, encode
from cluster.supervisor.events import Event, HostJoined, HostLost
from cluster.supervisor.records import from_record
from cluster.worker_environment import AGENT_PID, WorkerProgram
from cluster.worker_output import OutputLines, Sink
from cluster.worker_process import signal_name

_JOIN_S = 20.0
_CLOSE_S = 20.0
_LOOK_S = 0.02
_PATIENCE_S = 1.0


class EmulatedHosts:
    """Runs a process for each host. SIGTERM to it is a preemption notice, SIGKILL the loss of the host.

    Args:
        hosts: that join when the hosts are opened.
        program: what workers run.
        logs: the folder of the workers' log files, and of the hosts' own.
        notice_s: seconds that a host has after SIGTERM. Nothing ends it after that but the supervisor.
        return_s: seconds after which a host that is gone comes back; None: it does not.
        on_output: gets the lines that workers print, and must not block.
        on_started: gets a host's name and pid, each time that it joins.
        on_gone: gets a host's name when all that ran there has ended, before the event that says so.
        address: at which the workers reach each other.
    """

    def __init__(
        self,
        hosts: Sequence[LocalHost],
        program: WorkerProgram,
        logs: Path,
        *,
        notice_s: float = 30.0,
        return_s: float | None = None,
        on_output: Sink = lambda output: None,
        on_started: Callable[[str, int], object] = lambda host, pid: None,
        on_gone: Callable[[str], object] = lambda host: None,
        address: str = "127.0.0.1",
    ) -> None:
        self._hosts, self._program, self._logs = tuple(hosts), program, logs
        self._notice_s, self._return_s, self._address = notice_s, return_s, address
        self._on_output, self._on_started, self._on_gone = on_output, on_started, on_gone
        self._on_event: Callable[[Event], object] = lambda event: None
        self._lock = threading.Lock()
        self._connections: dict[str, socket.socket] = {}
        self._host_of: dict[str, str] = {}
        self._released: dict[str, float] = {}  # when each was told that it is not needed any more
        self._closing = threading.Event()
        self._first_joins: dict[str, HostJoined] | None = {}
        self._joined = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []

    def open(self, on_event: Callable[[Event], object]) -> None:
        """Lets all hosts join, together. Events come from threads of their own."""
        self._on_event = on_event
        for host in self._hosts:
            thread = threading.Thread(target=self._serve, args=(host,), name=host.name, daemon=True)
            self._threads.append(thread)
            thread.start()
        with self._joined:
            first = self._first_joins
            assert first is not None, "hosts are opened once"
            self._joined.wait_for(lambda: len(first) == len(self._hosts), _JOIN_S)
            self._first_joins = None
        for host in self._hosts:
            if host.name in first:
                on_event(first[host.name])

    def start(self, worker: str, host: str) -> None:
        """Starts a worker on a host."""
        self._host_of[worker] = host
        self._order("start", worker)

    def form(self, worker: str, assignment: Assignment) -> None:
        """Hands a worker its part in a generation."""
        self._order("form", worker, assignment=assignment.to_json())

    def stop(self, worker: str, reason: str) -> None:
        """Asks a worker to save its state and end."""
        self._order("stop", worker, reason=reason)

    def kill(self, worker: str, reason: str) -> None:
        """Ends a worker at once."""
        self._order("kill", worker, reason=reason)

    def dump_stacks(self, worker: str) -> None:
        """Has a worker write its stacks to its log."""
        self._order("dump_stacks", worker)

    def profile(self, worker: str, steps: int) -> None:
        """Has a worker profile its next steps."""
        self._order("profile", worker, steps=steps)

    def release(self, host: str) -> None:
        """Gives a host back: its workers end, and it is reported as lost."""
        self._released.setdefault(host, time.monotonic())
        self._send(host, {"type": "release"})

    def close(self) -> None:
        """Ends all hosts with their workers and waits until they are gone."""
        self._closing.set()
        for host in self._hosts:
            self.release(host.name)
        for thread in self._threads:
            thread.join()

    def _order(self, kind: str, worker: str, **content: Any) -> None:
        self._send(self._host_of.get(worker, ""), {"type": kind, "worker": worker, **content})

    def _send(self, host: str, message: dict[str, Any]) -> None:
        with self._lock:
            connection = self._connections.get(host)
            if connection is not None:
                with contextlib.suppress(OSError):  # the host is gone, and that is being reported
                    connection.sendall(encode(message))

    # Everything below runs on the thread of a host. The kernel ends the host's process with this thread.

    def _serve(self, host: LocalHost) -> None:
        while not self._closing.is_set():
            process, connection = self._begin(host)
            with self._lock:
                self._connections[host.name] = connection
            self._listen(host.name, process.pid, connection)
            with self._lock:
                del self._connections[host.name]
            connection.close()
            process.kill()
            code = process.wait()
            _end_workers_of(process.pid)
            if self._closing.is_set():
                return
            self._on_gone(host.name)
            given_back = self._released.pop(host.name, None) is not None
            reason = "it was given back" if given_back else f"its process was ended by {signal_name(-code)}"
            self._on_event(HostLost(time.monotonic(), host.name, reason))
            if self._return_s is None or self._closing.wait(self._return_s):
                return

    def _begin(self, host: LocalHost) -> tuple[subprocess.Popen, socket.socket]:
        ours, theirs = socket.socketpair()
        self._logs.mkdir(parents=True, exist_ok=True)
        with theirs, (self._logs / f"{host.name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cluster.emulated_host", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in the terminal is for the launcher alone.
                start_new_session=True,
            )
        begin = {
            "type": "begin",
            "host": host.name,
            "command": self._program.command,
            "environment": dict(self._program.environment),
            "folder": self._program.folder,
            "logs": str(self._logs),
            "shares": [asdict(share) for share in host.shares],
            "address": self._address,
            "notice_s": self._notice_s,
        }
        ours.sendall(encode(begin))
        return process, ours

    def _listen(self, host: str, pid: int, connection: socket.socket) -> None:
        reader = MessageReader()
        while data := self._received(host, connection):
            for message in reader.feed(data):
                if isinstance(message, BadMessage):
                    return  # not a host of ours any more
                if message["type"] == "output":
                    self._on_output(OutputLines(message["worker"], message["rank"], tuple(message["lines"])))
                elif isinstance(event := from_record(message["record"]), HostJoined):
                    self._on_started(host, pid)
                    self._join(event)
                elif isinstance(event, Event):
                    self._on_event(event)

    def _received(self, host: str, connection: socket.socket) -> bytes:
        """What the host has sent; nothing when it has ended, or does not end although it was told to."""
        while not select.select([connection], [], [], _PATIENCE_S)[0]:
            if time.monotonic() - self._released.get(host, float("inf")) > _CLOSE_S:
                return b""
        try:
            return connection.recv(1 << 16)
        except OSError:
            return b""

    def _join(self, event: HostJoined) -> None:
        with self._joined:
            if self._first_joins is not None:
                self._first_joins[event.host] = event
                self._joined.notify()
                return
        self._on_event(event)


def _end_workers_of(agent: int) -> None:
    """Ends what an agent that is gone has left, and waits for it: whoever says that a host is lost answers for that.

    The workers are about to end by themselves, and so is the guardian that sees to it; this makes sure.
    """
    deadline = time.monotonic() + _CLOSE_S
    while (left := [process for process in psutil.process_iter() if _is_worker_of(agent, process)]) and (
        time.monotonic() < deadline
    ):
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(_LOOK_S)


def _is_worker_of(agent: int, process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(AGENT_PID) == str(agent)
    except (psutil.Error, OSError):
        return False
