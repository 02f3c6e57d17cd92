"""The launcher of a detached run, which its keeper starts.

python -m launch.detached.launcher RUN_FOLDER KEEPER_PID
"""

import contextlib
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from cluster.parent_death import die_with_parent
from cluster.run_lock import KEEPING, RunLockError, read_holder
from launch.cli import run
from launch.detached.keeper import start_keeper
from launch.detached.record import KeeperRecord, read_record

_LOOK_S = 2.0


def main() -> None:
    """Goes on with the run, and leaves word of how it ended: a keeper that was started meanwhile has no other way."""
    folder, keeper = Path(sys.argv[1]), int(sys.argv[2])
    if keeper:
        die_with_parent(keeper)
    else:
        threading.Thread(target=_keep_a_keeper, args=(folder,), name="keeper", daemon=True).start()
    code = int(run(["resume", str(folder), "--kept"]))
    with contextlib.suppress(OSError):
        replace(read_record(folder) or KeeperRecord(starts=1), exit_code=code).write(folder)
    sys.exit(code)


def _keep_a_keeper(folder: Path) -> None:
    """The two watch over each other: a keeper that was killed is replaced, and its successor waits for this process."""
    while True:
        time.sleep(_LOOK_S)
        with contextlib.suppress(OSError, RunLockError):
            if read_holder(folder, KEEPING) is None:
                keeper = start_keeper(folder, os.getcwd())
                while keeper.poll() is None and read_holder(folder, KEEPING) is None:
                    time.sleep(_LOOK_S / 20)


if __name__ == "__main__":
    main()
