"""Every shipped config with every strategy that suits it: does it train, do the curves agree, is a kill undone?

python -m benchmarks.zoo [--configs mnist,digits_cnn] [--strategies one_device,elastic] [--steps 100] [--json FILE]
python -m benchmarks.zoo --full [--configs ...] [--json FILE]

Each cell of the matrix is two runs of a few steps on real data: one undisturbed, and one whose process, or one of whose
workers, is killed in the middle. Their curves must be equal to the bit. Curves of different strategies agree within
rounding; the largest difference of a logged loss from that of one device, relative, is stated. What a cell changes in
its config stands in `zoo_cells.py`, and above the table.
`--full` trains each config to its end on one device, after the one that it begins from, and holds the result against
what the config's head says; what such a run changes stands above its table.

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
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from benchmarks.attempts import AttemptFailed, started, wait_for
from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from benchmarks.zoo_cells import STATED, STRATEGIES, Cell, cells_of, in_order, settings_of, whole_settings
from benchmarks.zoo_table import head_of, merged, notes_on, notes_on_results, table_of
from trainer.checkpoint.store import CheckpointStore
from trainer.observe.journal import read_journal
from trainer.observe.metrics_log import read_metrics
from trainer.strategies.horovod_installation import installation_problem, package_folder

PHALANX = [sys.executable, "-c", "from launch.cli import main; main()"]
_OF_MOMENT = {"time", "examples_per_s", "data_wait"}
_PATIENCE_S = 3600.0  # until the checkpoint at which a run is killed: large networks, beside whatever else runs


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
            wait_for(lambda: max(store.steps(), default=0) >= kill_after, process, log, _PATIENCE_S)
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


def full(config: str, folder: Path) -> dict[str, Any]:
    """A whole run on one device, beside what the config's head states."""
    cell, run = Cell(config, "one_device"), folder / config
    metric, goal = STATED[config]
    row: dict[str, Any] = {"config": config, "metric": metric, "goal": goal}
    try:
        row["seconds"] = train(cell, whole_settings(config, folder), run, None)
        final = [line for line in read_metrics(run / "metrics.jsonl") if "split" in line][-1]
        row |= {"value": final[metric], "steps": final["step"]}
    except (AttemptFailed, ValueError, KeyError, IndexError) as error:
        return {**row, "ok": False, "problem": repr(error)[-1500:]}
    return {**row, "ok": target_line(config, row["value"], goal).endswith("ok")}


def measured(
    configs: Sequence[str], strategies: Sequence[str], steps: int | None, folder: Path
) -> Iterator[dict[str, Any]]:
    """The rows one after the other: of the matrix, or without a number of steps of whole runs."""
    if steps is None:
        yield from (full(config, folder) for config in in_order(configs))
        return
    for cell in cells_of(configs, strategies):
        yield measure(cell, steps, folder, random.Random(cell.name))


def kept_rows(path: Path | None) -> list[dict[str, Any]]:
    """What a result file has already, each row with its date and source code."""
    if path is None or not path.exists():
        return []
    kept = json.loads(path.read_text())
    return [{**_origin(kept["machine"]), **row} for row in kept["figures"]["rows"]]


def _origin(machine: Mapping[str, Any]) -> dict[str, Any]:
    return {"date": machine["date"], "commit": (machine["git"] or {}).get("commit")}


def main() -> int:
    """Trains, prints and, if asked, writes after every row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = sorted(path.stem for path in Path("configs").glob("*.yaml"))
    parser.add_argument("--configs", default="", help="comma-separated; all without it")
    parser.add_argument("--strategies", default="", help="comma-separated; all that can run here without it")
    parser.add_argument("--steps", type=int, default=200, help="of each run")
    parser.add_argument("--full", action="store_true", help="each config to its end, on one device")
    parser.add_argument("--json", type=Path, help="where the figures go; the table goes beside it")
    options = parser.parse_args()
    configs = [name for name in options.configs.split(",") if name] or known
    strategies = [name for name in options.strategies.split(",") if name] or list(STRATEGIES)
    for option, names, choices in (("configs", configs, known), ("strategies", strategies, list(STRATEGIES))):
        if unknown := [name for name in names if name not in choices]:
            parser.error(f"--{option} has {unknown[0]!r}: choose from {', '.join(choices)}")
    no_horovod = installation_problem(package_folder(), metadata.version("tensorflow"))
    if no_horovod and "horovod" in strategies and not options.full:
        if options.strategies:
            parser.error(no_horovod)
        print(f"left out: {no_horovod}")
        strategies.remove("horovod")
    machine = describe_machine(["python", "-m", "benchmarks.zoo", *sys.argv[1:]])
    print_machine(machine)
    rows, before, head, targets = [], kept_rows(options.json), head_of(machine, options.full), []
    with tempfile.TemporaryDirectory() as folder:
        for row in measured(configs, strategies, None if options.full else options.steps, Path(folder)):
            rows.append({**row, **_origin(machine)})
            print(json.dumps({key: value for key, value in row.items() if key != "losses"}), flush=True)
            together = merged(before, rows)
            share = sum(r["ok"] for r in together) / len(together)
            targets = [target_line("zoo_full" if options.full else "zoo", share, ">=1.0")]
            if options.json:
                notes = notes_on_results(together) if options.full else notes_on(together, known)
                write_result(options.json, machine, {"rows": together}, targets)
                options.json.with_suffix(".md").write_text(table_of(together, head + notes))
    print("\n" + table_of(rows, head) + "\n" + "\n".join(targets))
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
