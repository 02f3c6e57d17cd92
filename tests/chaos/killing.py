"""Kills a real `phalanx train` at a chosen moment, with SIGKILL."""

import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.checkpoint.format import WRITING
from trainer.observe.metrics_log import read_metrics

Phase = Literal["start-up", "step", "evaluate", "checkpoint"]
PHASES: list[Phase] = ["step", "checkpoint", "evaluate", "start-up"]

_POLL_S = 0.001
_STARTUP_S = 6.0
_DEADLINE_S = 300.0


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
        phase: What the process is to be doing.
        step: Not before this step is logged; start-up does not wait for it.
    """

    phase: Phase
    step: int


def start(config: str, overrides: Sequence[str], output: Path) -> subprocess.Popen:
    """Starts `phalanx train` with its output in a file."""
    command = [sys.executable, "-c", "from launch.cli import main; main()", "train", config, *overrides]
    with output.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen, output: Path) -> None:
    """Waits for a good end."""
    code = process.wait(_DEADLINE_S)
    assert code == 0, f"exit code {code}\n{output.read_text()[-3000:]}"


def kill_at(process: subprocess.Popen, run: Path, moment: Moment, rng: random.Random) -> None:
    """Kills the process at the moment.

    Raises:
        AssertionError: The process ended by itself before.
    """
    if moment.phase == "start-up":
        _wait(process, rng.uniform(0, _STARTUP_S))
    else:
        waited_s = 0.0
        while not _is_now(run, moment):
            _wait(process, _POLL_S)
            waited_s += _POLL_S
            assert waited_s < _DEADLINE_S, f"{moment} never came"
        if moment.phase == "step":
            _wait(process, rng.uniform(0, 0.03))
    process.send_signal(signal.SIGKILL)
    process.wait()


def _wait(process: subprocess.Popen, timeout_s: float) -> None:
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError(f"the run ended with code {code} before it could be killed")


def _is_now(run: Path, moment: Moment) -> bool:
    lines = read_metrics(run / "metrics.jsonl")
    last = lines[-1]["step"] if lines else 0
    if last < moment.step:
        return False
    match moment.phase:
        case "checkpoint":
            return any(run.glob(f"checkpoints/{WRITING}*"))
        case "evaluate":
            evaluated = [line["step"] for line in lines if "split" in line]
            spacing = evaluated[0] if evaluated else 0
            return bool(spacing) and last % spacing == 0 and last not in evaluated
    return True
