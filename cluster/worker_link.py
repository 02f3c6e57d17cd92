"""A worker's link to the agent that started it: reports out, orders in, on a thread of its own.

Whatever the worker does meanwhile, the link says that it lives, and ends it when the agent is gone.
"""

import contextlib
import faulthandler
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cluster.assignment import Assignment, ErrorReport
from cluster.message_lines import BadMessage, MessageReader, encode
from cluster.parent_death import AGENT_LOST, die_with_parent
from cluster.worker_environment import AGENT_PID, HOST_ADDRESS, LINK_DESCRIPTOR, WORKER_NAME

# What an agent sends to a worker whose stacks it wants. A signal, and not a message, because its handler needs neither
# the interpreter nor a thread that runs: it also answers for a worker that is stuck inside a library.
STACKS_SIGNAL = signal.SIGUSR1

_HEARTBEAT_S = 1.0
_PROGRESS_S = 0.02
_DELIVERY_S = 5.0
# An agent reads an error's traceback for a person; the rest of it is in the worker's log.
_LONGEST_TEXT = 100_000


class _State(NamedTuple):
    generation: int
    step: int
    phase: str

    def message(self) -> dict[str, Any]:
        return {"type": "progress", **self._asdict()}


class WorkerLink:
    """Reports to the agent and receives its orders. All methods may be called from any thread.

    Args:
        connection: this worker's end of the pair of sockets.
        on_stop: is called with the reason, on the link's thread, when the worker is asked to save its state and end.
        on_profile: is called with a number of steps when these are to be profiled.
        on_form: is called, on the link's thread, with each assignment, before anybody can take it.
        heartbeat_s: between two signs of life.
        progress_s: the least time between two reports of progress; of those in between, only the newest is sent.

    Attributes:
        name: the worker's name.
        host_address: the address that peers reach its host at, without a port.
        on_form: as given; may be set later.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_stop: Callable[[str], object] | None = None,
        on_profile: Callable[[int], object] | None = None,
        on_form: Callable[[Assignment], object] | None = None,
        *,
        name: str = "",
        host_address: str = "127.0.0.1",
        heartbeat_s: float = _HEARTBEAT_S,
        progress_s: float = _PROGRESS_S,
    ) -> None:
        self.name, self.host_address = name, host_address
        self._connection, self._on_stop, self._on_profile = connection, on_stop, on_profile
        self.on_form = on_form
        self._heartbeat_s, self._progress_s = heartbeat_s, progress_s
        self._lock = threading.Lock()
        self._outgoing: deque[dict[str, Any] | threading.Event] = deque()
        self._newest: _State | None = None
        self._newest_is_sent = True
        self._sleeps = False
        self._closing = False
        self._thread_runs = True
        self._own_part: tuple[int, float] | None = None
        self._orders = threading.Condition()
        self._assignments: deque[Assignment] = deque()
        self._stop_reason: str | None = None
        self._waker, self._wake_up = socket.socketpair()
        self._wake_up.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name="worker-link", daemon=True)
        self._thread.start()

    @classmethod
    def from_environment(
        cls, on_stop: Callable[[str], object] | None = None, on_profile: Callable[[int], object] | None = None
    ) -> "WorkerLink":
        """The link of a process that an agent has started. Call it first, before anything slow is imported.

        From now on this process ends with its agent, and writes the stacks of all its threads to its log when the agent
        asks. The processes that it starts do not inherit the link.

        Raises:
            RuntimeError: no agent has started this process.
        """
        try:
            descriptor, parent = int(os.environ.pop(LINK_DESCRIPTOR)), int(os.environ.pop(AGENT_PID))
        except KeyError:
            raise RuntimeError("this program is started by a Phalanx agent: run `phalanx train`") from None
        die_with_parent(parent)
        os.set_inheritable(descriptor, False)
        # A descriptor of its own, because user code may point standard error elsewhere.
        log = os.dup(2)
        faulthandler.enable(log)
        faulthandler.register(STACKS_SIGNAL, log, all_threads=True)
        name, address = os.environ.pop(WORKER_NAME), os.environ.pop(HOST_ADDRESS)
        return cls(socket.socket(fileno=descriptor), on_stop, on_profile, name=name, host_address=address)

    @property
    def stop_reason(self) -> str | None:
        """Why the worker shall save its state and end; None as long as nobody asked."""
        return self._stop_reason

    def ready(self, address: str) -> None:
        """Says that everything is imported.

        Args:
            address: host and port that peers will reach this worker at.
        """
        self._send({"type": "ready", "address": address})

    def wait_for_assignment(self, timeout_s: float | None = None, holds_state: bool = False) -> Assignment | None:
        """Waits for this worker's next part.

        Args:
            timeout_s: at most so long.
            holds_state: it is asked to stop, and what it knows is not saved: it has to do that in another group.

        Returns:
            The assignment; None when the worker shall stop instead, or when the time is over.
        """
        with self._orders:
            self._orders.wait_for(lambda: self._assignments if holds_state else self.has_order, timeout_s)
            stops = self._stop_reason is not None and not holds_state
            return self._assignments.popleft() if self._assignments and not stops else None

    @property
    def has_order(self) -> bool:
        """Whether an assignment waits, or the worker shall stop."""
        return bool(self._assignments) or self._stop_reason is not None

    def wait_for_order(self, timeout_s: float) -> bool:
        """Waits until an assignment has come, or the worker shall stop; returns whether that is so."""
        with self._orders:
            return self._orders.wait_for(lambda: self.has_order, timeout_s)

    def progressed(self, generation: int, step: int, phase: str) -> None:
        """Says where this worker is. Takes about a microsecond; a tight loop may call it every step.

        Args:
            step: completed steps.
            phase: what it does now; every change of it, and of the generation, reaches the agent.
        """
        with self._lock:
            before = self._newest
            if (
                not self._newest_is_sent
                and before is not None
                and (before.phase != phase or before.generation != generation)
            ):
                self._outgoing.append(before.message())
            self._newest = _State(generation, step, phase)
            self._newest_is_sent = False
            wake, self._sleeps = self._sleeps, False
        if wake:
            self._wake()

    def did_own_part(self, arrived: int, own_s: float) -> None:
        """Says for how many steps of its generation this worker has done its own part so far, and how long that took.

        The next sign of life carries the newest of these numbers.
        """
        self._own_part = (arrived, own_s)

    def leaving(self, reason: str, notice_s: float) -> None:
        """Says that this worker has been told from outside to end, and how long it has."""
        self._send({"type": "leaving", "reason": reason, "notice_s": notice_s}, deliver=True)

    def snapshot_taken(self, generation: int, step: int) -> None:
        """Says that this host's memory holds the whole state after `step` steps."""
        self._send({"type": "snapshot", "generation": generation, "step": step})

    def checkpoint_durable(self, generation: int, step: int) -> None:
        """Says that the whole state after `step` steps is on durable storage."""
        self._send({"type": "checkpoint", "generation": generation, "step": step})

    def damage_found(self, generation: int, step: int, suspects: Sequence[str], is_proven: bool, what: str) -> None:
        """Says that other members compute something else than they must; see `DamageFound`."""
        found = {"suspects": list(suspects), "is_proven": is_proven, "what": what}
        self._send({"type": "damage", "generation": generation, "step": step, **found})

    def accuse(self, generation: int, accused: str, what: str) -> None:
        """Says that wrong data came from another member of a generation, and that this worker waits for the next one.

        Args:
            accused: The other member's name.
            what: Was wrong with the data, for a person.
        """
        self._send({"type": "accusation", "generation": generation, "accused": accused, "what": what[:_LONGEST_TEXT]})

    def failed(self, error: ErrorReport) -> None:
        """Says which exception ends this worker. When it returns, the agent gets it even if the process dies."""
        content = error.to_json()
        # The end of a traceback says what happened.
        content.update(message=error.message[:_LONGEST_TEXT], traceback=error.traceback[-_LONGEST_TEXT:])
        self._send({"type": "error", **content}, deliver=True)

    def completed(self, generation: int, step: int) -> None:
        """Says that the whole training is done. When it returns, the agent gets it even if the process dies."""
        self._send({"type": "completed", "generation": generation, "step": step}, deliver=True)

    def close(self) -> None:
        """Delivers what is not sent yet and ends the link, though not the process.

        What is reported later is dropped.
        """
        with self._lock:
            self._closing = True
        self._wake()
        self._thread.join(_DELIVERY_S)

    def _send(self, message: dict[str, Any], deliver: bool = False) -> None:
        delivered = threading.Event()
        with self._lock:
            if self._closing:
                return
            self._queue_newest()
            self._outgoing.append(message)
            if deliver:
                self._outgoing.append(delivered)
        self._wake()
        if deliver and threading.current_thread() is not self._thread:
            delivered.wait(_DELIVERY_S)

    def _heartbeat(self) -> dict[str, Any]:
        if self._own_part is None:
            return {"type": "heartbeat"}
        arrived, own_s = self._own_part
        return {"type": "heartbeat", "arrived": arrived, "own_s": own_s}

    def _queue_newest(self) -> None:
        if not self._newest_is_sent and self._newest is not None:
            self._outgoing.append(self._newest.message())
            self._newest_is_sent = True

    def _wake(self) -> None:
        # Under the lock, because a thread that was awake when the link was closed ends without this call, and closes
        # the sockets meanwhile.
        with self._lock, contextlib.suppress(BlockingIOError):  # it is awake, and has not even read the earlier calls
            if self._thread_runs:
                self._wake_up.send(b"\0")

    # Everything below runs on the link's thread.

    def _serve(self) -> None:
        reader = MessageReader()
        heartbeat_at = progress_at = time.monotonic()
        with selectors.DefaultSelector() as selector, self._connection, self._waker, self._wake_up:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._waker, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                with self._lock:
                    if now >= heartbeat_at:
                        self._outgoing.append(self._heartbeat())
                        heartbeat_at = now + self._heartbeat_s
                    if (now >= progress_at or self._closing) and not self._newest_is_sent:
                        self._queue_newest()
                        progress_at = now + self._progress_s
                    outgoing = list(self._outgoing)
                    self._outgoing.clear()
                    closing = self._closing
                    # Whoever reports next need not wake a thread that is about to look anyway.
                    self._sleeps = now >= progress_at
                self._write(outgoing)
                if closing:
                    with self._lock:
                        self._thread_runs = False
                    return
                wake_at = heartbeat_at if self._sleeps else min(heartbeat_at, progress_at)
                for key, _ in selector.select(max(0.0, wake_at - time.monotonic())):
                    if key.fileobj is self._waker:
                        self._waker.recv(4096)
                    else:
                        self._read(reader)

    def _write(self, outgoing: list[dict[str, Any] | threading.Event]) -> None:
        try:
            self._connection.sendall(b"".join(encode(item) for item in outgoing if isinstance(item, dict)))
        except OSError:
            _end_without_agent()
        for item in outgoing:
            if isinstance(item, threading.Event):
                item.set()

    def _read(self, reader: MessageReader) -> None:
        try:
            data = self._connection.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            _end_without_agent()
        for message in reader.feed(data):
            # An order that goes wrong must not cost the link, and with it the worker.
            try:
                if isinstance(message, BadMessage):
                    raise message
                self._obey(message)
            except Exception:
                traceback.print_exc(file=sys.stderr)

    def _obey(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "form":
                assignment = Assignment.from_json(message["assignment"])
                # Which devices this worker may use; whatever uses them reads it when it looks for them.
                os.environ.update(message.get("environment", {}))
                if self.on_form is not None:
                    self.on_form(assignment)
                with self._orders:
                    self._assignments.append(assignment)
                    self._orders.notify_all()
            case "stop":
                with self._orders:
                    self._stop_reason = self._stop_reason or message["reason"]
                    self._orders.notify_all()
                if self._on_stop is not None:
                    self._on_stop(message["reason"])
            case "profile":
                if self._on_profile is not None:
                    self._on_profile(message["steps"])
            case other:
                raise ValueError(f"the agent sent an order that this worker does not know: {other!r}")


def _end_without_agent() -> None:
    """Ends this process, and the processes that it has started when they are in a group of its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(AGENT_LOST)
