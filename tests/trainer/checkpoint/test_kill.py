"""SIGKILL at random moments, the write of a checkpoint included."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trainer.checkpoint.store import CheckpointStore

PROGRAM = Path(__file__).with_name("endless_writer.py")
ROOT = Path(__file__).parents[3]
LIMIT_S = 60


class WriterProcess:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            bufsize=0,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.committed = 0

    def say(self, text: str) -> None:
        self.input.write(f"{text}\n".encode())

    def hear(self, timeout_s: float) -> str | None:
        """The next line; None when none comes in time."""
        if not select.select([self.output], [], [], max(timeout_s, 0))[0]:
            return None
        line = self.output.readline().decode().rstrip("\n")
        assert line, "the writing process has ended"
        assert line != "failed"
        if line.startswith("committed"):
            self.committed = int(line.split()[1])
        return line

    def hear_until(self, start: str) -> str:
        deadline = time.monotonic() + LIMIT_S
        while not (line := self.hear(deadline - time.monotonic()) or "").startswith(start):
            assert time.monotonic() < deadline, f"no line {start!r} in time"
        return line

    def write_until_killed(self, kind: str, folder: Path, delay_s: float, *, after_commit: bool) -> None:
        """Lets it write and kills it `delay_s` after its start, or after its first commit."""
        self.say(f"{kind} 0 {folder}")
        pid = int(self.hear_until("pid").split()[1])
        if after_commit:
            self.hear_until("committed")
        deadline = time.monotonic() + delay_s
        while time.monotonic() < deadline:
            self.hear(deadline - time.monotonic())
        os.kill(pid, signal.SIGKILL)
        self.hear_until("gone")

    def write_until_call(self, kind: str, folder: Path, calls: int) -> None:
        """Lets it write and kill itself right before a call to the file system, counted from its first commit."""
        self.say(f"{kind} {calls} {folder}")
        self.hear_until("gone")


@pytest.fixture(scope="module")
def writer_process() -> Iterator[WriterProcess]:
    writer = WriterProcess()
    yield writer
    writer.input.close()
    assert writer.process.wait(LIMIT_S) == 0


def check(folder: Path, committed: int) -> None:
    """The store gives a whole checkpoint, no older than the last one that was reported."""
    store = CheckpointStore(folder)
    store.prepare()
    damages = []
    newest = store.newest_verified(lambda damage, _: damages.append(damage))
    assert damages == []
    if newest is None:
        assert committed == 0
        return
    count = newest.metadata["count"]
    assert count >= committed
    for array in newest.arrays.values():
        assert np.all(array == count % 256)


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["keep-one", "keep-two", "same-step"])
def test_a_kill_never_loses_a_checkpoint_that_was_reported(kind: str, writer_process: WriterProcess, tmp_path: Path):
    rng = random.Random(kind)
    writer_process.committed = 0
    interrupted = 0
    for attempt in range(25):
        writer_process.write_until_killed(kind, tmp_path, rng.uniform(0.0, 0.05), after_commit=attempt % 3 > 0)
        interrupted += any(name.startswith(".writing") for name in os.listdir(tmp_path))

        check(tmp_path, writer_process.committed)
    assert writer_process.committed > 0
    # Without kills in the middle of a write nothing would have been shown.
    assert interrupted >= 3


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["keep-one", "keep-two", "same-step"])
def test_a_kill_before_any_call_to_the_file_system_is_survived(
    kind: str, writer_process: WriterProcess, tmp_path: Path
):
    writer_process.committed = 0
    # Two saves and a little more in each kind; the first of them already writes over a retired folder.
    for calls in range(1, 28):
        writer_process.write_until_call(kind, tmp_path, calls)
        check(tmp_path, writer_process.committed)
    assert writer_process.committed >= 27
