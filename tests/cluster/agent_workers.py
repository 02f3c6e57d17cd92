"""Tiny worker programs, and a recorder of what their agent reports."""

import os
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cluster.assignment import Assignment, Member
from cluster.process import identity_of
from cluster.supervisor.events import Event, Heartbeat, WorkerExited
from cluster.worker_environment import WorkerProgram, python_program

ROOT = Path(__file__).parents[2]
LIMIT_S = 60  # for what never comes
Kind = TypeVar("Kind")

PREAMBLE = """
import os, signal, subprocess, sys, threading, time
from cluster.assignment import ErrorReport
from cluster.worker_link import WorkerLink
stop = threading.Event()
link = WorkerLink.from_environment(on_stop=lambda reason: stop.set())
"""
# Parts of scripts: a standby that becomes a member; one that ends when asked; a worker that says its pid.
WAIT = """
link.ready("127.0.0.1:4711")
given = link.wait_for_assignment()
"""
OBEY = WAIT + "stop.wait()"
SAY_PID = "print(os.getpid(), file=open(os.environ['FOLDER'] + '/pid', 'w'), flush=True)"


def program(*parts: str, **environment: str) -> WorkerProgram:
    """A worker that opens its link as `link` and then runs the parts of a script, each indented as it likes."""
    script = "\n".join([PREAMBLE, *map(textwrap.dedent, parts)])
    return python_program("-c", script, environment={"PYTHONPATH": str(ROOT), **environment})


def assignment(worker: str, generation: int = 1, rank: int = 0) -> Assignment:
    """A part in a generation that has no other members of interest."""
    members = tuple(Member(worker if r == rank else f"peer{r}", "a", r, "127.0.0.1:1") for r in range(rank + 1))
    return Assignment(generation, rank, members, restore=None)


class Recorder:
    """Keeps the events of agents, without the signs of life."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.heartbeats = 0
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            if isinstance(event, Heartbeat):
                self.heartbeats += 1
            else:
                self.events.append(event)
            self._changed.notify_all()

    def wait(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, LIMIT_S), self.events

    def of(self, kind: type[Kind], worker: str | None = None) -> list[Kind]:
        return [e for e in self.events if isinstance(e, kind) and worker in (None, getattr(e, "worker", None))]

    def first(self, kind: type[Kind], worker: str | None = None) -> Kind:
        """Waits for an event of this kind."""
        self.wait(lambda: self.of(kind, worker))
        return self.of(kind, worker)[0]

    def exit_of(self, worker: str) -> WorkerExited:
        return self.first(WorkerExited, worker)


def wait_until(condition: Callable[[], object]) -> None:
    """Waits for something that cannot notify."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    return identity_of(pid) is not None


def read(path: Path) -> str:
    """A file that may not be there yet."""
    return path.read_text() if path.exists() else ""


def pid_in(path: Path) -> int:
    """Waits until a worker has written a pid and a line's end into a file."""
    wait_until(lambda: read(path).endswith("\n"))
    return int(path.read_text())


def children() -> list[int]:
    """The pids of what this process runs, agents' guardians included."""
    own = str(os.getpid())
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        text = read_if_there(stat)
        fields = text[text.rindex(")") + 2 :].split() if text else []
        if fields and fields[1] == own:
            found.append(int(stat.parent.name))
    return found


def read_if_there(path: Path) -> str:
    """A file of a process that may end meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return ""
