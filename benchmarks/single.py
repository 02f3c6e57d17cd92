"""Training speed on one machine, beside what a user would run instead, in one call.

python -m benchmarks.single [--quick] [--json FILE] [--models mlp,cnn,transformer_lm]

Every contender lives in a process of its own, built and warmed up; then they take turns, one working at a time, in an
order that rotates. A ratio is the median of the ratios of the rounds, so that a slow moment of the machine meets both
sides. Two processes of one program differ by up to 5%, so all this is done in several starts, after the first one with
Phalanx, `fit` as written and the fastest of the others; a figure is the median over the starts. "Best" is the contender
other than Phalanx with the highest median: the best of each round would count its luck.

The cost of checkpoints is measured on its own afterwards, in longer turns of one process that alternately saves and
does not; time in which it does not save counts for nothing in its limit on the overhead. As not every turn has a
checkpoint, the cost is a mean of the turns' ratios, without their highest and lowest quarter.

After the warm-up each contender says its loss: all train the same. A transformer is not written for tf-keras, which
lacks the layers it is made of.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from benchmarks.single_models import MODELS, batch_size
from benchmarks.single_turns import Contender, Figures

PHALANX, CHECKPOINTS, PLAIN = "phalanx", "phalanx, checkpoints", "fit as written"
VARIANTS = ("", ", jit", ", many a call", ", jit, many a call")
CONTENDERS = (
    PHALANX,
    CHECKPOINTS,
    PLAIN,
    *(f"keras fit{variant}" for variant in VARIANTS),
    *(f"tf-keras fit{variant}" for variant in VARIANTS),
    "loop",
    "loop, jit",
)
# Those that were the best, or near it, in the long form; a second or two of checkpoints would show nothing but noise.
QUICK_CONTENDERS = {
    "mlp": (PHALANX, PLAIN, "loop"),
    "cnn": (PHALANX, "loop", "tf-keras fit, many a call"),
    "transformer_lm": (PHALANX, "loop"),
}


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        starts: In each of which every contender is a new process.
        rounds: Of a start, in each of which every contender has a turn.
        turn_s: Seconds of a turn, at least.
        checkpoint_rounds: In each of which Phalanx has a turn with checkpoints and one without, in one process.
        checkpoint_turn_s: Seconds of these.
    """

    starts: int = 3
    rounds: int = 3
    turn_s: float = 0.5
    checkpoint_rounds: int = 72
    checkpoint_turn_s: float = 3.0


QUICK = Effort(starts=1, rounds=4, turn_s=0.25, checkpoint_rounds=0, checkpoint_turn_s=0.0)
# How many of the others are started again.
FINALISTS = 3


def contenders_of(model: str, quick: bool) -> tuple[str, ...]:
    """Who is measured on a model."""
    names = QUICK_CONTENDERS[model] if quick else CONTENDERS
    return tuple(name for name in names if not (model == "transformer_lm" and name.startswith("tf-keras")))


