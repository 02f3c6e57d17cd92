"""Random faults for a run on a Ray cluster of this machine, and how long the run took to notice and to go on."""

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.run_lock import KEEPING, TRAINING, read_holder
from launch.detached.record import read_record
from tests.cluster.ray_nodes import RayNodes
from tests.conftest import SmallDisk
from tests.launch.supervised_runs import last_step
from trainer.checkpoint.format import WRITING
from trainer.observe.tail import Tail

FAULTS = (
    "worker killed",
    "standby killed",
    "agent killed",
    "node killed",
    "worker stopped",
    "agent stopped",
    "worker killed during a checkpoint",
    "worker killed during a recovery",
    "supervisor killed",
    "keeper killed",
    "disk full",
)
_NOTICES = ("worker_exited", "host_lost", "supervisor_started")
_RECOVERS_S = 180.0
_REFUSED = "No space left"
_SAID_S = 10.0


@dataclass(frozen=True)
class Recovery:
    """What one fault cost, in seconds from it on.

    Attributes:
        fault: which.
        noticed_s: until the supervisor knew; of a killed supervisor: until its last worker had ended; of a full disk:
            until the run had said so.
        formed_s: until the next generation was formed.
        resumed_s: until its chief had the state again.
        stepped_s: until it had taken a step; of a full disk: from free space on, until one was recorded.
    """

    fault: str
    noticed_s: float | None
    formed_s: float | None = None
    resumed_s: float | None = None
    stepped_s: float | None = None


