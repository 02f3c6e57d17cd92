"""What sparse and clustered weights save of the compressed file, and what they cost in accuracy.

python -m benchmarks.ties [--quick] [--json FILE]

Trains configs/mnist.yaml and makes LiteRT models of it as it is, with 2:4 sparsity, with clustered weights, with
both, and after pruning; each is fine-tuned by the trainer's own loop. Accuracy is over the 1,000 held-out images, sizes
are bytes of the file and of it after zlib.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from benchmarks.shrink import phalanx

RECIPES: dict[str, list[str]] = {
    "as it is": [],
    "2:4": ["--sparse", "2:4"],
    "1:4": ["--sparse", "1:4"],
    "32 values": ["--cluster", "32"],
    "16 values": ["--cluster", "16"],
    "2:4, 16 values": ["--sparse", "2:4", "--cluster", "16"],
    "1:4, 8 values": ["--sparse", "1:4", "--cluster", "8"],
    "pruned 0.75": ["--prune", "0.75"],
    "pruned 0.75, 16 values": ["--prune", "0.75", "--cluster", "16"],
}
QUICK = ("as it is", "2:4, 16 values")


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: two recipes")
    parser.add_argument("--json", type=Path, help="result file to write")
    arguments = parser.parse_args()
    machine = describe_machine(["python", "-m", "benchmarks.ties", *sys.argv[1:]])
    print_machine(machine)
    kinds = ["float32", "dynamic", "int4"]
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "mnist"
        phalanx("train", "configs/mnist.yaml", f"run.dir={folder}", "export.enabled=false")
        for name, options in RECIPES.items():
            if arguments.quick and name not in QUICK:
                continue
            asked = [word for kind in kinds for word in ("--quantize", kind)]
            phalanx("export", str(run), "--to", "litert", "--keep", "0.9", "--fine-tune", "5", *asked, *options)
            results = json.loads((run / "export" / "litert" / "results.json").read_text(encoding="utf-8"))
            found[name] = [one for one in results["artefacts"] if bool(one["tied"] or one["prune"]) == bool(options)]
    print(f"\n{'':<24}{'kind':>9}{'bytes':>10}{'compressed':>12}{'accuracy':>10}")
    for name, artefacts in found.items():
        for one in artefacts:
            said = one["refused"] or f"{one['value']:>10.3f}"
            print(f"{name:<24}{one['quantize']:>9}{one['bytes'] or 0:>10,}{one['compressed_bytes'] or 0:>12,}{said}")
    whole, tied = (next(iter(found[name])) for name in QUICK)
    targets = [
        target_line("ties_compressed_share", tied["compressed_bytes"] / whole["compressed_bytes"], "<=0.15"),
        target_line("ties_accuracy_lost", whole["value"] - tied["value"], "<=0.01"),
    ]
    print("", *targets, sep="\n")
    if arguments.json:
        write_result(arguments.json, machine, {"recipes": found}, targets)


if __name__ == "__main__":
    main()
