"""The run folder: what lies where in it, and the two files that say what the run is."""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.atomic_file import write_whole
from trainer.environment import describe_environment


class RunFolderError(Exception):
    """The run folder cannot be used. The message is one sentence for the user."""


class RunFolder:
    """A run's folder; constructing it touches nothing.

    Attributes:
        path: the folder itself.

    >>> RunFolder(Path("runs/mnist")).log(generation=0, rank=1).as_posix()
    'runs/mnist/logs/0/1.log'
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.journal = self.path / "journal.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.data_service = self.path / "data_service.json"
        self.logs = self.path / "logs"
        self.tensorboard = self.path / "tensorboard"
        self.traces = self.path / "trace"
        self.exports = self.path / "export"
        self.report = self.path / "report.html"
        self.inspection = self.path / "data_inspection.json"
        self.inspection_page = self.path / "data_inspection.html"

    def log(self, generation: int, rank: int) -> Path:
        """The output of one worker in one generation."""
        return self.logs / str(generation) / f"{rank}.log"

    def trace(self, rank: int) -> Path:
        """The trace spans of one rank."""
        return self.traces / f"{rank}.jsonl"

    def profile(self, rank: int) -> Path:
        """Where TensorBoard finds the profiles of one rank; the chief's belong to the run's own."""
        return self.tensorboard if rank == 0 else self.tensorboard / f"rank-{rank}"

    def export(self, version: int) -> Path:
        """An exported model."""
        return self.exports / str(version)

    @property
    def exists(self) -> bool:
        """Whether a run has been started here: its config is written before anything else."""
        return self.config.is_file()

    @property
    def has_progress(self) -> bool:
        """Whether the run has left anything to go on with: a logged step, or a checkpoint, damaged ones included."""
        try:
            logged = self.metrics.stat().st_size > 0
        except OSError:
            logged = False
        return logged or any(self.checkpoints.glob("*step-*"))

    def create(self) -> None:
        """Makes the folder where it is missing, and finds out whether it can be written.

        Raises:
            RunFolderError: it cannot be made or written, or something else has its name.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{os.getpid()}"
            # A few bytes, because a full disk still takes an empty file.
            probe.write_bytes(b"phalanx\n")
            probe.unlink()
        except (FileExistsError, NotADirectoryError):
            taken = next(place for place in [self.path, *self.path.parents] if place.exists() and not place.is_dir())
            raise RunFolderError(
                f"the run folder {self.path} cannot be made because {taken} is a file: move it, or choose another "
                "place with run.dir or run.name"
            ) from None
        except OSError as error:
            raise RunFolderError(
                f"the run folder {self.path} cannot be written ({error.strerror}): {_change_for(error)}, or choose "
                "another place with run.dir"
            ) from None

    def write_config(self, text: str) -> None:
        """Stores the resolved config, whole or not at all.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        self._write(self.config, text)

    def write_environment(self, command: Sequence[str]) -> dict[str, Any]:
        """Stores the circumstances of this process, and returns them. A resumed run holds those of its last start.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        environment = describe_environment(command)
        self._write(self.environment, json.dumps(environment, indent=2) + "\n")
        return environment

    def add_to_environment(self, **facts: Any) -> None:
        """Adds what is known only later to the circumstances that are stored, where there are any.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        environment = self.read_environment()
        if environment is not None:
            self._write(self.environment, json.dumps({**environment, **facts}, indent=2) + "\n")

    def read_environment(self) -> dict[str, Any] | None:
        """What the last start stored; None when there is nothing that can be read."""
        try:
            return json.loads(self.environment.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _write(self, path: Path, text: str) -> None:
        try:
            write_whole(path, text)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be written ({error.strerror}): {_change_for(error)}") from None


def find_run(path: Path | str) -> RunFolder:
    """The run that a path means, for the commands that need one that is there.

    Raises:
        RunFolderError: there is no run.
    """
    run = RunFolder(path)
    if run.exists:
        return run
    if not run.path.exists():
        rule = f"there is no folder {run.path}"
    elif not run.path.is_dir():
        rule = f"{run.path} is a file, not a run folder"
    else:
        rule = f"{run.path} is not a run folder: it has no config.yaml"
    parent = run.path if run.path.is_dir() else run.path.parent
    runs = sorted(config.parent for config in parent.glob("*/config.yaml")) if parent.is_dir() else []
    change = f"choose one of {', '.join(map(str, runs[:5]))}" if runs else "give the folder of a run, as in runs/mnist"
    raise RunFolderError(f"{rule}: {change}")


def _change_for(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free space there"
    if error.errno == errno.ENAMETOOLONG:
        return "give it a shorter name"
    return "make it writable"
