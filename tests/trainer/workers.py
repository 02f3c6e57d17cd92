"""Starts the workers of one training as processes on loopback, listens to them and kills them."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("worker_process.py")
ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0


class Worker:
    """A process, and the lines that it has told."""

    def __init__(self, job: dict[str, Any], output: Path) -> None:
        self.output, self.lines = output, []
        self.pipe, theirs = os.pipe()
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, PROGRAM, json.dumps({**job, "pipe": theirs})],
                stdout=file,
                stderr=file,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                pass_fds=[theirs],
            )
        os.close(theirs)
        self._unread = b""

    def hear(self) -> str:
        """The next line."""
        deadline = time.monotonic() + DEADLINE_S
        while b"\n" not in self._unread:
            ready = select.select([self.pipe], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"the worker says nothing; its last words: {self.last_words()}"
            read = os.read(self.pipe, 65536)
            assert read, f"the worker has ended: {self.last_words()}"
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        self.lines.append(line.decode())
        return self.lines[-1]

    def hear_until(self, kind: str, step: int = 0) -> int:
        """The step of the first line of this kind with at least this step."""
        while True:
            word, _, rest = self.hear().partition(" ")
            if word == kind and int(rest) >= step:
                return int(rest)

    def outcome(self) -> dict[str, Any]:
        """What it says at its good end."""
        while not self.hear().startswith("outcome "):
            pass
        assert self.process.wait(DEADLINE_S) == 0, self.last_words()
        return json.loads(self.lines[-1].removeprefix("outcome "))

    def last_words(self) -> str:
        return self.output.read_text()[-3000:]


class Workers:
    """The processes of one generation; a context manager that leaves none behind.

    Args:
        folder: Of the run, made here.
        config: What differs from the small config.
        stop_at: For each rank, the step at which that worker is asked to stop, or None.
        snapshots: For each rank, where its snapshots are.
        restore: For each rank, the snapshot to go on from.
        rehearses: Whether they do so first.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        num_workers: int = 2,
        stop_at: dict[int, int] | None = None,
        snapshots: list[Path] | None = None,
        snapshot_every: int | None = 3,
        restore: list[Path] | None = None,
        generation: int = 0,
        rehearses: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Bound, not listening: nobody else gets the port before the worker listens on it.
        self._ports = [socket.socket() for _ in range(num_workers)]
        for port in self._ports:
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{port.getsockname()[1]}" for port in self._ports]
        self.workers = [
            Worker(
                {
                    "folder": str(folder),
                    "config": config,
                    "rank": rank,
                    "addresses": addresses,
                    "generation": generation,
                    "rehearses": rehearses,
                    "stop_at": (stop_at or {}).get(rank),
                    "snapshot": str(snapshots[rank]) if snapshots else None,
                    "snapshot_every": snapshot_every,
                    "restore": str(restore[rank]) if restore else None,
                },
                folder / f"output-{rank}.txt",
            )
            for rank in range(num_workers)
        ]

    def outcomes(self) -> list[dict[str, Any]]:
        """Of every worker, by rank."""
        return [worker.outcome() for worker in self.workers]

    def kill(self) -> None:
        """SIGKILL to all."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.wait()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        for worker in self.workers:
            os.close(worker.pipe)
        for port in self._ports:
            port.close()
