"""How fast samples come, by source, beside the machine's own limit, tf.data as commonly written, and Grain.

python -m benchmarks.input [--quick] [--json FILE]

Each source is made for the run: JPEG photographs in TFRecord shards and as files, arrays in memory, a CSV table, and
small images that are augmented. Contenders take turns in one process, in an order that rotates; each begins anew in
every turn and is measured after its first batches. A ratio is the median of the ratios of the rounds.

- "limit": the least that has to be done, by TensorFlow's kernels on all cores at once and with nothing around it: the
  bytes read and the JPEGs decoded, the rows gathered, the changes made.
- "tf.data": what tutorials write, with AUTOTUNE where they have it. Its buffer shuffles; it cannot go on where it was.
- "grain": a random-access source, PIL or NumPy for a sample, threads as its documentation says; left out where Grain is
  not installed.

Then the wait: a consumer that takes 8,000 images a second, as a modern accelerator does, is fed by the training's own
hand-over: without a service, and with so many service workers. One source decodes, which takes processors; the other
one waits for its storage, which does not.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.input_service import measure_waits
from benchmarks.input_sources import SOURCES, Workload, make_files
from benchmarks.machine import describe_machine, print_machine, target_line, write_result

PHALANX, LIMIT = "phalanx", "limit"


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        images: Photographs to make.
        rounds: Turns of each contender.
        turn_s: Seconds of a turn.
        service_workers: Numbers of service workers to measure the wait with.
        wait_s: Seconds for each of them.
    """

    images: int
    rounds: int
    turn_s: float
    service_workers: tuple[int, ...]
    wait_s: float


FULL = Effort(images=600, rounds=4, turn_s=1.5, service_workers=(0, 1, 2, 4), wait_s=5.0)
QUICK = Effort(images=160, rounds=2, turn_s=0.4, service_workers=(0, 1), wait_s=2.0)


def samples_per_s(begin: Callable[[], Iterator[int]], turn_s: float) -> float:
    """Samples a second of an iterator over the sizes of batches, once it is under way."""
    batches = begin()
    for _ in range(3):
        next(batches)
    started, count = time.perf_counter(), 0
    while (taken_s := time.perf_counter() - started) < turn_s or not count:
        count += next(batches)
    del batches
    gc.collect()
    return count / taken_s


def measure(workload: Workload, effort: Effort) -> dict[str, list[float]]:
    """Samples a second of each contender and round."""
    contenders = dict(workload.contenders)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(effort.rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            rate = samples_per_s(contenders[name], effort.turn_s if number else min(0.3, effort.turn_s))
            if number:  # the first turn traces and fills caches
                rates[name].append(rate)
    return rates


def ratio(rates: dict[str, list[float]], other: str) -> float:
    """How many times as fast Phalanx is, by the median of the rounds."""
    return statistics.median(a / b for a, b in zip(rates[PHALANX], rates[other], strict=True))


def best_peer(rates: dict[str, list[float]]) -> str:
    """The contender other than Phalanx and the limit with the highest median."""
    peers = [name for name in rates if name not in (PHALANX, LIMIT)]
    return max(peers, key=lambda name: statistics.median(rates[name]))


def targets_of(figures: dict[str, Any]) -> list[str]:
    """One line a target."""
    targets = []
    for name, rates in figures["samples_per_s"].items():
        targets.append(target_line(f"{name}_of_limit", ratio(rates, LIMIT), ">=0.9"))
        targets.append(target_line(f"{name}_of_best_peer", ratio(rates, best_peer(rates)), ">=1.0"))
    waiting = figures["wait"]["waits for storage"]
    without, most = waiting[0], waiting[-1]
    targets.append(target_line("service_speedup_waiting", most["images_per_s"] / without["images_per_s"], ">=1.5"))
    return targets


def print_table(figures: dict[str, Any]) -> None:
    """Both tables."""
    print(f"\n{'samples/s':<16}{'phalanx':>12}{'limit':>12}{'of limit':>10}   peers (of them)")
    for name, rates in figures["samples_per_s"].items():
        medians = {contender: statistics.median(values) for contender, values in rates.items()}
        peers = [
            f"{peer} {value:,.0f} ({ratio(rates, peer):.2f})"
            for peer, value in medians.items()
            if peer not in (PHALANX, LIMIT)
        ]
        print(
            f"  {name:<14}{medians[PHALANX]:>12,.0f}{medians[LIMIT]:>12,.0f}{ratio(rates, LIMIT):>10.2f}   "
            f"{', '.join(peers)}"
        )
    for source, rows in figures["wait"].items():
        print(f"\n{source}: {'service workers':<18}{'images/s':>12}{'data wait':>12}")
        for row in rows:
            print(f"{'':<{len(source) + 2}}{row['workers']:<18}{row['images_per_s']:>12,.0f}{row['data_wait']:>12.1%}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    effort = QUICK if options.quick else FULL
    machine = describe_machine(["python", "-m", "benchmarks.input", *(arguments or sys.argv[1:])])
    print_machine(machine)
    with tempfile.TemporaryDirectory(prefix="phalanx-input-") as folder:
        files = make_files(Path(folder), effort.images)
        rates = {name: measure(make(files), effort) for name, make in SOURCES.items()}
        wait = measure_waits(files, effort.service_workers, effort.wait_s)
    figures = {"effort": vars(effort), "samples_per_s": rates, "wait": wait}
    print_table(figures)
    targets = targets_of(figures)
    print("", *targets, sep="\n")
    if options.json:
        write_result(options.json, machine, figures, targets)


if __name__ == "__main__":
    main()
