import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.process import identity_of, this_process
from cluster.run_lock import RunBusy, RunLock, RunLockError, read_holder

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from cluster.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]), ["phalanx", "train", "mnist.yaml"])
lock.acquire()
print("locked", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


class OtherProcess:
    """A process that holds the lock until it is told otherwise or killed."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        assert self.output.readline() == "locked\n"

    def release(self) -> None:
        self.input.write("\n")
        self.input.flush()
        assert self.output.readline() == "released\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[OtherProcess]:
    other = OtherProcess(tmp_path)
    yield other
    other.kill()
    other.process.communicate()


@pytest.mark.processes
def test_the_second_process_is_told_the_first_ones_pid_and_host(tmp_path: Path, other: OtherProcess):
    with pytest.raises(RunBusy) as caught:
        RunLock(tmp_path, []).acquire()
    pid, host = other.process.pid, this_process().host
    assert str(caught.value) == (
        f"{tmp_path} is in use by process {pid} on {host}: wait for it, end it with `phalanx stop {tmp_path}`, or give "
        "this run another name with run.name"
    )
    holder = caught.value.holder
    assert holder is not None
    assert holder.process == identity_of(pid)
    assert holder.command == ["phalanx", "train", "mnist.yaml"]
    assert read_holder(tmp_path) == holder


@pytest.mark.processes
def test_a_killed_process_leaves_no_lock(tmp_path: Path, other: OtherProcess):
    other.kill()
    assert (tmp_path / ".lock").read_text() != ""
    assert read_holder(tmp_path) is None
    with RunLock(tmp_path, ["me"]):
        holder = read_holder(tmp_path)
        assert holder is not None
        assert (holder.process, holder.command) == (this_process(), ["me"])


@pytest.mark.processes
def test_a_process_that_lives_on_but_has_let_go_holds_nothing(tmp_path: Path, other: OtherProcess):
    other.release()
    assert read_holder(tmp_path) is None
    RunLock(tmp_path, []).acquire()


def test_one_process_cannot_lock_a_folder_twice(tmp_path: Path):
    with RunLock(tmp_path, []), pytest.raises(RunBusy, match=f"process {os.getpid()} on"):
        RunLock(tmp_path, []).acquire()
    with RunLock(tmp_path, []):
        pass


def test_children_do_not_inherit_the_lock(tmp_path: Path):
    with RunLock(tmp_path, []):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with RunLock(tmp_path, []):
        pass
    child.communicate(b"\n")


def test_without_a_lock_file_nobody_holds_the_folder(tmp_path: Path):
    assert read_holder(tmp_path) is None
    assert read_holder(tmp_path / "nowhere") is None


def test_a_holder_that_has_not_said_its_name_still_holds(tmp_path: Path):
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunBusy, match="is in use by another process"):
            RunLock(tmp_path, []).acquire()


@pytest.mark.parametrize("locked", [False, True])
def test_a_name_from_another_host_counts_while_the_lock_is_held(tmp_path: Path, locked: bool):
    content = {"process": {"pid": 1, "started": "b:1", "host": "node-7"}, "started": 0.0, "command": []}
    with (tmp_path / ".lock").open("w") as file:
        if locked:
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(content))
        file.flush()
        holder = read_holder(tmp_path)
        assert (holder is not None and holder.process.host == "node-7") == locked
        if locked:
            with pytest.raises(RunBusy, match="process 1 on node-7"):
                RunLock(tmp_path, []).acquire()


def test_a_read_only_folder_is_a_clear_error(read_only_folder):
    folder, read_only = read_only_folder
    with read_only(), pytest.raises(RunLockError, match=r"\.lock cannot be opened for writing \(Permission denied\)"):
        RunLock(folder, []).acquire()


def test_a_full_disk_is_a_clear_error_and_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(RunLockError, match=r"cannot be written \(No space left on device\): free space"):
        RunLock(tmp_path, []).acquire()
    monkeypatch.undo()
    RunLock(tmp_path, []).acquire()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # No such file system can be mounted here; this is what the kernel answers on one.
    def without_locks(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.raises(RunLockError, match=r"is on a file system without locks \(No locks available\).*run\.dir"):
        RunLock(tmp_path, []).acquire()
