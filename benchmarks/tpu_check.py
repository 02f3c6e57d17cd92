"""Every model of the zoo compiled for slices of every generation of TPUs that the compiler knows, without one.

python -m benchmarks.tpu_check [--quick] [--models NAMES] [--slices NAMES] [--json FILE [--also FILE ...]]

With --json the rows that the file has already stay, where they are not compiled again, and a table for people is
written beside it.

What is compiled is the training step of the shipped configs, optimizer and sum over the replicas included, in
mixed_bfloat16, at the lowest level of the compiler's optimization: temporaries are overstated by it, so that what fits
here fits. `phalanx check --tpu` compiles at the usual level.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from benchmarks.tpu_check_table import Row, in_order, markdown, rows_of
from launch.config import load_config
from launch.tpu_check.check import check_for_tpu
from launch.tpu_check.compiler import OutOfTime
from trainer.observe.number_text import format_bytes

LIMIT_S = 1800.0


class Zoo(NamedTuple):
    """A model as it is compiled.

    Attributes:
        config: A shipped one.
        overrides: Data without files.
        batch_size: Of a replica.
    """

    config: str
    overrides: list[str]
    batch_size: int


_IMAGES = ["data.name=synthetic", "data.num_samples=100000"]
_PHOTOGRAPHS = [*_IMAGES, "data.shape=[224,224,3]", "data.num_classes=1000"]
_FULL_SIZE = ["model.input_size=null", "data.augment=[]", "optimizer.schedule.warmup=null"]
ZOO = {
    "mlp": Zoo("mnist", [*_IMAGES, "data.shape=[28,28,1]", "data.num_classes=10"], 128),
    "cnn": Zoo("digits_cnn", [*_IMAGES, "data.shape=[28,28,1]", "data.num_classes=10"], 128),
    "verification": Zoo("glyphs_verification", ["optimizer.schedule.warmup=null"], 128),
    "tabular": Zoo("flights_tabular", ["optimizer.schedule.warmup=null"], 512),
    "wide_and_deep": Zoo("flights_wide_and_deep", ["optimizer.schedule.warmup=null"], 512),
    "dcn": Zoo("flights_wide_and_deep", ["model.name=dcn", "optimizer.schedule.warmup=null"], 512),
    "two_tower": Zoo("movielens_retrieval", ["optimizer.schedule.warmup=null"], 128),
    "dlrm": Zoo("movielens_dlrm", ["optimizer.schedule.warmup=null"], 256),
    "transformer_lm": Zoo("shakespeare_lm", ["train.epochs=1", "optimizer.schedule.warmup=null"], 32),
    "transformer_lm_experts": Zoo("shakespeare_moe", ["train.epochs=1", "optimizer.schedule.warmup=null"], 32),
    "bert": Zoo("shakespeare_bert", ["train.epochs=1", "optimizer.schedule.warmup=null"], 32),
    "tcn": Zoo("weather_tcn", ["optimizer.schedule.warmup=null"], 16),
    "transformer_forecaster": Zoo("weather_transformer", ["optimizer.schedule.warmup=null"], 16),
    "resnet": Zoo("resnet50", [*_PHOTOGRAPHS, "train.accumulate=1"], 64),
    "efficientnet_v2": Zoo("mnist_efficientnet", [*_PHOTOGRAPHS, *_FULL_SIZE], 64),
    "mobilenet_v3": Zoo("mnist_mobilenet", [*_PHOTOGRAPHS, *_FULL_SIZE], 64),
    "convnext": Zoo("mnist_convnext", [*_PHOTOGRAPHS, *_FULL_SIZE], 64),
    "vit": Zoo("mnist_vit", [*_PHOTOGRAPHS, *_FULL_SIZE, "model.patch=16", "model.width=384"], 64),
    "unet": Zoo("lesions_unet", ["data.size=256", "data.num_samples=512", "optimizer.schedule.warmup=null"], 16),
}
SLICES = {
    "v2:2x2": 8, "v3:2x2": 8, "v4:2x2x1": 8, "v5e:1x1": 1, "v5e:2x2": 4, "v5e:16x16": 256, "v5p:2x2x1": 4, "v6e:2x2": 4,
}  # fmt: skip
QUICK = {"mlp": ["v5e:2x2", "v6e:2x2"], "cnn": ["v5e:2x2", "v6e:2x2"]}


def compiled(model: str, topology: str) -> dict[str, Any]:
    """One row of the table."""
    zoo = ZOO[model]
    batch = zoo.batch_size * SLICES[topology]
    overrides = [*zoo.overrides, f"data.batch_size={batch}", "precision=mixed_bfloat16", "train.virtual_workers=null"]
    began = time.monotonic()
    try:
        verdict = check_for_tpu(load_config(f"configs/{zoo.config}.yaml", overrides), topology, LIMIT_S, False, True)
        figures = verdict.as_json()
    except OutOfTime as error:
        figures = {"ok": False, "problems": [str(error)], "batch_size": batch}
    date = datetime.date.today().isoformat()
    return {"model": model, "topology": topology, "date": date, "wall_s": time.monotonic() - began, **figures}


def what_is_compiled(model: str) -> str:
    """The config of a row, as one would call it."""
    zoo = ZOO[model]
    return f"`configs/{zoo.config}.yaml {' '.join(zoo.overrides)}`, {zoo.batch_size} samples a replica"


def keep(path: Path, others: Sequence[Path], machine: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """Writes the rows beside those that are there, and the table; returns the targets."""
    kept = rows_of([*others, *([path] if path.exists() else [])])
    kept |= {(row["model"], row["topology"]): row for row in rows}
    all_rows = in_order(kept, list(ZOO), list(SLICES))
    targets = _targets(all_rows)
    write_result(path, machine, {"rows": all_rows}, targets)
    models = {model: what_is_compiled(model) for model in ZOO}
    path.with_suffix(".md").write_text(markdown(all_rows, machine, models, list(SLICES)))
    return targets


def _targets(rows: Sequence[Row]) -> list[str]:
    share = sum(row["ok"] for row in rows) / len(rows)
    return [target_line("tpu_check_compiles_and_fits", share, ">=1.0")]


def print_row(row: dict[str, Any]) -> None:
    """A row for people."""
    if not row["ok"]:
        print(f"{row['model']:<15}{row['topology']:<13} {row['problems'][0]}", flush=True)
        return
    hbm, bounds = row["hbm"], row["roofline"]
    reduced = sum(collective["bytes"] for collective in row["collectives"])
    print(
        f"{row['model']:<15}{row['topology']:<13}{row['devices']:>4}{row['batch_size']:>8}"
        f"{format_bytes(hbm['needed_bytes']):>10}{100 * hbm['needed_bytes'] / hbm['usable_bytes']:>6.1f}%"
        f"{format_bytes(hbm['temporaries_bytes']):>10}{format_bytes(reduced):>10}{row['flops'] / 1e9:>10.2f}"
        f"{1e3 * bounds['bound_s']:>10.4f} {bounds['limit']:<8}{row['compile_s']:>7.1f}",
        flush=True,
    )


def main() -> int:
    """Compiles, prints and, if asked, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two models on two slices")
    parser.add_argument("--models", default=",".join(ZOO), help="comma-separated")
    parser.add_argument("--slices", default=",".join(SLICES), help="comma-separated")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="result files whose rows go there as well")
    options = parser.parse_args()
    machine = describe_machine(["python", "-m", "benchmarks.tpu_check"])
    machine["compiler"] = {name: version(name) for name in ("jax", "libtpu")}
    print_machine(machine)
    print(
        f"\n{'model':<15}{'slice':<13}{'repl':>4}{'batch':>8}{'HBM':>10}{'':>7}{'temp':>10}{'reduced':>10}{'GFLOP':>10}"
        f"{'bound ms':>10} {'by':<8}{'comp. s':>7}"
    )
    wanted = QUICK if options.quick else {model: options.slices.split(",") for model in options.models.split(",")}
    rows: list[Row] = []
    targets: list[str] = []
    for model, topologies in wanted.items():
        for topology in topologies:
            rows.append(compiled(model, topology))
            print_row(rows[-1])
            # Each time, because all of them take hours.
            targets = keep(options.json, options.also, machine, rows) if options.json else _targets(rows)
    print("\n" + "\n".join(targets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
