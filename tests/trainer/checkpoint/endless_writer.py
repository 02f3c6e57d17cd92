"""Writes checkpoints until it is killed: the process under test of test_kill.py.

It reads a line "KIND CALLS FOLDER" from its input and forks a child that writes; the imports are then paid once for
many kills. With CALLS above 0 the child kills itself right before the CALLS-th time that it opens, renames, makes or
removes something after its first commit. It says "pid N", "committed COUNT" after each checkpoint that was reported
durable, and "gone" when the child is.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

from trainer.checkpoint.host_buffer import ArraySpec
from trainer.checkpoint.store import CheckpointStore
from trainer.checkpoint.writer import CheckpointWriter, SavedCheckpoint

SPECS = {
    "model/kernel": ArraySpec((200, 200), "float32"),
    "optimizer/kernel": ArraySpec((200, 200), "bfloat16"),
    "step": ArraySpec((), "int64"),
}


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def kill_before(calls: int) -> None:
    counter = itertools.count(1)

    def watch(event: str, arguments: object) -> None:
        if event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove") and next(counter) == calls:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def write_for_ever(kind: str, calls: int, folder: Path) -> None:
    store = CheckpointStore(folder, keep=1 if kind == "keep-one" else 2)
    store.prepare()
    newest = store.newest_verified()
    count = newest.metadata["count"] if newest else 0

    def report(event: SavedCheckpoint) -> None:
        say(f"committed {count}")

    watched = False
    writer = CheckpointWriter(store, on_saved=report, max_overhead=None)
    while True:
        count += 1
        buffer = writer.buffer(SPECS)
        for view in buffer.views.values():
            view[...] = count % 256  # bfloat16 holds no larger whole number exactly
        step = 7 if kind == "same-step" else count
        if not writer.save(step, buffer, {"count": count}, wait=True):
            say("failed")
        if calls and not watched:
            watched = True
            kill_before(calls)


def main() -> None:
    for line in sys.stdin:
        kind, calls, folder = line.rstrip("\n").split(" ", 2)
        child = os.fork()
        if child == 0:
            write_for_ever(kind, int(calls), Path(folder))
        say(f"pid {child}")
        os.waitpid(child, 0)
        say("gone")


if __name__ == "__main__":
    main()
