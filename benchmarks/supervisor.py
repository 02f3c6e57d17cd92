"""What the supervisor costs on one core with 10,000 hosts, each worker with one heartbeat a second.

python -m benchmarks.supervisor [--quick] [--json FILE] [--hosts 10000]

The parts: processor seconds of one event of each kind and of one tick. The whole: one second's heartbeats and reports
of progress after the other go through the coalescing, the supervisor and the journal on a disk, as in a run, in virtual
time; the share of a core is the processor time over that time. What a network costs to receive them is left out. The
recovery: a host is lost, all members are killed, their exits and the standbys' readiness are taken in, and the next
generation is formed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from cluster.event_coalescing import Coalescing
from cluster.simulation.supervisor_load import measure_load, training_supervisor
from cluster.supervisor.commands import Command, Form, Kill, StartWorker
from cluster.supervisor.events import (
    Event,
    Heartbeat,
    HostJoined,
    HostLost,
    Progressed,
    Ticked,
    WorkerExited,
    WorkerReady,
)
from cluster.supervisor.records import to_record
from cluster.supervisor.settings import Settings, Sizes
from cluster.supervisor.supervisor import Supervisor
from trainer.observe.journal import Journal

QUIET_TICK_S = 2.0


def whole(hosts: int, seconds: int, folder: Path) -> dict[str, float]:
    """A stretch of steady training.

    Args:
        hosts: with one worker each, which sends a heartbeat and a report of steps each second.
        seconds: of virtual time.
        folder: where the journal is written.

    Returns:
        `cpu` (share of a core), `events_per_s` that one core could take, `journal_bytes_per_s`.
    """
    supervisor = training_supervisor(hosts)
    workers, journal, coalescing = list(supervisor.workers), Journal(folder / "journal.jsonl"), Coalescing()
    handled = 0

    def take(events: Sequence[Event]) -> None:
        nonlocal handled
        for event in events:
            handled += 1
            journal.write(**to_record(event))
            for command in supervisor.handle(event):
                journal.write(**to_record(command))

    began, arrived = time.process_time(), 0
    for second in range(seconds):
        at = 10.0 + second
        for worker in workers:
            take(coalescing.add(Heartbeat(at, worker)))
            take(coalescing.add(Progressed(at, worker, 1, 5 * second, "step")))
        arrived += 2 * len(workers)
        if second % int(QUIET_TICK_S) == 1:
            take(coalescing.add(Ticked(at)))
    took_s = time.process_time() - began
    journal.close()
    return {
        "cpu": took_s / seconds,
        "events_per_s": arrived / took_s,
        "handled_per_s": handled / seconds,
        "journal_bytes_per_s": journal.path.stat().st_size / seconds,
    }


def recovery(hosts: int) -> dict[str, float]:
    """The processor time from the loss of a host to the orders that form the next generation, standbys for all."""
    supervisor = Supervisor(Settings(sizes=Sizes(min=hosts, max=hosts), standbys=hosts))
    place: dict[str, str] = {}
    longest_s = 0.0

    def take(event: Event) -> list[Command]:
        nonlocal longest_s
        began = time.process_time()
        commands = supervisor.handle(event)
        longest_s = max(longest_s, time.process_time() - began)
        return commands

    def obey(commands: Sequence[Command], at: float) -> bool:
        """Whether a generation was formed on the way."""
        formed = False
        waiting = list(commands)
        while waiting:
            following: list[Command] = []
            for command in waiting:
                if isinstance(command, StartWorker):
                    place[command.worker] = command.host
                    following += take(WorkerReady(at, command.worker, command.host, f"{command.host}:4711"))
                elif isinstance(command, Kill) and command.worker in place:
                    host = place.pop(command.worker)
                    following += take(WorkerExited(at, command.worker, host, None, 9, None))
                formed |= isinstance(command, Form)
            waiting = following
        return formed

    for number in range(hosts + 1):  # one to spare
        supervisor.handle(HostJoined(0.0, f"h{number}", 1))
    assert obey(supervisor.handle(Ticked(0.0)), 1.0)
    lost = supervisor.workers["w1"]
    for worker in [worker for worker, host in place.items() if host == lost]:
        del place[worker]
    longest_s, began = 0.0, time.process_time()
    formed = obey(take(HostLost(5.0, lost, "it does not answer")), 5.0)
    formed |= obey(take(Ticked(5.05)), 5.1)
    formed |= obey(take(Ticked(6.0)), 6.0)
    assert formed, f"no generation was formed: {supervisor.state}"
    return {"recovery_s": time.process_time() - began, "longest_event_s": longest_s}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds, under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument("--hosts", type=int, default=10_000)
    chosen = parser.parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    machine = describe_machine(["python", "-m", "benchmarks.supervisor", *given])
    print_machine(machine)
    parts = asdict(measure_load(chosen.hosts, rounds=3 if chosen.quick else 15))
    with tempfile.TemporaryDirectory() as folder:
        steady = whole(chosen.hosts, 10 if chosen.quick else 60, Path(folder))
    recovered = recovery(chosen.hosts)
    figures: dict[str, Any] = {"hosts": chosen.hosts, "parts": parts, "steady": steady, "recovery": recovered}
    print(f"\n{chosen.hosts} hosts, one worker each")
    for title, value, unit in [
        ("heartbeat", parts["heartbeat_s"] * 1e6, "us"),
        ("progress", parts["progress_s"] * 1e6, "us"),
        ("snapshot", parts["snapshot_s"] * 1e6, "us"),
        ("tick", parts["tick_s"] * 1e3, "ms"),
        ("journal line", parts["journal_s"] * 1e6, "us"),
        ("all of it, share of one core", steady["cpu"], ""),
        ("arriving events one core takes", steady["events_per_s"], "1/s"),
        ("journal", steady["journal_bytes_per_s"] / 1e3, "kB/s"),
        ("recovery, a host lost to the next orders", recovered["recovery_s"], "s of processor"),
        ("  its longest event", recovered["longest_event_s"], "s"),
    ]:
        print(f"  {title:44s} {value:12,.3f} {unit}")
    targets = [
        target_line("supervisor_cpu_share", steady["cpu"], "<1.0"),
        target_line("supervisor_events_per_s", steady["events_per_s"], f">={2 * chosen.hosts}"),
    ]
    print("\n" + "\n".join(targets))
    if chosen.json:
        write_result(chosen.json, machine, figures, targets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
