"""From the command to the first step, beside Ray Train on the same machine.

python -m benchmarks.launch [--quick] [--json FILE] [--models mlp,cnn] [--kind local] [--rounds N]

Two workers. The clock starts with the process and stops when the last rank has completed a step. Phalanx runs as its
command line does; Ray Train's TensorflowTrainer once where the script starts Ray itself (cold), and once on a Ray that
is up. They take turns in an order that rotates; figures are medians, ratios medians of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.attempts import LOOPBACK, Figures, free_port, phalanx, ray_train, started, wait_for
from benchmarks.fault_models import MODELS
from benchmarks.machine import describe_machine, print_machine, target_line, write_result

PHALANX, COLD, UP = "phalanx", "ray train, ray cold", "ray train, ray up"


@contextlib.contextmanager
def ray_up(folder: Path) -> Iterator[str]:
    """A Ray that is up; gives its address, and ends the Ray that it started."""
    log = folder / "head.log"
    port = free_port()
    # Ray's command line, also where its script is not beside the interpreter.
    head = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--num-cpus=4",
        "--include-dashboard=false",
    ]
    with started([*head, "--node-ip-address=127.0.0.1", "--disable-usage-stats"], log, **LOOPBACK) as process:
        address = f"127.0.0.1:{port}"

        def is_up() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_for(is_up, process, log)
        yield address


def measure(model: str, kind: str, rounds: int, folder: Path, address: str | None) -> dict[str, list[Figures]]:
    """The attempts of all contenders."""
    turns: dict[str, Callable[[Path], Figures]] = {
        PHALANX: lambda place: phalanx(model, place, kind, None),
        COLD: lambda place: ray_train(model, place, None),
    }
    if address is not None:
        turns[UP] = lambda place: ray_train(model, place, None, address)
    names = list(turns)
    attempts: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(rounds):
        start = number % len(names)
        for index, name in enumerate((*names[start:], *names[:start])):
            attempts[name].append(turns[name](folder / f"{model}-{number}-{index}"))
            print(f"{model}, round {number + 1}, {name}: {attempts[name][-1]['launch_s']:.2f} s", flush=True)
    return attempts


def targets_of(results: Mapping[str, Mapping[str, Sequence[Figures]]]) -> list[str]:
    """One line a target that was measured."""
    lines = []
    for model, attempts in results.items():
        for name, short in ((COLD, "cold"), (UP, "up")):
            if name in attempts:
                pairs = zip(attempts[PHALANX], attempts[name], strict=True)
                ratio = median(ours["launch_s"] / theirs["launch_s"] for ours, theirs in pairs)
                lines.append(target_line(f"launch_vs_ray_{short}_{model}", ratio, "<=0.5"))
    return lines


def table_of(results: Mapping[str, Mapping[str, Sequence[Figures]]]) -> str:
    """The medians as people read them."""
    lines = [f"{'seconds to the first step':<28}" + "".join(f"{model:>10}" for model in results)]
    for name in next(iter(results.values())):
        medians = [median(one["launch_s"] for one in attempts[name]) for attempts in results.values()]
        lines.append(f"  {name:<26}" + "".join(f"{seconds:>10.2f}" for seconds in medians))
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: the MLP, one round, Ray cold only")
    parser.add_argument("--json", type=Path, help="result file to write")
    parser.add_argument("--models", default=",".join(MODELS), help="which of mlp, cnn")
    parser.add_argument("--kind", default="local", help="Phalanx's cluster.kind")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender has its turn")
    arguments = parser.parse_args()
    models = ["mlp"] if arguments.quick else arguments.models.split(",")
    if unknown := [model for model in models if model not in MODELS]:
        parser.error(f"--models has {unknown[0]!r}: choose from {', '.join(MODELS)}")

    machine = describe_machine(["python", "-m", "benchmarks.launch", *sys.argv[1:]])
    machine["packages"]["ray"] = importlib.metadata.version("ray")
    print_machine(machine)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        address = None if arguments.quick else stack.enter_context(ray_up(Path(folder)))
        for model in models:
            rounds = 1 if arguments.quick else arguments.rounds
            results[model] = measure(model, arguments.kind, rounds, Path(folder), address)
    print("\n" + table_of(results))
    targets = targets_of(results)
    print("\n" + "\n".join(targets))
    if arguments.json:
        write_result(arguments.json, machine, results, targets)


if __name__ == "__main__":
    main()
