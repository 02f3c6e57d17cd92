"""How long a training stands still when a worker dies or freezes, beside Ray Train on the same machine.

python -m benchmarks.recovery [--quick] [--json FILE] [--models mlp,cnn] [--kind local] [--rounds N]

Two workers train a small MLP and a CNN with 4.8 million parameters. In each round Phalanx with MultiWorkerMirrored and
with its elastic strategy, Ray Train's TensorflowTrainer and a hand-written MultiWorkerMirrored loop take their turns,
in an order that rotates. Rank 0 gets SIGKILL; the clock stops when the last rank has completed a step that nobody had
completed before. Figures are medians over the rounds, ratios medians of the ratios of the rounds.

Phalanx saves snapshots and Ray Train checkpoints equally often. The loop saves nothing and is only there for its pace.
What freezes (SIGSTOP) is measured once, because most of it is waiting. An elastic run without a standby is struck as
well: the survivor goes on alone, and what it notices of the newcomer that joins it is measured in its own steps.
Horovod's elastic mode, where Horovod is installed (`make horovod`), is struck in the same way and in turns with it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.attempts import Figures, elastic, horovod_elastic, joining, mirrored_loop, phalanx, ray_train
from benchmarks.fault_models import MODELS, SAVE_EVERY
from benchmarks.machine import describe_machine, has_horovod, print_machine, target_line, write_result

PHALANX, ELASTIC, RAY, LOOP, HOROVOD = "phalanx", "elastic", "ray train", "loop", "horovod"
KILL, FREEZE, JOIN = "SIGKILL", "SIGSTOP", "SIGKILL without a standby"
_COLUMNS = (
    "recovery_s",
    "first_step_s",
    "steps_lost",
    "step_ms",
    "stall_ms",
    "launch_s",
    "shrunk_s",
    "join_ms",
    "joining_ms",
)


def measure(
    models: Sequence[str], kind: str, rounds: int, frozen: Sequence[str], folder: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The attempts of all contenders on each model, by fault and contender."""
    for model in models:
        killed: dict[str, list[Figures]] = {PHALANX: [], ELASTIC: [], RAY: [], LOOP: []}
        turns: dict[str, Callable[[Path], Figures]] = {
            PHALANX: lambda place, model=model: phalanx(model, place, kind, signal.SIGKILL),
            ELASTIC: lambda place, model=model: elastic(model, place, kind, signal.SIGKILL),
            RAY: lambda place, model=model: ray_train(model, place, signal.SIGKILL),
            LOOP: lambda place, model=model: mirrored_loop(model, place),
        }
        names = list(turns)
        for number in range(rounds):
            for name in (*names[number % len(names) :], *names[: number % len(names)]):
                place = folder / f"{model}-{name.replace(' ', '-')}-{number}"
                killed[name].append(turns[name](place))
                print(f"{model}, round {number + 1}, {name}: {_brief(killed[name][-1])}", flush=True)
        shrunk: dict[str, list[Figures]] = {ELASTIC: []}
        for number in range(rounds):
            shrunk[ELASTIC].append(joining(model, folder / f"{model}-joining-{number}", kind))
            if has_horovod():
                shrunk.setdefault(HOROVOD, []).append(horovod_elastic(model, folder / f"{model}-horovod-{number}"))
        result: dict[str, Any] = {KILL: killed, JOIN: shrunk}
        if model in frozen:
            result[FREEZE] = {
                PHALANX: [phalanx(model, folder / f"{model}-frozen", kind, signal.SIGSTOP)],
                RAY: [ray_train(model, folder / f"{model}-frozen-ray", signal.SIGSTOP)],
            }
        yield model, result


def _brief(figures: Figures) -> str:
    if "recovery_s" not in figures:
        return f"{figures['step_ms']:.1f} ms a step"
    return f"{figures['recovery_s']:.2f} s, {figures['steps_lost']} steps lost"


def summarise(attempts: Mapping[str, Sequence[Figures]]) -> dict[str, Figures]:
    """The medians of each contender; of its phases too."""
    summary = {}
    for name, own in attempts.items():
        medians: Figures = {}
        for column in _COLUMNS:
            values = [figures[column] for figures in own if figures.get(column) is not None]
            if values:
                medians[column] = median(values)
        phases = list(dict.fromkeys(phase for figures in own for phase in figures.get("phases", ())))
        medians["phases"] = {
            phase: median([figures["phases"].get(phase, 0.0) for figures in own if "phases" in figures])
            for phase in phases
        }
        summary[name] = medians
    return summary


