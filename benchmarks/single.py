"""Training speed on one machine, beside what a user would run instead, in one call.

python -m benchmarks.single [--quick] [--json FILE] [--models mlp,cnn,transformer_lm]

Every contender lives in a process of its own, built and warmed up; then they take turns, one working at a time, in an
order that rotates. Figures are medians over the turns; a ratio is the median of the ratios of a round, so that a slow
moment of the machine meets both sides. "Best" is the best of the others in the same round.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from benchmarks.single_models import MODELS, STEPS_PER_CALL, batch_size

PLAIN = "fit as written"
CONTENDERS = [
    "phalanx",
    "phalanx, checkpoints",
    PLAIN,
    "keras fit",
    "keras fit jit",
    "tf-keras fit",
    "tf-keras fit jit",
    "loop",
    "loop jit",
]
NOT_WRITTEN = {("transformer_lm", "tf-keras fit"), ("transformer_lm", "tf-keras fit jit")}
ROUNDS, TURN_S = 5, 0.8
QUICK_ROUNDS, QUICK_TURN_S = 3, 0.4


class Contender:
    """A worker process that takes turns."""

    def __init__(self, model: str, name: str, run_dir: str) -> None:
        self.name, self._model = name, model
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.single_worker", model, name, run_dir],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def turn(self, steps: int) -> dict[str, float]:
        """Takes `steps` steps and returns their figures.

        Raises:
            RuntimeError: The worker died.
        """
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise RuntimeError(
            f"{self.name} on {self._model} ended with code {self._process.wait()}: run "
            f"python -m benchmarks.single_worker {self._model} {self.name!r} FOLDER and type a number of steps"
        )

    def steps_for(self, duration_s: float) -> int:
        """Warms up; returns how many steps take `duration_s`, in whole calls."""
        per_call = STEPS_PER_CALL[self._model]
        self.turn(2 * per_call)
        speed = self.turn(4 * per_call)["samples_per_s"]
        calls = round(duration_s * speed / batch_size(self._model) / per_call)
        return max(2, calls) * per_call

    def close(self) -> None:
        """Ends the worker by ending its input."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def measure(model: str, rounds: int, turn_s: float) -> dict[str, list[dict[str, float]]]:
    """The figures of every turn, by contender."""
    with tempfile.TemporaryDirectory() as run_dir:
        contenders = [Contender(model, name, run_dir) for name in CONTENDERS if (model, name) not in NOT_WRITTEN]
        steps = {contender.name: contender.steps_for(turn_s) for contender in contenders}
        turns: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
        for i in range(rounds):
            order = itertools.islice(itertools.cycle(contenders), i, i + len(contenders))
            for contender in order:
                turns[contender.name].append(contender.turn(steps[contender.name]))
        for contender in contenders:
            contender.close()
    return turns


def summarise(turns: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians, and the ratios that the targets are about, from the figures of every turn."""
    speeds = {name: [turn["samples_per_s"] for turn in own] for name, own in turns.items()}
    others = [own for name, own in speeds.items() if not name.startswith("phalanx")]
    best = [max(round_) for round_ in zip(*others, strict=True)]
    return {
        "samples_per_s": {name: statistics.median(own) for name, own in speeds.items()},
        "vs_best": _ratio(speeds["phalanx"], best),
        "vs_plain_fit": _ratio(speeds["phalanx"], speeds[PLAIN]),
        "checkpoint_cost": 1 - _ratio(speeds["phalanx, checkpoints"], speeds["phalanx"]),
        "data_wait": statistics.median(turn["data_wait"] for turn in turns["phalanx"]),
    }


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def matmul_peak() -> float:
    """float32 FLOP/s of a large matrix product, the best of ten."""
    import time

    import tensorflow as tf

    size = 2048
    a = tf.random.normal([size, size])
    best = 0.0
    for _ in range(10):
        begin = time.perf_counter()
        tf.matmul(a, a).numpy()
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best


def flops_per_sample(model: str) -> float:
    """FLOPs of training on one sample: three times those of the forward pass, as TensorFlow counts them."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    from tensorflow.python.profiler import model_analyzer, option_builder

    from benchmarks.single_models import keras_model

    network = keras_model(model)
    spec = tf.TensorSpec([1, *network.inputs[0].shape[1:]], network.inputs[0].dtype)
    concrete = tf.function(lambda x: network(x)).get_concrete_function(spec)
    graph = convert_variables_to_constants_v2(concrete).graph
    options = option_builder.ProfileOptionBuilder
    shown = options(options.float_operation()).with_empty_output().build()
    return 3.0 * model_analyzer.profile(graph, options=shown).total_float_ops


def targets_of(results: dict[str, dict[str, Any]]) -> list[str]:
    """One line a target."""
    lines = []
    for model, result in results.items():
        lines.append(target_line(f"phalanx_vs_best_{model}", result["vs_best"], ">=1.0"))
        if model == "mlp":
            lines.append(target_line("phalanx_vs_plain_fit_mlp", result["vs_plain_fit"], ">=2.0"))
        lines.append(target_line(f"checkpoint_cost_{model}", result["checkpoint_cost"], "<0.01"))
        lines.append(target_line(f"data_wait_{model}", result["data_wait"], "<0.02"))
    return lines


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few short turns")
    parser.add_argument("--json", type=Path, help="result file to write")
    parser.add_argument("--models", default=",".join(MODELS), help="which of mlp, cnn, transformer_lm")
    arguments = parser.parse_args()
    rounds, turn_s = (QUICK_ROUNDS, QUICK_TURN_S) if arguments.quick else (ROUNDS, TURN_S)

    machine = describe_machine(["python", "-m", "benchmarks.single", *sys.argv[1:]])
    print_machine(machine)
    peak = matmul_peak()
    print(f"measured float32 matmul peak: {peak / 1e9:.0f} GFLOP/s")
    results = {}
    for model in arguments.models.split(","):
        result = summarise(measure(model, rounds, turn_s))
        result["share_of_matmul_peak"] = flops_per_sample(model) * result["samples_per_s"]["phalanx"] / peak
        results[model] = result
        print(f"\n{model}, batch {batch_size(model)}: samples/s, median of {rounds} turns")
        for name, speed in sorted(result["samples_per_s"].items(), key=lambda item: -item[1]):
            print(f"  {name:<22}{speed:>10,.0f}")
        print(f"  phalanx reaches {100 * result['share_of_matmul_peak']:.1f}% of the matmul peak")
        if arguments.json:  # after each model, so that a long call that is interrupted leaves what it has
            write_result(arguments.json, machine, {"matmul_peak": peak, **results}, targets_of(results))
    print("\n" + "\n".join(targets_of(results)))


if __name__ == "__main__":
    main()
