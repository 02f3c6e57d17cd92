"""A 90 MB classifier to under 2 MB that keeps 98% of its accuracy, with one command.

python -m benchmarks.shrink [--quick] [--json FILE] [--run RUN]

Trains configs/mnist_large.yaml (or takes a run of it), carries out `phalanx export RUN --to litert --budget 2MB --keep
0.98`, and prints what that found. --quick does the same with configs/mnist.yaml, a fiftieth of the budget.
Accuracy is over the 1,000 held-out images; latency is the median of one call with one image on one thread.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, print_machine, target_line, write_result

BUDGET, KEEP = 2_000_000, 0.98
_PROGRAM = "import sys; from launch.cli import run; sys.exit(run(sys.argv[1:]))"


def phalanx(*arguments: str) -> float:
    """Carries out one command line; returns its seconds."""
    started = time.monotonic()
    print(f"$ phalanx {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-c", _PROGRAM, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def shrink(run: Path, budget: int, *options: str) -> dict[str, Any]:
    """What the search found, with its seconds."""
    seconds = phalanx(
        "export", str(run), "--to", "litert", "--budget", str(budget), "--keep", str(KEEP), *options
    )  # fmt: skip
    results = json.loads((run / "export" / "litert" / "results.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, **{name: results[name] for name in ("trained", "chosen", "artefacts")}}


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: the small MLP")
    parser.add_argument("--json", type=Path, help="result file to write")
    parser.add_argument("--run", type=Path, help="a finished run of the config, instead of training one")
    arguments = parser.parse_args()

    machine = describe_machine(["python", "-m", "benchmarks.shrink", *sys.argv[1:]])
    machine["packages"] |= {
        name: importlib.metadata.version(name) for name in ("ai-edge-litert", "ai-edge-quantizer")
    }  # fmt: skip
    print_machine(machine)
    budget = BUDGET // 50 if arguments.quick else BUDGET
    config = "configs/mnist.yaml" if arguments.quick else "configs/mnist_large.yaml"
    options = ["--quantize", "int8"] if arguments.quick else []
    with tempfile.TemporaryDirectory() as folder:
        run, figures = arguments.run, {}
        if run is None:
            run = Path(folder) / "run"
            figures["training_s"] = phalanx(
                "train", config, f"run.dir={folder}", "run.name=run", "export.enabled=false"
            )
        # What it is compared with: the trained model as it is, converted.
        phalanx("export", str(run), "--to", "litert")
        results = json.loads((run / "export" / "litert" / "results.json").read_text(encoding="utf-8"))
        figures |= {"float32": results["artefacts"][0], "search": shrink(run, budget, *options)}
        table = (run / "export" / "litert" / "results.txt").read_text(encoding="utf-8")
    chosen = next(one for one in figures["search"]["artefacts"] if one["name"] == figures["search"]["chosen"])
    whole = figures["float32"]
    print(f"\nfloat32: {whole['bytes']:,} bytes, {whole['latency_ms']:.3f} ms\n{table}")
    print(f"the search took {figures['search']['seconds']:.0f} s, its fine-tunings included")
    name = "mnist" if arguments.quick else "mnist_large"
    targets = [
        target_line(f"shrink_bytes_{name}", chosen["bytes"], f"<={budget}"),
        target_line(f"shrink_share_kept_{name}", chosen["share_kept"], f">={KEEP}"),
        target_line(f"shrink_latency_ratio_{name}", chosen["latency_ms"] / whole["latency_ms"], "<=1.0"),
    ]
    print("\n".join(targets))
    if arguments.json:
        write_result(arguments.json, machine, figures, targets)


if __name__ == "__main__":
    main()
