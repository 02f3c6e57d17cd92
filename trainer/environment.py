"""The circumstances of a run: versions, source code, machine and command, for its report and for whoever repeats it."""

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PACKAGES = ("phalanx", "tensorflow", "keras", "numpy")
_GIT_TIMEOUT_S = 5.0


def describe_environment(command: Sequence[str]) -> dict[str, Any]:
    """What `environment.json` holds. Imports none of the packages whose versions it names.

    Args:
        command: the command line of this process.

    Returns:
        `python`, `packages` (name -> version), `git` (`commit`, `dirty`; None outside a repository), `host`,
        `system`, `cpu`, `cores`, `cores_usable`, `memory_bytes`, `command`, `folder`.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": _git(),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "command": list(command),
        "folder": os.getcwd(),
    }


def version_changes(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs so that a resumed run may not be the same to the bit, one `name: old -> new` each."""
    before = {"python": stored.get("python"), **(stored.get("packages") or {}), "cpu": stored.get("cpu")}
    after = {"python": now.get("python"), **(now.get("packages") or {}), "cpu": now.get("cpu")}
    return [f"{name}: {old} -> {after[name]}" for name, old in before.items() if name in after and old != after[name]]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    commit = _git_output("rev-parse", "HEAD")
    if commit is None:
        return None
    # None where the question takes too long, as on a cold network disk.
    changes = _git_output("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git_output(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()