def ratio(ours: Sequence[Figures], theirs: Sequence[Figures], column: str) -> float:
    """The median of the ratios of the rounds."""
    return median(one[column] / other[column] for one, other in zip(ours, theirs, strict=True))


def targets_of(results: Mapping[str, Any]) -> list[str]:
    """One line a target that was measured."""
    lines = []
    for model, by_fault in results.items():
        killed = by_fault[KILL]
        lines.append(
            target_line(f"recovery_vs_ray_{model}", ratio(killed[PHALANX], killed[RAY], "recovery_s"), "<=0.1")
        )
        if model == "mlp":
            lines.append(target_line("recovery_s_mlp", median(f["recovery_s"] for f in killed[PHALANX]), "<3"))
        lost = max(figures["steps_lost"] for figures in killed[PHALANX])
        lines.append(target_line(f"steps_lost_{model}", lost, f"<={SAVE_EVERY[model]}"))
        lines.append(target_line(f"step_vs_loop_{model}", ratio(killed[LOOP], killed[PHALANX], "step_ms"), ">=1.0"))
        goal = {"mlp": "<0.2", "cnn": "<1"}[model]
        lines.append(target_line(f"recovery_s_elastic_{model}", median(f["recovery_s"] for f in killed[ELASTIC]), goal))
        lines.append(target_line(f"steps_lost_elastic_{model}", max(f["steps_lost"] for f in killed[ELASTIC]), "<=0"))
        steps = median(f["join_ms"] / f["step_ms"] for f in by_fault[JOIN][ELASTIC])
        lines.append(target_line(f"joining_in_steps_{model}", steps, "<1"))
        if HOROVOD in by_fault[JOIN]:
            beside = ratio(by_fault[JOIN][ELASTIC], by_fault[JOIN][HOROVOD], "shrunk_s")
            lines.append(target_line(f"shrunk_vs_horovod_{model}", beside, "<1"))
    return lines


def table_of(model: str, fault: str, attempts: Mapping[str, Sequence[Figures]]) -> str:
    """The medians as people read them."""
    lines = [f"{model}, {fault} of rank 0, medians of {max(map(len, attempts.values()))}"]
    lines.append(f"  {'':<12}" + "".join(f"{column.replace('_', ' '):>14}" for column in _COLUMNS))
    for name, medians in summarise(attempts).items():
        values = [medians.get(column) for column in _COLUMNS]
        lines.append(f"  {name:<12}" + "".join(f"{'-':>14}" if v is None else f"{v:>14.2f}" for v in values))
    for name, medians in summarise(attempts).items():
        if medians["phases"]:
            parts = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in medians["phases"].items())
            lines.append(f"  {name}: {parts} (s)")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about a minute: the MLP, one round, nothing frozen")
    parser.add_argument("--json", type=Path, help="result file to write")
    parser.add_argument("--models", default=",".join(MODELS), help="which of mlp, cnn")
    parser.add_argument("--kind", default="local", help="Phalanx's cluster.kind")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender has its turn")
    parser.add_argument("--freeze", default="mlp", help="models that are frozen as well, once")
    arguments = parser.parse_args()
    models = ["mlp"] if arguments.quick else arguments.models.split(",")
    if unknown := [model for model in models if model not in MODELS]:
        parser.error(f"--models has {unknown[0]!r}: choose from {', '.join(MODELS)}")
    rounds = 1 if arguments.quick else arguments.rounds

    machine = describe_machine(["python", "-m", "benchmarks.recovery", *sys.argv[1:]])
    machine["packages"]["ray"] = importlib.metadata.version("ray")
    print_machine(machine)
    with tempfile.TemporaryDirectory() as folder:
        frozen = () if arguments.quick else arguments.freeze.split(",")
        results: dict[str, Any] = {}
        for model, result in measure(models, arguments.kind, rounds, frozen, Path(folder)):
            results[model] = result
            for fault, attempts in result.items():
                print("\n" + table_of(model, fault, attempts), flush=True)
            if arguments.json:  # after each model, so that a long call that is interrupted leaves what it has
                write_result(arguments.json, machine, results, targets_of(results))
    print("\n" + "\n".join(targets_of(results)))


if __name__ == "__main__":
    main()
