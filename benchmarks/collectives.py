"""How long an all-reduce of float32 takes between processes of one machine, from 1 kB to 400 MB.

python -m benchmarks.collectives [--quick] [--json FILE] [--members 2,4] [--rounds N]

The process group of the elastic strategy through shared memory and through TCP; MultiWorkerMirrored's RING; Gloo, which
JAX brings along for processors; and two limits: every member copies as many bytes in memory at the same time, and a
plain loopback socket from each member to the next one, in both directions at once, carries what the best algorithm has
to send, 2 (n - 1) / n of the bytes. RING and Gloo do many all-reduces in one call of a compiled function, so that the
call does not count. They take turns, one group working at a time, in an order that rotates; a figure is the median over
the rounds, a ratio the median of the ratios of the rounds. Horovod is not compared: it is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from benchmarks.single_turns import Contender
from cluster.worker_environment import divide

SHARED, TCP, RING, GLOO, MEMCPY, SOCKET = "shared", "tcp", "ring", "gloo", "memcpy", "socket"
KINDS = (SHARED, TCP, RING, GLOO, MEMCPY, SOCKET)
_OTHERS = (RING, GLOO)
SIZES = (1_000, 16_000, 256_000, 1_000_000, 16_000_000, 100_000_000, 400_000_000)
QUICK_SIZES = (1_000, 256_000, 16_000_000)
_COPIES = 5  # of the numbers that a member of a contender holds at most
_LARGE = 1_000_000  # bytes from which the limits are targets
_LONG = 100_000_000  # bytes from which a turn takes seconds, and there are three at most
_TURN_BYTES = 200_000_000
_MOST_TIMES = 500

Figures = dict[int, dict[str, list[float]]]
"""Seconds of one all-reduce in each round, by bytes and kind."""


def measure(num_members: int, sizes: Sequence[int], rounds: int) -> Figures:
    """The figures of groups of so many members."""
    with tempfile.TemporaryDirectory(dir=_memory()) as place, contextlib.ExitStack() as stack:
        environment = {**os.environ, **divide(num_members, os.cpu_count())[0].at_start()}
        groups: dict[str, list[Contender]] = {}
        for kind in KINDS:
            folder = Path(place) / kind
            folder.mkdir()
            command = [sys.executable, "-m", "benchmarks.collectives_worker", kind]
            groups[kind] = [
                stack.enter_context(
                    Contender(
                        f"{kind} {rank}",
                        [*command, str(rank), str(num_members), str(folder)],
                        folder / f"{rank}.log",
                        environment,
                    )
                )
                for rank in range(num_members)
            ]
        for members in groups.values():
            for member in members:
                member.warmed_up()
        figures: Figures = {}
        for size in sizes:
            needed = _COPIES * size * num_members
            if needed > psutil.virtual_memory().available:
                print(f"{size / 1e6:g} MB with {num_members} members left out: needs {needed / 1e9:.0f} GB of memory")
                continue
            figures[size] = {kind: [] for kind in KINDS}
            for number in range(rounds if size < _LONG else min(rounds, 3)):
                first = number % len(KINDS)
                for kind in (*KINDS[first:], *KINDS[:first]):
                    figures[size][kind].append(_turn(groups[kind], size, kind))
        return figures


def _turn(members: Sequence[Contender], size: int, kind: str) -> float:
    # What a socket has to carry in each direction.
    num_bytes = 2 * (len(members) - 1) * size // len(members) if kind == SOCKET else size
    times = max(1, min(_MOST_TIMES, _TURN_BYTES // size))
    for member in members:
        member.tell(f"{num_bytes // 4 * 4} {times}")
    return max([member.warmed_up()["seconds"] for member in members])


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def ratio(seconds: Mapping[str, Sequence[float]], one: str, others: Sequence[str]) -> float:
    """How often the time of one goes into that of the quickest of others."""
    quickest = [min(theirs) for theirs in zip(*(seconds[other] for other in others), strict=True)]
    return median([theirs / ours for ours, theirs in zip(seconds[one], quickest, strict=True)])


def targets_of(results: Mapping[int, Figures]) -> list[str]:
    """One line a target: the worst size counts."""
    lines = []
    for num_members, figures in results.items():
        n = f"{num_members}_members"
        large = [seconds for size, seconds in figures.items() if size >= _LARGE]
        for kind, limit in ((SHARED, MEMCPY), (TCP, SOCKET)):
            worst = min(ratio(seconds, kind, _OTHERS) for seconds in figures.values())
            lines.append(target_line(f"{kind}_vs_best_{n}", worst, ">=1.0"))
            if large:
                worst = min(ratio(seconds, kind, [limit]) for seconds in large)
                lines.append(target_line(f"{kind}_vs_{limit}_{n}", worst, ">=0.5"))
    return lines


def table_of(num_members: int, figures: Figures) -> str:
    """The medians as people read them."""
    lines = [f"milliseconds, {num_members} members" + "".join(f"{kind:>12}" for kind in KINDS)]
    for size, seconds in figures.items():
        cells = "".join(f"{1e3 * median(seconds[kind]):>12.3f}" for kind in KINDS)
        lines.append(f"  {size / 1000:>16,.0f} kB   {cells}")
        ratios = [
            f"{kind} {ratio(seconds, kind, _OTHERS):.2f} of the best, {ratio(seconds, kind, [limit]):.2f} of {limit}"
            for kind, limit in ((SHARED, MEMCPY), (TCP, SOCKET))
        ]
        lines.append(f"{'':24}{'; '.join(ratios)}")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: three sizes, two members")
    parser.add_argument("--json", type=Path, help="result file to write")
    parser.add_argument("--members", default="2,3,4", help="sizes of the groups")
    parser.add_argument("--sizes", help="bytes, instead of all: 1000,256000")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    arguments = parser.parse_args()
    groups = [2] if arguments.quick else [int(number) for number in arguments.members.split(",")]
    if any(number < 2 for number in groups):
        parser.error(f"--members={arguments.members} must be numbers of at least 2: one process has nobody to add to")

    sizes = QUICK_SIZES if arguments.quick else SIZES
    if arguments.sizes:
        sizes = [int(size) for size in arguments.sizes.split(",")]
    machine = describe_machine(["python", "-m", "benchmarks.collectives", *sys.argv[1:]])
    print_machine(machine)
    results: dict[int, Figures] = {}
    for number in groups:
        results[number] = measure(number, sizes, arguments.rounds)
        print("\n" + table_of(number, results[number]), flush=True)
        if arguments.json:
            kept: dict[str, Any] = {str(number): figures for number, figures in results.items()}
            write_result(arguments.json, machine, kept, targets_of(results))
    print("\n" + "\n".join(targets_of(results)))


if __name__ == "__main__":
    main()
