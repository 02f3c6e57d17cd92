"""Scalars for TensorBoard from a process that has no TensorFlow, such as the one that watches the workers."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter


class ScalarFile:
    """One event file, written at once: for a handful of scalars now and then.

    It lies in a folder of its own, because what TensorBoard forgets when a run goes back to an earlier step, it
    forgets of all files of a folder.

    Args:
        folder: made where it is missing.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("ab")
        self._records = RecordWriter(self._file)
        self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers by tag and puts them where TensorBoard finds them. Raises OSError."""
        event = Event(step=step, wall_time=time.time())
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._file.close()