class Faults:
    """Strikes a detached run under way.

    Args:
        run: the run folder.
        nodes: the cluster; a node that is killed is replaced.
        disk: which the run folder is on; None where it cannot be filled up.
        rng: decides.
    """

    def __init__(self, run: Path, nodes: RayNodes, disk: SmallDisk | None, rng: random.Random) -> None:
        self._run, self._nodes, self._disk, self._rng = run, nodes, disk, rng
        # A long run's journal is not read from its beginning again and again.
        self._journal = Tail(run / "journal.jsonl")
        self._since: list[dict[str, Any]] = []

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        record = read_record(self._run)
        return record is not None and record.exit_code is not None

    def wait_for_steps(self, steps: int) -> bool:
        """Waits until the run has logged so many more steps; returns whether it has."""
        target = self.step() + steps
        return self._wait(lambda: self.step() >= target)

    def strike(self, fault: str) -> Recovery | None:
        """Strikes, and waits until the run goes on; None where there was nothing to strike."""
        if "checkpoint" in fault and not self._wait(lambda: any(self._run.glob(f"checkpoints/{WRITING}*"))):
            return None
        if fault == "disk full":
            return self._fill_disk()
        self._journal.read()
        self._since = []
        members, standbys = self._workers()
        if not members or (fault == "standby killed" and not standbys):
            return None
        victim = self._rng.choice(standbys if fault == "standby killed" else members)
        began = time.time()
        try:
            match fault.split():
                case "supervisor" | "keeper" as which, *_:
                    holder = read_holder(self._run, KEEPING if which == "keeper" else TRAINING)
                    if holder is None:
                        return None
                    os.kill(holder.process.pid, signal.SIGKILL)
                case "agent", done, *_:
                    victim.parent().send_signal(signal.SIGKILL if done == "killed" else signal.SIGSTOP)
                case "node", *_:
                    raylet = victim.parent().parent().pid
                    self._nodes.kill(next(node for node in self._nodes.alive() if self._nodes.raylet(node) == raylet))
                case _:
                    victim.send_signal(signal.SIGSTOP if "stopped" in fault else signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError, AttributeError, StopIteration):
            return None
        if "recovery" in fault:
            self._wait(lambda: self._first(began, "worker_exited", "host_lost"))
            for worker in self._workers()[1][:1]:
                worker.kill()
        if fault == "standby killed":
            self._wait(lambda: self._first(began, "worker_exited", "host_lost"))
            noticed = self._first(began, "worker_exited", "host_lost")
            return None if noticed is None else Recovery(fault, noticed)
        self._wait(lambda: self._stepped(began))
        if fault == "node killed":
            self._nodes.add()
        noticed = self._first(began, *_NOTICES)
        if noticed is None:
            return None
        formed = self._first(began, "form")
        return Recovery(fault, noticed, formed, self._first(began, "resumed"), self._stepped(began))

    def _fill_disk(self) -> Recovery | None:
        if self._disk is None:
            return None
        output = self._run / "logs" / "launcher.log"
        said, began = output.read_text().count(_REFUSED), time.time()
        self._disk.fill()
        noticed = None
        # Each process says it once of each file.
        while noticed is None and time.time() - began < _SAID_S:
            assert not self.is_over, output.read_text()[-3000:]
            if output.read_text().count(_REFUSED) > said:
                noticed = time.time() - began
            time.sleep(0.01)
        self._disk.free()
        free, step = time.time(), self.step()
        self._wait(lambda: self.step() > step)
        return Recovery("disk full", noticed, stepped_s=time.time() - free)

    def _workers(self) -> tuple[list[psutil.Process], list[psutil.Process]]:
        """The members of the newest generation and the standbys. A member has written its pid to its log."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "launch.worker" in command and str(self._run) in command:
                found.append(process)
        generations = sorted((int(path.name) for path in (self._run / "logs").glob("[0-9]*")), reverse=True)
        logs = (self._run / "logs" / str(generations[0])).glob("*.log") if generations else ()
        pids = {_pid_in(path) for path in logs}
        return [one for one in found if one.pid in pids], [one for one in found if one.pid not in pids]

    def _first(self, began: float, *names: str) -> float | None:
        for event in self._struck():
            name = event["command"] if event["event"] == "command" else event["event"]
            if event["time"] >= began and name in names:
                return event["time"] - began
        return None

    def _stepped(self, began: float) -> float | None:
        """When a generation that was formed after the fault took its first step."""
        formed: set[int] = set()
        for event in self._struck():
            if event["event"] == "command" and event["command"] == "form":
                formed.add(event["assignment"]["generation"])
            elif event["event"] == "progressed" and event["generation"] in formed and event["phase"] == "step":
                return event["time"] - began
        return None

    def _struck(self) -> list[dict[str, Any]]:
        """What the journal has said since the strike."""
        self._since += self._journal.read()
        return self._since

    def step(self) -> int:
        """The newest step that is logged."""
        return last_step(self._run)

    def _wait(self, condition: Callable[[], object]) -> bool:
        deadline = time.monotonic() + _RECOVERS_S
        while not condition():
            if self.is_over:
                return False
            assert time.monotonic() < deadline, f"the run does not go on, step {self.step()}"
            time.sleep(0.01)
        return True


def table(recoveries: Iterable[Recovery]) -> str:
    """Medians by fault, as Markdown."""
    recoveries = list(recoveries)
    rows = [
        "| fault | times | noticed | formed | resumed | next step | longest |",
        "|---|---|---|---|---|---|---|",
    ]
    for fault in FAULTS:
        those = [one for one in recoveries if one.fault == fault]
        if those:
            columns = [
                [one.noticed_s for one in those],
                [one.formed_s for one in those],
                [one.resumed_s for one in those],
                [one.stepped_s for one in those],
            ]
            longest = max(value for column in columns for value in column if value is not None)
            rows.append(f"| {fault} | {len(those)} | {' | '.join(map(_median, columns))} | {longest:.2f} |")
    return "\n".join(rows)


def _median(values: list) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.3f}" if known else "-"


def _pid_in(path: Path) -> int | None:
    text = path.read_text(errors="replace")
    marked = [line for line in text.splitlines() if line.startswith("[phalanx] worker ") and ", process " in line]
    return int(marked[-1].split(", process ")[1].split(",")[0]) if marked else None


def hardware() -> str:
    """The machine, in words."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
