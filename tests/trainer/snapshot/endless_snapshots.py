"""Writes snapshots without end in a child, which is killed with SIGKILL some time after its first one.

Each line of the input is a number to start after and the seconds to wait; the answer is the last number that the child
has reported as written. A fork is faster than a new interpreter.
"""

import os
import select
import signal
import sys
import time
from pathlib import Path

from tests.trainer.snapshot.layout import SPECS, values
from trainer.snapshot.file import SnapshotFile


def write_endlessly(path: Path, number: int, pipe: int) -> None:
    file = SnapshotFile(path, SPECS)
    while True:
        number += 1
        file.write(10 * number, values(number), {"number": number})
        os.write(pipe, number.to_bytes(8, "little"))


def main() -> None:
    path = Path(sys.argv[1])
    for line in sys.stdin:
        start, delay_s = line.split()
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            write_endlessly(path, int(start), write_end)
        os.close(write_end)
        reported = os.read(read_end, 8)
        deadline = time.monotonic() + float(delay_s)
        while (left := deadline - time.monotonic()) > 0:
            if select.select([read_end], [], [], left)[0]:
                reported = os.read(read_end, 8)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(read_end, 8):
            reported = more
        os.close(read_end)
        print(int.from_bytes(reported, "little"), flush=True)


if __name__ == "__main__":
    main()
