"""The folder that keeps a run's checkpoints: which there are, which one is good, which ones stay.

One process at a time may write here, the one that holds the run's lock; others may read while it does.
"""

import contextlib
import errno
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainer.best_metric import lower_is_better
from trainer.checkpoint.format import (
    MANIFEST,
    STATE,
    WRITING,
    Checkpoint,
    DamagedCheckpoint,
    folder_name,
    read_checkpoint,
    read_manifest,
    restore_replaced,
    verify,
    write_checkpoint,
)
from trainer.checkpoint.host_buffer import HostBuffer

BestMode = Literal["auto", "max", "min"]

_RETIRED = ".retired-"
_STEP = re.compile(r"step-(\d{8,})")
_LISTINGS = 10  # times that a reader lists the folder anew because the writer retired what it was reading
_MANIFEST_BYTES = 64 << 10  # allowance in the check of free space


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: `checkpoints` in the run folder; `prepare` creates it.
        keep: newest checkpoints that stay, at least 1.
        best_metric: a name in `metadata["metrics"]`; the checkpoint with the best value stays beside the newest.
        best_mode: whether the largest or the smallest value is the best; auto: by the metric's name.

    Raises:
        ValueError: `keep` is below 1.
    """

    def __init__(
        self, folder: Path, keep: int = 3, best_metric: str | None = None, best_mode: BestMode = "auto"
    ) -> None:
        if keep < 1:
            raise ValueError(f"checkpoint.keep={keep} must be at least 1: the last good checkpoint always stays")
        self.folder = folder
        self._keep, self._best_metric = keep, best_metric
        self._sign = -1 if best_metric and lower_is_better(best_metric, best_mode) else 1
        self._known_good: set[int] = set()  # steps that this process has written or verified
        self._scores: dict[int, float] = {}
        self._spare: Path | None = None

    def prepare(self) -> None:
        """Creates the folder and clears away what a killed process has left. Only for the holder of the run's lock.

        Raises:
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        restore_replaced(self.folder)
        for pattern in (f"{WRITING}*", f"{_RETIRED}*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(int(match[1]) for name in names if (match := _STEP.fullmatch(name)))

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / folder_name(step)

    def newest_verified(
        self, on_damaged: Callable[[DamagedCheckpoint, Path | None], None] | None = None, *, set_aside: bool = True
    ) -> Checkpoint | None:
        """The newest checkpoint whose every byte is as it was written; None when there is none.

        Args:
            on_damaged: hears of each damaged one that was newer, and where it has been set aside.
            set_aside: damaged ones are renamed to `damaged-step-...`, so that they are not read again. A process
                that does not hold the run's lock passes False.

        Raises:
            PermissionError: a checkpoint may not be read.
        """
        damaged: set[int] = set()
        for _ in range(_LISTINGS):
            for step in reversed(self.steps()):
                if step in damaged:
                    continue
                try:
                    checkpoint = read_checkpoint(self.path(step))
                except FileNotFoundError:
                    break
                except DamagedCheckpoint as damage:
                    if not self.path(step).is_dir():
                        break  # retired, and written over, while it was being read
                    damaged.add(step)
                    place = self._set_aside(step) if set_aside else None
                    if on_damaged:
                        on_damaged(damage, place)
                    continue
                self._known_good.add(step)
                return checkpoint
            else:
                return None
        return None

    def commit(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray] | HostBuffer,
        metadata: Mapping[str, Any] | bytes,
        before_commit: Callable[[], None] | None = None,
    ) -> Path:
        """Writes a checkpoint, then retires those that need not stay. Arguments as in `write_checkpoint`.

        Raises:
            OSError: the disk is full or cannot be written; the other checkpoints are untouched.
        """
        self._check_space(arrays)
        spare, self._spare = self._spare, None
        path = write_checkpoint(self.folder, step, arrays, metadata, spare=spare, before_commit=before_commit)
        self._known_good.add(step)
        self._scores.pop(step, None)
        self.retain()
        return path

    def best(self) -> int | None:
        """The step with the best value of the metric; None when no checkpoint has one."""
        if self._best_metric is None:
            return None
        scores = {step: self._score(step) for step in self.steps()}
        found = {step: score for step, score in scores.items() if score > -math.inf}
        return max(found, key=lambda step: (found[step], step)) if found else None

    def retain(self) -> list[int]:
        """Removes all but the newest and the best checkpoints.

        Nothing is removed unless one of those that stay is known to be good; if need be they are read to find out.

        Returns:
            The steps that were removed.
        """
        steps = self.steps()
        stay = set(steps[-self._keep :])
        if (best := self.best()) is not None:
            stay.add(best)
        leave = [step for step in steps if step not in stay]
        if not leave or not (stay & self._known_good or any(self._is_good(step) for step in sorted(stay)[::-1])):
            return []
        return [step for step in leave if self._retire(step)]

    def discard_after(self, step: int) -> list[int]:
        """Removes the checkpoints of later steps, when training goes back to `step` and takes another way from there.

        Raises:
            DamagedCheckpoint: that of `step` is not good, and nothing was removed.
            FileNotFoundError: there is none of `step`, and nothing was removed.
        """
        verify(self.path(step))
        return [later for later in self.steps() if later > step and self._retire(later)]

    def _is_good(self, step: int) -> bool:
        try:
            verify(self.path(step))
        except (DamagedCheckpoint, OSError):
            return False
        self._known_good.add(step)
        return True

    def _score(self, step: int) -> float:
        """The metric, so that more is better; minus infinity where the checkpoint has none or cannot tell."""
        if step not in self._scores:
            try:
                metrics = read_manifest(self.path(step))["metadata"].get("metrics") or {}
                score = self._sign * float(metrics[self._best_metric])
            except (DamagedCheckpoint, OSError, KeyError, TypeError, ValueError, AttributeError):
                score = -math.inf
            self._scores[step] = -math.inf if math.isnan(score) else score
        return self._scores[step]

    def _retire(self, step: int) -> bool:
        """Takes a checkpoint out of sight by one rename, before any of its files goes.

        The newer checkpoints are durable by then. Should a power failure bring the name back over written-over blocks,
        the digests tell, and newer checkpoints are preferred anyway; so no sync is needed here.
        """
        retired = self.folder / f"{_RETIRED}{step:08d}-{os.getpid()}"
        try:
            os.rename(self.path(step), retired)
        except OSError:
            return False
        self._known_good.discard(step)
        self._scores.pop(step, None)
        if self._spare is None and set(os.listdir(retired)) == {STATE, MANIFEST}:
            self._spare = retired
        else:
            shutil.rmtree(retired, ignore_errors=True)
        return True

    def _set_aside(self, step: int) -> Path | None:
        for attempt in range(1, 100):
            suffix = "" if attempt == 1 else f"-{attempt}"
            place = self.folder / f"damaged-{folder_name(step)}{suffix}"
            if place.exists():
                continue
            with contextlib.suppress(OSError):  # a read-only folder: it was reported, and that is enough
                os.rename(self.path(step), place)
                return place
            return None
        return None

    def _check_space(self, arrays: Mapping[str, np.ndarray] | HostBuffer) -> None:
        """Refuses before anything is written; a disk that fills up meanwhile is found by the write itself."""
        size = len(arrays.image) if isinstance(arrays, HostBuffer) else sum(a.nbytes for a in arrays.values())
        needed = size + _MANIFEST_BYTES
        if self._spare is not None:  # its blocks are there already, the manifest's among them
            needed = size - (self._spare / STATE).stat().st_blocks * 512
        disk = os.statvfs(self.folder)
        free = disk.f_bavail * disk.f_frsize
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"{os.strerror(errno.ENOSPC)} (it needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free)",
                str(self.folder),
            )