@contextlib.contextmanager
def started(model: str, names: Sequence[str]) -> Iterator[list[Contender]]:
    """Workers, warming up; they end with the block."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        worker = [sys.executable, "-m", "benchmarks.single_worker", model]
        yield [
            stack.enter_context(Contender(name, [*worker, name, folder], Path(folder) / f"{name}.log"))
            for name in names
        ]


def take_turns(contenders: Sequence[Contender], rounds: int, turn_s: float) -> dict[str, list[Figures]]:
    """The figures of every turn, by contender; the first of a round is another one each time."""
    turns: dict[str, list[Figures]] = {contender.name: [] for contender in contenders}
    for i in range(rounds):
        start = i % len(contenders)
        for contender in (*contenders[start:], *contenders[:start]):
            turns[contender.name].append(contender.turn(turn_s))
    return turns


def measure(model: str, names: Sequence[str], effort: Effort) -> dict[str, Any]:
    """The result for one model."""
    starts: list[dict[str, list[Figures]]] = []
    losses: dict[str, float] = {}
    checkpoint_turns: list[Figures] = []
    for _ in range(effort.starts):
        with started(model, names) as contenders:
            losses = {contender.name: contender.warmed_up()["loss"] for contender in contenders} | losses
            others = [contender for contender in contenders if contender.name != CHECKPOINTS]
            take_turns(contenders, 2, effort.turn_s)  # tf.data tunes itself, caches fill
            starts.append(take_turns(others, effort.rounds, effort.turn_s))
            if saving := [contender for contender in contenders if contender.name == CHECKPOINTS]:
                turns = take_turns(saving, 2 * effort.checkpoint_rounds, effort.checkpoint_turn_s)
                checkpoint_turns = turns[CHECKPOINTS]
        names = finalists(starts[0])
    return {**summarise(starts, checkpoint_turns), "losses": losses}


def finalists(turns: Mapping[str, Sequence[Figures]]) -> tuple[str, ...]:
    """Who is started again: Phalanx, `fit` as written, and the fastest of the others."""
    always = [name for name in (PHALANX, PLAIN) if name in turns]
    others = sorted((name for name in turns if name not in always), key=lambda name: -_median_speed(turns[name]))
    return (*always, *others[:FINALISTS])


def summarise(starts: Sequence[Mapping[str, Sequence[Figures]]], checkpoint_turns: Sequence[Figures]) -> dict[str, Any]:
    """Medians, and the ratios that the targets are about.

    Args:
        starts: For each start the figures of every turn, by contender; as many for each.
        checkpoint_turns: Those of the process that has `checkpoints` in every other one, in their order.

    Returns:
        `samples_per_s` by contender, `best` (a name), `vs_best`, `vs_best_by_start`, `data_wait` (a share of the time,
        0 to 1); where they were measured, `vs_plain_fit` and `checkpoint_cost` (a share).
    """
    medians = {
        name: statistics.median(_median_speed(turns[name]) for turns in starts if name in turns) for name in starts[0]
    }
    # Whoever was not started again was far behind.
    best = max((name for name in starts[-1] if name != PHALANX), key=medians.__getitem__)
    vs_best = [_ratio(turns[PHALANX], turns[best]) for turns in starts]
    result = {
        "samples_per_s": medians,
        "best": best,
        "vs_best": statistics.median(vs_best),
        "vs_best_by_start": vs_best,
        "data_wait": statistics.median(turns[PHALANX][-1]["data_wait"] for turns in starts),
    }
    if PLAIN in medians:
        result["vs_plain_fit"] = statistics.median(_ratio(turns[PHALANX], turns[PLAIN]) for turns in starts)
    if checkpoint_turns:
        with_, without = (
            [turn for turn in checkpoint_turns if turn["checkpoints"] is saving] for saving in (True, False)
        )
        ratios = sorted(_ratios(with_, without))
        quarter = len(ratios) // 4
        result["checkpoint_cost"] = 1 - statistics.mean(ratios[quarter : len(ratios) - quarter])
    return result


def _median_speed(turns: Sequence[Figures]) -> float:
    return statistics.median(turn["samples_per_s"] for turn in turns)


def _ratios(ours: Sequence[Figures], theirs: Sequence[Figures]) -> list[float]:
    return [one["samples_per_s"] / other["samples_per_s"] for one, other in zip(ours, theirs, strict=True)]


def _ratio(ours: Sequence[Figures], theirs: Sequence[Figures]) -> float:
    return statistics.median(_ratios(ours, theirs))


def targets_of(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line a target that was measured."""
    lines = []
    for model, result in results.items():
        lines.append(target_line(f"phalanx_vs_best_{model}", result["vs_best"], ">=1.0"))
        if model == "mlp":
            lines.append(target_line("phalanx_vs_plain_fit_mlp", result["vs_plain_fit"], ">=2.0"))
        if "checkpoint_cost" in result:
            lines.append(target_line(f"checkpoint_cost_{model}", result["checkpoint_cost"], "<0.01"))
        lines.append(target_line(f"data_wait_{model}", result["data_wait"], "<0.02"))
    return lines


def table_of(model: str, result: Mapping[str, Any]) -> str:
    """The result for one model as people read it."""
    head = f"{model}, batch {batch_size(model)}"
    lines = [f"{head:<34}{'samples/s':>10}  loss after warm-up"]
    for name, speed in sorted(result["samples_per_s"].items(), key=lambda item: -item[1]):
        lines.append(f"  {name:<32}{speed:>10,.0f}  {result['losses'][name]:.4f}")
    share = 100 * result["share_of_matmul_peak"]
    lines.append(
        f"  phalanx: {result['vs_best']:.2f} times the speed of {result['best']!r}, {share:.1f}% of the matmul peak"
    )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="under a minute: fewer contenders, a few short turns, no checkpoints"
    )
    parser.add_argument("--json", type=Path, help="result file to write")
    parser.add_argument("--models", default=",".join(MODELS), help="which of mlp, cnn, transformer_lm")
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    if unknown := [model for model in models if model not in MODELS]:
        parser.error(f"--models has {unknown[0]!r}: choose from {', '.join(MODELS)}")
    effort = QUICK if arguments.quick else Effort()

    machine = describe_machine(["python", "-m", "benchmarks.single", *sys.argv[1:]])
    machine["packages"]["tf-keras"] = importlib.metadata.version("tf-keras")
    print_machine(machine)
    from benchmarks.single_flops import flops_per_sample, matmul_peak

    peak = matmul_peak()
    print(f"measured float32 matmul peak: {peak / 1e9:.0f} GFLOP/s")
    results: dict[str, dict[str, Any]] = {}
    for model in models:
        result = measure(model, contenders_of(model, arguments.quick), effort)
        result["flops_per_sample"] = flops_per_sample(model)
        result["share_of_matmul_peak"] = result["flops_per_sample"] * result["samples_per_s"][PHALANX] / peak
        results[model] = result
        print("\n" + table_of(model, result), flush=True)
        if arguments.json:  # after each model, so that a long call that is interrupted leaves what it has
            figures = {"effort": vars(effort), "matmul_peak": peak, **results}
            write_result(arguments.json, machine, figures, targets_of(results))
    print("\n" + "\n".join(targets_of(results)))


if __name__ == "__main__":
    main()
