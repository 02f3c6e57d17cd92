"""Workers of a work list as processes of this machine, which end with the process that started them."""

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Hashable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from cluster.parent_death import die_with_parent
from cluster.work_list import Died, Failed, Finished, Outcome

_WAIT_S = 0.5
_END_S = 5.0


class LocalCrew:
    """A process for each worker.

    Args:
        function: Carries out an order and returns a result; importable, since the processes import it. It must be
            called by a thread that lives as long as the crew.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        # A fresh interpreter: forking one with threads, as most have, can leave a lock held for ever.
        self._processes = multiprocessing.get_context("spawn")
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}

    @property
    def pids(self) -> list[int]:
        """Of the workers that live."""
        return [process.pid for process, _ in self._workers.values() if process.pid]

    def hire(self) -> Hashable:
        """Starts a process; its pid is its name."""
        ours, theirs = self._processes.Pipe()
        process = self._processes.Process(target=_serve, args=(self._function, theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        assert process.pid is not None, "it was started"
        self._workers[process.pid] = (process, ours)
        return process.pid

    def give(self, worker: Hashable, order: Any) -> None:
        """Sends an order. That the process is gone is for `wait` to say."""
        with contextlib.suppress(OSError):
            self._workers[_pid(worker)][1].send(order)

    def wait(self) -> list[Outcome]:
        """Waits for an answer or a death, or for a moment."""
        by_connection: dict[Any, int] = {connection: pid for pid, (_, connection) in self._workers.items()}
        return [self._outcome(by_connection[one]) for one in wait(list(by_connection), _WAIT_S) if one in by_connection]

    def close(self) -> None:
        """Ends all workers, whatever they are at."""
        for process, connection in self._workers.values():
            connection.close()
            process.kill()
        for process, _ in self._workers.values():
            process.join(_END_S)
        self._workers.clear()

    def _outcome(self, pid: int) -> Outcome:
        process, connection = self._workers[pid]
        try:
            # The end of the pipe is seen only after all that was sent: an answer before a death counts.
            done, answer = connection.recv()
        except (EOFError, OSError):
            del self._workers[pid]
            connection.close()
            process.join()
            return Died(pid, _how(process.exitcode))
        return Finished(pid, answer) if done else Failed(pid, answer)


def _pid(worker: Hashable) -> int:
    assert isinstance(worker, int), "hire names workers by their pids"
    return worker


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"it was killed by signal {-code}"
    return f"it ended with exit code {code}"


def _serve(function: Callable[[Any], Any], connection: Connection, parent: int) -> None:
    """Carries out orders until the connection ends."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has started this one
    while True:
        try:
            order = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, function(order))
        except Exception as error:
            answer = (False, _sendable(error))
        connection.send(answer)


def _sendable(error: Exception) -> Exception:
    """The error, or one with its text where it cannot pass between processes."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
