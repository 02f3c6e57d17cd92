"""Work in a child process, whose crash is an answer and not ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIMEOUT_S = 900.0


class ChildFailed(Exception):
    """The child crashed, gave up or took too long. The message is half a sentence: what happened."""


def run_child(module: str, request: dict[str, Any], timeout_s: float = TIMEOUT_S) -> None:
    """Runs `python -m module REQUEST` to its end.

    Raises:
        ChildFailed: It did not end well.
    """
    run_command([sys.executable, "-m", module, json.dumps(request)], timeout_s)


def run_command(command: Sequence[str], timeout_s: float = TIMEOUT_S) -> None:
    """Runs a command to its end; the last line that it writes to its standard error says why it failed.

    Raises:
        ChildFailed: It did not end well.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    # The child finds this package where this process found it, wherever the command was typed.
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"it took more than {timeout_s:g} s") from None
    if done.returncode < 0:
        raise ChildFailed(f"it crashed with {signal.Signals(-done.returncode).name}")
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ChildFailed(lines[-1] if lines else f"it ended with exit code {done.returncode}")
