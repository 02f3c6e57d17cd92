"""What workers of a crew are told in tests: importable, since other processes import it."""

import os
import time
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0


def hold(folder: Path) -> None:
    """Says who is here, and waits for `go`; whoever strikes has time for it."""
    (folder / f"pid-{os.getpid()}").touch()
    deadline = time.monotonic() + PATIENCE_S
    while not (folder / "go").exists():
        assert time.monotonic() < deadline, "nobody says go"
        time.sleep(0.005)


def carry_out(order: dict[str, Any]) -> Any:
    """Squares a number, fails, ends the process, or holds first."""
    if "hold" in order:
        hold(Path(order["hold"]))
    if "error" in order:
        raise OSError(28, "full") if order["error"] == "disk" else NoPickle(1, 2)
    if "exit" in order:
        os._exit(order["exit"])
    return order["number"] ** 2


class NoPickle(Exception):
    """One that cannot pass between processes."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("two arguments")
