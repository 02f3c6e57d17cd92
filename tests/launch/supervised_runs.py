"""Runs with several workers, started through the command line: what tests do to them and read of them."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from trainer.observe.journal import read_journal
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
PATIENCE_S = 120.0


def write_config(folder: Path) -> str:
    path = folder / "group.yaml"
    path.write_text(CONFIG + f"run: {{dir: {folder}}}\n")
    return str(path)


def curve(run_folder: Path) -> list[dict]:
    changing = {"time", "examples_per_s", "data_wait"}
    lines = read_metrics(run_folder / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in changing} for line in lines]


def events(run_folder: Path, name: str) -> list[dict]:
    return [event for event in read_journal(run_folder / "journal.jsonl") if event["event"] == name]


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", "from launch.cli import main; main()", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    children: list[psutil.Process] = []
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.communicate()
    _, alive = psutil.wait_procs(children, 10)
    assert not alive, "processes outlived the launcher"


def wait_until(condition: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def last_step(folder: Path) -> int:
    return max((line["step"] for line in read_metrics(folder / "metrics.jsonl")), default=0)


def pid_of_rank(run_folder: Path, generation: int, rank: int) -> int:
    """The process of a member, as its agent has noted it in its log."""
    log = (run_folder / "logs" / str(generation) / f"{rank}.log").read_text()
    found = re.search(rf"process (\d+), is rank {rank}$", log, re.MULTILINE)
    assert found is not None, log
    return int(found[1])


def said(run_folder: Path) -> list[str]:
    """What the supervisor has told the person."""
    return [event["text"] for event in events(run_folder, "command") if event["command"] == "announce"]
