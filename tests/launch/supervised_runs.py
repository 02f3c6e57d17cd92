"""Runs with several workers, started through the command line: what tests do to them and read of them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from trainer.checkpoint.store import CheckpointStore
from trainer.observe.json_lines import decode_line
from trainer.observe.metrics_log import read_metrics

CONFIG = """\
model: {name: mlp, hidden: [8], dropout: 0.2}
data: {name: synthetic, shape: [6], num_classes: 3, num_samples: 256, held_out_samples: 32, batch_size: 16}
train: {steps: 600, log_every: 10, steps_per_loop: 10}
evaluate: {every: 200st}
checkpoint: {every: 1000st}
cluster: {workers: 2, snapshot_every: 8, standbys: 0, rehearse: false}
strategy: {name: multi_worker_mirrored}
observe: {tensorboard: false}
export: {enabled: false}
"""
PATIENCE_S = 300.0  # a bound for what never comes: a loaded machine may take minutes
_LAST_LINES = 4096  # bytes that hold some


def write_config(folder: Path) -> str:
    path = folder / "group.yaml"
    path.write_text(CONFIG + f"run: {{dir: {folder}}}\n")
    return str(path)


def curve(run_folder: Path) -> list[dict]:
    changing = {"time", "examples_per_s", "data_wait"}
    lines = read_metrics(run_folder / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in changing} for line in lines]


def events(run_folder: Path, name: str) -> list[dict]:
    """The events of one name. Tests ask again and again: only their lines are decoded, of a journal of thousands."""
    path, mark = run_folder / "journal.jsonl", f'"event": "{name}"'.encode()
    lines = path.read_bytes().splitlines() if path.exists() else []
    found = [decode_line(line) for line in lines if mark in line]
    return [event for event in found if event is not None and event["event"] == name]


def formed(run_folder: Path, rank: int = 0) -> list[dict]:
    """The assignments of the members that were given this rank, oldest first."""
    forms = [event["assignment"] for event in events(run_folder, "command") if event["command"] == "form"]
    return [assignment for assignment in forms if assignment["rank"] == rank]


@contextmanager
def started(
    *arguments: str, program: str = "from launch.cli import main; main()", **environment: str
) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    children: list[psutil.Process] = []
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    _, alive = psutil.wait_procs(children, 10)
    assert not alive, "processes outlived the launcher"


def wait_until(condition: Callable[[], object], process: subprocess.Popen) -> None:
    """Waits for something of a run; if that ends before, or it never comes, the test fails with what the run said."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"it never came; until then the run said:\n{process.communicate(timeout=60)[0]}")
        time.sleep(0.02)  # the processors are for those that are waited for


def wait_for(condition: Callable[[], object], folder: Path) -> None:
    """Waits for something of a detached run."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, (folder / "logs" / "launcher.log").read_text()
        time.sleep(0.005)


def last_step(folder: Path) -> int:
    """The newest step of the metrics, read from the end of the file."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_LINES))
        lines = [decode_line(line) for line in file.read().splitlines()]
    return max((line["step"] for line in lines if line and "step" in line), default=0)


def snapshots(run_folder: Path, generation: int) -> dict[str, int]:
    """The newest step of a generation that each host is known to hold in its memory."""
    taken = [event for event in events(run_folder, "snapshot_taken") if event["generation"] == generation]
    return {event["host"]: event["step"] for event in taken}


def pid_of_rank(run_folder: Path, generation: int, rank: int) -> int:
    """The process of a member, as its agent has noted it in its log."""
    log = (run_folder / "logs" / str(generation) / f"{rank}.log").read_text()
    found = re.search(rf"process (\d+), is rank {rank}$", log, re.MULTILINE)
    assert found is not None, log
    return int(found[1])


def generations(folder: Path) -> list[tuple[int, int]]:
    """The number and the size of each generation so far."""
    forms = [event["assignment"] for event in events(folder, "command") if event["command"] == "form"]
    return [(part["generation"], len(part["members"])) for part in forms if part["rank"] == 0]


def kill(folder: Path, rank: int, number: signal.Signals, process: subprocess.Popen) -> None:
    """Signals a member of the newest generation, once that has got somewhere."""
    generation, _ = generations(folder)[-1]
    begun = last_step(folder)
    wait_until(lambda: last_step(folder) > begun, process)
    os.kill(pid_of_rank(folder, generation, rank), number)
    wait_until(lambda: generations(folder)[-1][0] > generation, process)


def said(run_folder: Path) -> list[str]:
    """What the supervisor has told the person."""
    return [event["text"] for event in events(run_folder, "command") if event["command"] == "announce"]


def wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    """Waits until there is a newer one than now."""
    store = CheckpointStore(folder / "checkpoints")
    before = max(store.steps(), default=0)
    wait_until(lambda: max(store.steps(), default=0) > before, process)


def workers_of(folder: Path) -> list[psutil.Process]:
    """All workers of a run on this machine, also standbys."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "launch.worker" in command and str(folder) in command:
            found.append(process)
    return found
