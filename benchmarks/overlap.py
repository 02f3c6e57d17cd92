"""What it saves to add gradients up beside the backward pass, with two workers on two hosts that this machine plays.

python -m benchmarks.overlap [--json FILE] [--models small,large] [--rates 1,10,0] [--rounds N] [--turn SECONDS]

Two workers, one processor each, whose sockets send no faster than the rates given, in Gbit/s (0: as loopback does).
Contenders with `elastic.overlap=always` and `never` take turns, in an order that changes; so do steps of which nothing
is exchanged (compute) and exchanges without a step, as many numbers as a step has. A figure is the median over the
rounds, a ratio the median of the ratios of the rounds. `hidden` is the share of what could be hidden at best, the
shorter one of compute and exchange, that is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import describe_machine, print_machine, write_result
from benchmarks.overlap_worker import COMPUTE, EXCHANGE, MODELS, NUM_WORKERS, STEPS, STEPS_PER_CALL
from benchmarks.single_turns import Contender
from cluster.worker_environment import divide

BESIDE, AFTER = "always", "never"
_NAMES = {
    (BESIDE, STEPS): "beside",
    (AFTER, STEPS): "after",
    (AFTER, COMPUTE): "compute",
    (AFTER, EXCHANGE): "exchange",
}
TURNS = tuple(_NAMES)

Figures = dict[str, list[float]]
"""Seconds of one step in each round."""


class Pair:
    """The two workers of one contender; they start at once and warm up."""

    def __init__(self, model: str, overlap: str, folder: Path, stack: contextlib.ExitStack) -> None:
        folder.mkdir()
        command = [sys.executable, "-m", "benchmarks.overlap_worker", model, overlap]
        environment = {**os.environ, **divide(NUM_WORKERS, os.cpu_count())[0].at_start()}
        self._workers = [
            stack.enter_context(
                Contender(f"{overlap} {rank}", [*command, str(rank), str(folder)], folder / f"{rank}.log", environment)
            )
            for rank in range(NUM_WORKERS)
        ]

    def warmed_up(self) -> float:
        """Waits for the answers; the seconds of one step of the slower worker."""
        return max([worker.warmed_up()["seconds"] for worker in self._workers])

    def turn(self, what: str, number: int, rate: int) -> float:
        """Seconds of each of so many, at a rate in bytes a second."""
        for worker in self._workers:
            worker.tell(json.dumps({"what": what, "number": number, "rate": rate}))
        return self.warmed_up()


def measure(model: str, rates: Sequence[float], rounds: int, turn_s: float) -> dict[str, Figures]:
    """The figures at each rate, in Gbit/s."""
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        pairs = {overlap: Pair(model, overlap, Path(folder) / overlap, stack) for overlap in (BESIDE, AFTER)}
        for pair in pairs.values():
            pair.warmed_up()
        for gigabits in rates:
            rate = round(gigabits * 1e9 / 8)
            slowest = pairs[AFTER].turn(STEPS, STEPS_PER_CALL, rate)
            number = max(1, round(turn_s / slowest / STEPS_PER_CALL)) * STEPS_PER_CALL
            figures: Figures = {name: [] for name in _NAMES.values()}
            for start in range(rounds):
                order = [*TURNS[start % len(TURNS) :], *TURNS[: start % len(TURNS)]]
                for overlap, what in order:
                    figures[_NAMES[overlap, what]].append(pairs[overlap].turn(what, number, rate))
            found[f"{gigabits:g}"] = figures
    return found


def ratio(figures: Figures, one: str, other: str) -> float:
    """The median of the ratios of the rounds."""
    return median([a / b for a, b in zip(figures[one], figures[other], strict=True)])


def hidden(figures: Figures) -> float:
    """Which share of the shorter one of compute and exchange costs no time any more."""
    return median(
        [
            (after - beside) / min(compute, exchange)
            for beside, after, compute, exchange in zip(*(figures[name] for name in _NAMES.values()), strict=True)
        ]
    )


def table_of(results: Mapping[str, Mapping[str, Figures]]) -> str:
    """The medians as people read them."""
    names = list(_NAMES.values())
    lines = [f"{'milliseconds':<14}{'Gbit/s':>8}" + "".join(f"{name:>10}" for name in names) + "  beside/after  hidden"]
    for model, rates in results.items():
        for rate, figures in rates.items():
            cells = "".join(f"{1e3 * median(figures[name]):>10.1f}" for name in names)
            limit = rate if float(rate) else "none"
            lines.append(
                f"{model:<14}{limit:>8}{cells}{ratio(figures, 'beside', 'after'):>14.2f}{hidden(figures):>8.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="result file to write")
    parser.add_argument("--models", default=",".join(MODELS), help="which of small, large")
    parser.add_argument("--rates", default="1,10,0", help="Gbit/s; 0 for no limit")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each kind")
    parser.add_argument("--turn", type=float, default=1.5, help="about how long a turn lasts, in seconds")
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    if unknown := [model for model in models if model not in MODELS]:
        parser.error(f"--models has {unknown[0]!r}: choose from {', '.join(MODELS)}")
    machine = describe_machine(["python", "-m", "benchmarks.overlap", *sys.argv[1:]])
    print_machine(machine)
    results: dict[str, Any] = {}
    rates = [float(rate) for rate in arguments.rates.split(",")]
    for model in models:
        results[model] = measure(model, rates, arguments.rounds, arguments.turn)
        if arguments.json:
            write_result(arguments.json, machine, results, [])
    print("\n" + table_of(results))


if __name__ == "__main__":
    main()
