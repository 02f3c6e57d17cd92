"""How fast two workers train with each way of spreading a step over them, in one call.

python -m benchmarks.strategies [--quick] [--json FILE] [--models mlp,cnn,transformer] [--starts N] [--rounds N]

The contenders: `elastic`, `multi_worker_mirrored`, `horovod` where it is installed (`make horovod`), and `one_device`
twice, each worker on its half of the batch with no reduction at all, which is the ideal. For models that it has, a loop
on MultiWorkerMirroredStrategy as one writes it by hand (benchmarks/mirrored_loop.py) is another. Every contender is two
processes with the whole training in them, input included and ours with their records, with one thread a core between
them as a run gives it to its workers. They are built and warmed up together and then take turns, one contender working
at a time, in an order that rotates. A ratio is the median of the ratios of the rounds, so that a slow moment of the
machine meets both sides; all is done in several starts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.fault_models import MODELS as BY_HAND_MODELS
from benchmarks.machine import describe_machine, has_horovod, print_machine, target_line, write_result
from benchmarks.single_turns import Contender
from benchmarks.strategies_models import BY_HAND, MODELS, NUM_WORKERS, WARM_UP_STEPS, batch_size
from cluster.worker_environment import divide

ELASTIC, MIRRORED, HOROVOD, IDEAL = "elastic", "multi_worker_mirrored", "horovod", "one_device"

TARGETS = {
    "mlp": (MIRRORED, ">=1.5"),
    "cnn": (IDEAL, ">=0.9"),
    "transformer": (IDEAL, ">=0.769"),  # at most 1.3 times the time
}


class Pair:
    """The workers of one contender; they start at once and warm up.

    Args:
        model: Which training.
        strategy: How a step is spread.
        folder: To be made, for their files.
        stack: Ends them.
    """

    def __init__(self, model: str, strategy: str, folder: Path, stack: contextlib.ExitStack) -> None:
        folder.mkdir()
        command = [sys.executable, "-m", "benchmarks.strategies_worker", model, strategy]
        environment = {**os.environ, **divide(NUM_WORKERS, os.cpu_count())[0].at_start()}
        self.strategy = strategy
        self._workers = [
            stack.enter_context(
                Contender(f"{strategy} {rank}", [*command, str(rank), str(folder)], folder / f"{rank}.log", environment)
            )
            for rank in range(NUM_WORKERS)
        ]

    def warmed_up(self) -> None:
        """Waits for the end of the warm-up."""
        for worker in self._workers:
            worker.warmed_up()
        self._rest()

    def turn(self, num_steps: int) -> float:
        """Samples a second of both workers together: each counts the whole batch in its steps."""
        for worker in self._workers:
            worker.go_on()
            worker.tell(num_steps)
        speed = mean([worker.warmed_up()["samples_per_s"] for worker in self._workers])
        self._rest()
        return speed

    def _rest(self) -> None:
        """Horovod's threads look for work a thousand times a second, which would slow the others' turns."""
        if self.strategy == HOROVOD:
            for worker in self._workers:
                worker.hold()


def contenders(model: str) -> tuple[str, ...]:
    """Those that can be measured here."""
    by_hand = [BY_HAND] if model in BY_HAND_MODELS else []
    return (ELASTIC, MIRRORED, *([HOROVOD] if has_horovod() else []), *by_hand, IDEAL)


def measure(names: Sequence[str], model: str, starts: int, rounds: int, turn_s: float) -> dict[str, list[float]]:
    """Samples a second of each turn, by contender; as many turns for each.

    Args:
        names: Of the contenders.
        model: Which training.
        starts: In each of which all processes are new.
        rounds: Of a start, in each of which every contender has a turn.
        turn_s: About how long a turn lasts.
    """
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(starts):
        with tempfile.TemporaryDirectory(dir=_memory()) as folder, contextlib.ExitStack() as stack:
            pairs = [Pair(model, name, Path(folder) / name, stack) for name in names]
            steps = {}
            for pair in pairs:
                pair.warmed_up()
            for pair in pairs:
                pace = pair.turn(WARM_UP_STEPS[model]) / batch_size(model)
                steps[pair.strategy] = max(WARM_UP_STEPS[model], round(turn_s * pace))
            for number in range(rounds):
                first = number % len(pairs)
                for pair in (*pairs[first:], *pairs[:first]):
                    speeds[pair.strategy].append(pair.turn(steps[pair.strategy]))
    return speeds


def _memory() -> str | None:
    """Where files are memory: the workers of a host share their arrays there."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def ratio(speeds: Mapping[str, Sequence[float]], other: str, one: str = ELASTIC) -> float:
    """How much faster one contender is than another: the median of the ratios of the rounds."""
    return median([ours / theirs for ours, theirs in zip(speeds[one], speeds[other], strict=True)])


def targets_of(results: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """One line a target that was measured."""
    lines = []
    for model, speeds in results.items():
        other, goal = TARGETS[model]
        short = "mwms" if other == MIRRORED else "ideal"
        lines.append(target_line(f"elastic_vs_{short}_{model}", ratio(speeds, other), goal))
        if HOROVOD in speeds:
            lines.append(target_line(f"elastic_vs_horovod_{model}", ratio(speeds, HOROVOD), ">=1.0"))
        if BY_HAND in speeds:
            lines.append(target_line(f"mwms_vs_by_hand_{model}", ratio(speeds, BY_HAND, MIRRORED), ">=1.0"))
    return lines


def table_of(results: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The medians as people read them."""
    lines = [f"{'samples/s (ms a step)':<26}" + "".join(f"{model:>22}" for model in results)]
    names = list(dict.fromkeys(name for speeds in results.values() for name in speeds))
    for name in names:
        cells = []
        for model, speeds in results.items():
            speed = median(speeds[name]) if name in speeds else None
            cells.append(f"{speed:,.0f} ({1e3 * batch_size(model) / speed:.2f})" if speed else "-")
        lines.append(f"  {name:<24}" + "".join(f"{cell:>22}" for cell in cells))
    for other in (name for name in names if name != ELASTIC):
        cells = [f"{ratio(speeds, other):.2f}" if other in speeds else "-" for speeds in results.values()]
        lines.append(f"  {'elastic / ' + other:<24}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: the MLP and the CNN, one start")
    parser.add_argument("--json", type=Path, help="result file to write")
    parser.add_argument("--models", default=",".join(MODELS), help="which of mlp, cnn, transformer")
    parser.add_argument("--starts", type=int, default=2, help="how often all processes are started")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each contender in a start")
    arguments = parser.parse_args()
    models = ["mlp", "cnn"] if arguments.quick else arguments.models.split(",")
    if unknown := [model for model in models if model not in MODELS]:
        parser.error(f"--models has {unknown[0]!r}: choose from {', '.join(MODELS)}")

    machine = describe_machine(["python", "-m", "benchmarks.strategies", *sys.argv[1:]])
    print_machine(machine)
    results: dict[str, Any] = {}
    for model in models:
        starts, rounds, turn_s = (1, 3, 0.5) if arguments.quick else (arguments.starts, arguments.rounds, 2.0)
        results[model] = measure(contenders(model), model, starts, rounds, turn_s)
        if arguments.json:  # after each model, so that a long call that is interrupted leaves what it has
            write_result(arguments.json, machine, results, targets_of(results))
    print("\n" + table_of(results))
    print("\n" + "\n".join(targets_of(results)))


if __name__ == "__main__":
    main()
