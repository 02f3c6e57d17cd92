"""Every shipped config with every strategy that suits it: does it train, do the curves agree, is a kill undone?

python -m benchmarks.zoo [--configs mnist,digits_cnn] [--strategies one_device,elastic] [--steps 100] [--json FILE]
python -m benchmarks.zoo --full [--configs ...] [--json FILE]

Each cell of the matrix is two runs of a few steps on the config's own data: one undisturbed, and one whose process, or
one of whose workers, is killed in the middle. Their curves must be equal to the bit. Curves of different strategies
agree within rounding; the largest difference of a logged loss from that of one device, relative, is stated.
`--full` trains each config to its end on one device and holds the result against what the config's head says.

With --json the rows that the file has already stay, where they are not measured again, and a table for people is
written beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.attempts import AttemptFailed, started, wait_for
from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from launch.config import load_config
from trainer.checkpoint.store import CheckpointStore
from trainer.observe.journal import read_journal
from trainer.observe.metrics_log import read_metrics

PHALANX = [sys.executable, "-c", "from launch.cli import main; main()"]
STRATEGIES = {
    "one_device": ["strategy.name=one_device"],
    "mirrored": ["strategy.name=mirrored", "strategy.devices=2"],
    "multi_worker_mirrored": ["strategy.name=multi_worker_mirrored", "cluster.workers=2"],
    "elastic": ["strategy.name=elastic", "cluster.workers=2"],
    "parameter_server": ["strategy.name=parameter_server", "cluster.workers=3"],
}
# What a config needs beside itself: data without files, and no run that it begins from.
ALONE = {
    "resnet50": [
        "data.name=synthetic", "data.shape=[64,64,3]", "data.num_classes=10", "data.num_samples=512",
        "data.batch_size=8", "train.accumulate=1", "precision=float32", "optimizer.schedule.warmup=null",
    ],
    "digits_transfer": ["warm_start=null"],
    "shakespeare_genre": ["warm_start=null", "data.tokenizer=subword"],
}  # fmt: skip
# The metric that each config's head states, and how good it must be: a little less than the head says.
STATED: Mapping[str, tuple[str, str]] = {
    "mnist": ("accuracy", ">=0.93"),
    "mnist_large": ("accuracy", ">=0.93"),
    "digits_cnn": ("accuracy", ">=0.97"),
    "flights_tabular": ("auc", ">=0.90"),
    "flights_wide_and_deep": ("pr_auc", ">=0.90"),
    "german_credit": ("auc", ">=0.80"),
    "movielens_retrieval": ("recall_10", ">=0.10"),
    "movielens_dlrm": ("auc", ">=0.77"),
    "mnist_mobilenet": ("accuracy", ">=0.95"),
    "mnist_efficientnet": ("accuracy", ">=0.94"),
    "mnist_convnext": ("accuracy", ">=0.95"),
    "mnist_vit": ("accuracy", ">=0.91"),
    "lesions_unet": ("mean_iou", ">=0.85"),
    "shakespeare_lm": ("perplexity", "<=75"),
    "shakespeare_moe": ("perplexity", "<=66"),
    "shakespeare_packed": ("perplexity", "<=70"),
    "shakespeare_bert": ("perplexity", "<=30"),
    "glyphs_verification": ("auc", ">=0.99"),
    "weather_tcn": ("mae", "<=4.5"),
    "weather_transformer": ("mae", "<=4.6"),
}
_TABLES = ("flights_tabular", "flights_wide_and_deep", "german_credit", "movielens_dlrm", "movielens_retrieval")
_NOTES = {
    "movielens_retrieval": "The wrong answers of `movielens_retrieval` are those of a replica's own part of the batch, "
    "so its curve depends on their number.",
    "mnist_mobilenet": "Each replica normalises its own part of the batch, so the curves of `mnist_mobilenet` and "
    "`digits_transfer` (here without its warm start, most layers frozen at chance) depend on it too.",
}
_OF_MOMENT = {"time", "examples_per_s", "data_wait"}
_CHECKPOINTS = 5  # in a run


@dataclass(frozen=True)
class Cell:
    """A config with a strategy."""

    config: str
    strategy: str

    @property
    def name(self) -> str:
        """Of its run."""
        return f"{self.config}-{self.strategy}"


def cells_of(configs: Sequence[str], strategies: Sequence[str]) -> list[Cell]:
    """Those that suit each other: parameter servers are for tables, whose embeddings they keep."""
    return [
        Cell(config, strategy)
        for config in configs
        for strategy in strategies
        if strategy != "parameter_server" or config in _TABLES
    ]


def settings_of(cell: Cell, steps: int, folder: Path, name: str) -> list[str]:
    """The overrides of a run of so many steps."""
    every = max(1, steps // _CHECKPOINTS)
    config = load_config(f"configs/{cell.config}.yaml", ALONE.get(cell.config, []))
    own = ["data.remainder=drop"] if config.data.remainder == "keep" else []
    if getattr(config.optimizer.schedule, "warmup", None) is not None:
        own.append(f"optimizer.schedule.warmup={max(1, steps // 10)}st")  # theirs may be longer than this run
    return [
        *ALONE.get(cell.config, []), *own, *STRATEGIES[cell.strategy],
        f"run.dir={folder}", f"run.name={name}", f"train.steps={steps}", "train.epochs=null",
        f"train.log_every={max(1, steps // 20)}", f"checkpoint.every={every}st", "checkpoint.max_overhead=null",
        "checkpoint.best_metric=null", "evaluate.every=null", "observe.tensorboard=false", "export.enabled=false",
    ]  # fmt: skip


def curve(run: Path) -> list[dict[str, Any]]:
    """What a run logged, less what belongs to the moment."""
    lines = read_metrics(run / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in _OF_MOMENT} for line in lines]


def train(cell: Cell, settings: Sequence[str], run: Path, kill_after: int | None) -> float:
    """One run, killed once after its first checkpoint from that step on where that is asked for.

    Returns:
        Its seconds.

    Raises:
        AttemptFailed: It did not come to its end.
    """
    log, began = run.with_suffix(".log"), time.monotonic()
    command = [*PHALANX, "train", f"configs/{cell.config}.yaml", *settings]
    with started(command, log) as process:
        if kill_after is not None:
            store = CheckpointStore(run / "checkpoints")
            wait_for(lambda: max(store.steps(), default=0) >= kill_after, process, log)
            if process.poll() is None:
                os.kill(_victim(process.pid, run, cell), signal.SIGKILL)
        code = process.wait()
    if code and kill_after is not None:
        with started([*PHALANX, "resume", str(run)], log) as process:
            code = process.wait()
    if code:
        raise AttemptFailed(f"{cell.name} ended with {code}: {log.read_text(errors='replace')[-1500:]}")
    return time.monotonic() - began


def _victim(launcher: int, run: Path, cell: Cell) -> int:
    """The process alone, or one of the workers that train."""
    if cell.strategy in ("one_device", "mirrored"):
        return launcher
    pids = [event["pid"] for event in read_journal(run / "journal.jsonl") if event["event"] in ("started", "resumed")]
    return next((pid for pid in reversed(pids) if psutil.pid_exists(pid)), launcher)


def measure(cell: Cell, steps: int, folder: Path, seed: random.Random) -> dict[str, Any]:
    """The row of a cell."""
    whole, struck = folder / f"{cell.name}-whole", folder / f"{cell.name}-struck"
    row: dict[str, Any] = {"config": cell.config, "strategy": cell.strategy, "steps": steps}
    try:
        row["seconds"] = train(cell, settings_of(cell, steps, folder, whole.name), whole, None)
        kill_after = seed.randrange(1, 1 + steps * 3 // 5)
        train(cell, settings_of(cell, steps, folder, struck.name), struck, kill_after)
    except (AttemptFailed, ValueError) as error:
        return {**row, "ok": False, "problem": str(error)[-1500:]}
    undisturbed = curve(whole)
    losses = [line["loss"] for line in undisturbed if "split" not in line]
    row |= {"losses": losses, "equal_after_kill": undisturbed == curve(struck), "final": undisturbed[-1]}
    row["was_killed"] = _was_killed(struck)
    return {**row, "ok": row["equal_after_kill"] and row["was_killed"]}


def _was_killed(run: Path) -> bool:
    """Whether the signal came before the run's end: it resumed, or the supervisor saw a worker die of it."""
    return any(
        event["event"] == "resumed" or (event["event"] == "worker_exited" and event.get("signal") == signal.SIGKILL)
        for event in read_journal(run / "journal.jsonl")
    )


