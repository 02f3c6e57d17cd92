"""Owns the worker processes of one host: starts them, hears them, ends them, and reports how each of them ended."""

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cluster.assignment import Assignment, ErrorReport
from cluster.guardian import Guardian
from cluster.message_lines import BadMessage
from cluster.supervisor.events import Event, HostDraining, HostLost, WorkerExited
from cluster.worker_environment import Share, WorkerProgram
from cluster.worker_output import Sink, WorkerOutput
from cluster.worker_process import WorkerProcess
from cluster.worker_reports import read_report

_log = logging.getLogger(__name__)
# How often ended processes are looked for where the kernel cannot tell of them.
_LOOK_S = 0.05
_CLOSE_S = 30.0


class Agent:
    """The agent of a host. One thread of its own does everything; the methods only leave orders for it.

    Orders for a worker that has ended do nothing: its `WorkerExited` is under way.

    Args:
        host: the host's name.
        program: what its workers run.
        logs: the folder of the workers' log files.
        on_event: gets every event, on the agent's thread, and must not block. A worker's last event is its
            `WorkerExited`, which comes once and after everything the worker has reported.
        shares: what each of the members that it runs at once may use. They have equal threads, which a worker is held
            to from its start; its devices it gets with its first assignment, and keeps.
        address: the host's own address, which its workers' peers reach.
        on_output: gets the lines that workers print, on the agent's thread, and must not block.
        folder: is removed when the agent ends, however that ends; None: nothing is.
        folder_stays_s: seconds that it stays after that for a successor.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        host: str,
        program: WorkerProgram,
        logs: Path,
        on_event: Callable[[Event], object],
        *,
        shares: Sequence[Share] = (Share(),),
        address: str = "127.0.0.1",
        on_output: Sink | None = None,
        folder: Path | None = None,
        folder_stays_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self._program, self._logs, self._address = program, logs, address
        self._on_event, self._on_output, self._clock = on_event, on_output, clock
        self._shares = tuple(shares)
        self._workers: dict[str, WorkerProcess] = {}
        self._orders: deque[Callable[[], object]] = deque()
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake_up = socket.socketpair()
        self._wake_up.setblocking(False)
        self._selector.register(self._waker, selectors.EVENT_READ, lambda _: self._waker.recv(4096))
        self._guardian = Guardian()
        if folder is not None:
            self._guardian.remove(folder)
            self.leave_folder(folder_stays_s)
        # Workers are started on this thread, and the kernel ends them with it.
        self._thread = threading.Thread(target=self._serve, name=f"agent of {host}", daemon=True)
        self._thread.start()

    def start(self, worker: str) -> None:
        """Starts a worker. One that cannot be started is reported as exited, with the reason."""
        self._order(partial(self._start, worker))

    def form(self, worker: str, assignment: Assignment) -> None:
        """Hands a worker its part in a generation."""
        self._order_worker(worker, lambda process: self._form(process, assignment))

    def stop(self, worker: str, reason: str) -> None:
        """Asks a worker to save its state and end."""
        self._order_worker(worker, lambda process: process.send({"type": "stop", "reason": reason}))

    def kill(self, worker: str, reason: str) -> None:
        """Ends a worker and all that it has started, at once."""
        self._order_worker(worker, lambda process: process.kill(reason))

    def dump_stacks(self, worker: str) -> None:
        """Has a worker write the stacks of all its threads to its log."""
        self._order_worker(worker, lambda process: process.dump_stacks())

    def profile(self, worker: str, steps: int) -> None:
        """Has a worker profile its next steps."""
        self._order_worker(worker, lambda process: process.send({"type": "profile", "steps": steps}))

    def drain(self, notice_s: float) -> None:
        """Says that this host has been given notice, such as by a signal to its agent."""
        self._order(lambda: self._on_event(HostDraining(self._clock(), self.host, notice_s)))

    def leave_folder(self, seconds: float) -> None:
        """Lets the folder stay for so long after the agent's end, for a successor to take over; 0: it goes with it."""
        self._guardian.leave_folders(seconds)

    def close(self) -> None:
        """Ends all workers, reports their ends, and ends the agent. A second call does nothing."""
        self._order(self._close)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            _log.error("the workers of %s do not end: %s", self.host, ", ".join(self._workers))

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _order(self, order: Callable[[], object]) -> None:
        self._orders.append(order)
        # Not a byte an order: it is awake when its socket is full, and gone when that is closed.
        with contextlib.suppress(OSError):
            self._wake_up.send(b"\0")

    def _order_worker(self, worker: str, order: Callable[[WorkerProcess], None]) -> None:
        def carry_out() -> None:
            process = self._workers.get(worker)
            if process is not None:
                order(process)
                self._watch_link(process)

        self._order(carry_out)

    # Everything below runs on the agent's thread.

    def _serve(self) -> None:
        try:
            while not (self._closing and not self._workers):
                for key, mask in self._selector.select(self._patience()):
                    # A worker whose end came first in this round has taken its other descriptors with it.
                    if key.fd in self._selector.get_map():
                        key.data(mask)
                while self._orders:
                    self._orders.popleft()()
                self._look_for_ended()
        except BaseException as error:
            # Without its agent the host is of no use, and what it ran has to end.
            with contextlib.suppress(Exception):
                self._on_event(HostLost(self._clock(), self.host, f"its agent failed: {error!r}"))
            raise
        finally:
            for process in self._workers.values():
                process.kill_group()
                process.reap()
                process.close()
            self._guardian.close()
            self._selector.close()
            self._waker.close()
            self._wake_up.close()

    def _patience(self) -> float | None:
        return _LOOK_S if any(process.ended is None for process in self._workers.values()) else None

    def _look_for_ended(self) -> None:
        """Does what the kernel does where it can tell of ended processes."""
        for process in list(self._workers.values()):
            if process.ended is None and process.has_ended:
                self._bury(process)

    def _start(self, worker: str) -> None:
        assert worker not in self._workers, f"worker {worker} runs already"
        if self._closing:
            return
        output = WorkerOutput(worker, self._logs, self._on_output)
        try:
            process = WorkerProcess(
                worker, self._program, output, host_address=self._address, limits=self._shares[0].at_start()
            )
        except OSError as error:
            output.note(f"cannot start {self._program.command[0]}: {error}")
            output.close()
            report = ErrorReport(type(error).__name__, f"cannot start a worker: {error}", "", 0, is_user_error=False)
            self._on_event(WorkerExited(self._clock(), worker, self.host, None, None, report))
            return
        self._guardian.guard(process.pid)
        self._workers[worker] = process
        self._selector.register(process.printed, selectors.EVENT_READ, partial(self._hear_output, process))
        self._selector.register(process.link, selectors.EVENT_READ, partial(self._hear_link, process))
        if process.ended is not None:
            self._selector.register(process.ended, selectors.EVENT_READ, lambda _: self._bury(process))

    def _form(self, process: WorkerProcess, assignment: Assignment) -> None:
        if process.share is None:
            taken = [other.share for other in self._workers.values() if not other.is_killed]
            process.share = min(range(len(self._shares)), key=taken.count)
        process.form(assignment, self._shares[process.share].as_member())

    def _hear_output(self, process: WorkerProcess, mask: int) -> None:
        if not process.read_output():
            self._selector.unregister(process.printed)

    def _hear_link(self, process: WorkerProcess, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            process.send_more()
        if mask & selectors.EVENT_READ:
            messages = process.read_messages()
            if messages is None:
                self._selector.unregister(process.link)
                return
            self._pass_on(process, messages)
        self._watch_link(process)

    def _watch_link(self, process: WorkerProcess) -> None:
        """Waits for the worker to read as long as orders wait for it."""
        watched = self._selector.get_map().get(process.link)
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if process.has_unsent else 0)
        if watched is not None and watched.events != mask:
            self._selector.modify(process.link, mask, watched.data)

    def _pass_on(self, process: WorkerProcess, messages: list[dict]) -> None:
        for message in messages:
            try:
                report = read_report(message, at=self._clock(), worker=process.name, host=self.host)
            except BadMessage as error:
                process.note(str(error))
                continue
            if isinstance(report, ErrorReport):
                process.error = report
            else:
                self._on_event(report)

    def _bury(self, process: WorkerProcess) -> None:
        """Ends what is left of a worker whose process has ended, and reports that end as the last of it."""
        process.kill_group()
        self._pass_on(process, process.read_left_messages())
        process.read_left_output()
        self._guardian.release(process.pid)
        code, signal = process.reap()
        for source in (process.printed, process.link, process.ended):
            if source is not None and source in self._selector.get_map():
                self._selector.unregister(source)
        del self._workers[process.name]
        process.close()
        self._on_event(WorkerExited(self._clock(), process.name, self.host, code, signal, process.error))

    def _close(self) -> None:
        self._closing = True
        for process in self._workers.values():
            process.kill("the run is over")
