"""What a published figure must say of the machine it was measured on."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from trainer.environment import describe_environment
from trainer.strategies.horovod_installation import installation_problem, package_folder


def describe_machine(command: Sequence[str]) -> dict[str, Any]:
    """Hardware, versions, date and command."""
    # Where it lay on that machine means nothing to a reader.
    environment = {name: value for name, value in describe_environment(command).items() if name != "folder"}
    return {"date": datetime.date.today().isoformat(), **environment}


def has_horovod() -> bool:
    """Whether a Horovod that was built for the installed TensorFlow is there (`make horovod`)."""
    return installation_problem(package_folder(), metadata.version("tensorflow")) is None


def print_machine(machine: dict[str, Any]) -> None:
    """One line a fact."""
    for name, value in machine.items():
        print(f"{name}: {value if not isinstance(value, dict) else json.dumps(value)}")


def target_line(name: str, value: float, goal: str) -> str:
    """`target NAME VALUE GOAL ok|short`; the goal is a comparison such as ">=1.0", "<=0.5" or "<0.01"."""
    limit = float(goal.lstrip("<>="))
    reached = value >= limit if goal.startswith(">=") else value <= limit if "=" in goal else value < limit
    return f"target {name} {value:.4g} {goal} {'ok' if reached else 'short'}"


def write_result(path: Path, machine: dict[str, Any], figures: dict[str, Any], targets: Sequence[str]) -> None:
    """The result file that is kept beside the script."""
    path.write_text(json.dumps({"machine": machine, "figures": figures, "targets": list(targets)}, indent=2) + "\n")