def difference(row: Mapping[str, Any], alone: Mapping[str, Any] | None) -> float | None:
    """The largest difference of a logged loss from that of one device, as a share of it."""
    if alone is None or "losses" not in row or "losses" not in alone:
        return None
    pairs = zip(row["losses"], alone["losses"], strict=True)
    return max(abs(one - other) / max(abs(other), 1e-9) for one, other in pairs)


def full(config: str, folder: Path) -> dict[str, Any]:
    """A whole run on one device, beside what the config's head states."""
    cell, run = Cell(config, "one_device"), folder / config
    metric, goal = STATED[config]
    row: dict[str, Any] = {"config": config, "metric": metric, "goal": goal}
    try:
        row["seconds"] = train(cell, [f"run.dir={folder}", f"run.name={config}", "export.enabled=false"], run, None)
        final = [line for line in read_metrics(run / "metrics.jsonl") if "split" in line][-1]
        row["value"] = final[metric]
    except (AttemptFailed, ValueError, KeyError, IndexError) as error:
        return {**row, "ok": False, "problem": repr(error)[-1500:]}
    return {**row, "ok": target_line(config, row["value"], goal).endswith("ok")}


def table_of(rows: Sequence[Mapping[str, Any]], head: str) -> str:
    """The matrix as Markdown."""
    if rows and "metric" in rows[0]:
        lines = [head, "", "| config | metric | reached | stated | seconds |", "|---|---|---|---|---|"]
        for row in rows:
            value = f"{row['value']:.4g}" if "value" in row else "failed"
            lines.append(
                f"| {row['config']} | {row['metric']} | {value} | {row['goal']}{'' if row['ok'] else ' **short**'} | "
                f"{row.get('seconds', float('nan')):.0f} |"
            )
        return "\n".join(lines) + "\n"
    columns = (
        "config",
        "strategy",
        "steps",
        "loss, first and last",
        "from one device",
        "killed, to the bit",
        "seconds",
    )
    lines = [head, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    alone = {row["config"]: row for row in rows if row["strategy"] == "one_device"}
    for row in rows:
        if "losses" not in row:
            lines.append(f"| {row['config']} | {row['strategy']} | {row['steps']} | **failed** | | | |")
            continue
        far = difference(row, alone.get(row["config"]))
        cells = (
            row["config"],
            row["strategy"],
            row["steps"],
            f"{row['losses'][0]:.4f} -> {row['losses'][-1]:.4f}",
            "" if far is None else f"{far:.1e}",
            "**differs**" if not row["equal_after_kill"] else "equal" if row["was_killed"] else "was too late",
            f"{row['seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def merged(before: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows in the order of config and strategy, each the newest."""
    newest = {(row["config"], row.get("strategy", "")): row for row in [*before, *rows]}
    order = ["", *STRATEGIES]
    return sorted(newest.values(), key=lambda row: (row["config"], order.index(row.get("strategy", ""))))


def not_run(rows: Sequence[Mapping[str, Any]], known: Sequence[str]) -> str:
    """What of the whole matrix is missing, and what must be said of what is there, as lines of the table's head."""
    there = {(row["config"], row["strategy"]) for row in rows}
    names = []
    for config in known:
        cells = cells_of([config], list(STRATEGIES))
        missing = [cell.strategy for cell in cells if (config, cell.strategy) not in there]
        if missing:
            names.append(config if len(missing) == len(cells) else f"{config} ({', '.join(missing)})")
    notes = [_NOTES[config] for config in sorted({row["config"] for row in rows} & _NOTES.keys())]
    return "".join(f"\n{note}" for note in [f"Not run, for want of time: {', '.join(names)}.", *notes][not names :])


def main() -> int:
    """Trains, prints and, if asked, writes after every row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = sorted(path.stem for path in Path("configs").glob("*.yaml"))
    parser.add_argument("--configs", default="", help="comma-separated; all without it")
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="comma-separated")
    parser.add_argument("--steps", type=int, default=200, help="of each run")
    parser.add_argument("--full", action="store_true", help="each config to its end, on one device")
    parser.add_argument("--json", type=Path, help="where the figures go; the table goes beside it")
    options = parser.parse_args()
    configs = [name for name in options.configs.split(",") if name] or known
    if unknown := [name for name in configs if name not in known]:
        parser.error(f"--configs has {unknown[0]!r}: choose from {', '.join(known)}")
    machine = describe_machine(["python", "-m", "benchmarks.zoo", *sys.argv[1:]])
    print_machine(machine)
    rows: list[dict[str, Any]] = []
    before: list[dict[str, Any]] = []
    if options.json is not None and options.json.exists():
        before = json.loads(options.json.read_text())["figures"]["rows"]
    todo = (
        [name for name in configs if name in STATED]
        if options.full
        else cells_of(configs, options.strategies.split(","))
    )
    head = (
        f"# {'Results of every config' if options.full else 'Every config with every strategy'}, {machine['date']}\n\n"
        f"`{' '.join(machine['command'])}`"
    )
    with tempfile.TemporaryDirectory() as folder:
        for one in todo:
            row = (
                full(one, Path(folder))
                if isinstance(one, str)
                else measure(one, options.steps, Path(folder), random.Random(one.name))
            )
            rows.append(row)
            print(json.dumps({key: value for key, value in row.items() if key != "losses"}), flush=True)
            together = merged(before, rows)
            share = sum(r["ok"] for r in together) / len(together)
            targets = [target_line("zoo_full" if options.full else "zoo", share, ">=1.0")]
            if options.json:
                missing = "" if options.full else not_run(together, known)
                write_result(options.json, machine, {"rows": together}, targets)
                options.json.with_suffix(".md").write_text(table_of(together, head + missing))
    print("\n" + table_of(rows, head) + "\n" + "\n".join(targets))
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
