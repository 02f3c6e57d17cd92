"""`logs/<generation>/<rank>.log`: what a process says about itself, kept beside the run."""

import faulthandler
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def write_log(path: Path) -> Iterator[None]:
    """Send log records, warnings and the stacks of a crash to the log file of this process.

    Args:
        path: the file; its folder is created.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO) if level else logging.INFO)
    logging.captureWarnings(True)
    # A descriptor of its own: the stacks of a crash are written when Python's objects cannot be trusted any more.
    stacks = path.open("a", encoding="utf-8")
    faulthandler.enable(stacks)
    root.info("%s on %s, process %d", shlex.join(sys.argv), socket.gethostname(), os.getpid())
    try:
        yield
    except BaseException:
        root.exception("the process ends with an error")
        raise
    finally:
        faulthandler.disable()
        stacks.close()
        logging.captureWarnings(False)
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()


def launcher_log(logs: Path) -> Path:
    """What the launchers of a detached run would have shown in a terminal, and what its keeper says."""
    return logs / "launcher.log"


def log_files(logs: Path) -> list[list[Path]]:
    """The log files in a run's `logs` folder: of each generation, oldest first, in the order of their ranks."""
    generations = [path for path in logs.glob("*") if path.name.isdigit() and path.is_dir()]
    ordered = sorted(generations, key=lambda path: int(path.name))
    found = [sorted(path.glob("*.log"), key=lambda log: (len(log.stem), log.stem)) for path in ordered]
    return [paths for paths in found if paths]
