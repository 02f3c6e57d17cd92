import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.process import (
    NoSuchProcess,
    ProcessIdentity,
    identity_of,
    is_alive,
    send_signal,
    this_process,
    wait_until_gone,
)

LIMIT_S = 30


@pytest.fixture
def child() -> Iterator[subprocess.Popen]:
    """A process that does nothing until its input ends."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    yield process
    process.kill()
    process.communicate()


def identity(process: subprocess.Popen) -> ProcessIdentity:
    found = identity_of(process.pid)
    assert found is not None
    return found


def elsewhere(process: ProcessIdentity) -> ProcessIdentity:
    return dataclasses.replace(process, host="another-host")


def test_this_process_is_itself():
    assert this_process() == identity_of(os.getpid())
    assert is_alive(this_process())
    assert this_process().is_local


def test_a_running_process_is_signalled_and_waited_for(child: subprocess.Popen):
    process = identity(child)
    assert is_alive(process)
    assert not wait_until_gone(process, timeout_s=0.01)
    send_signal(process, signal.SIGTERM)
    assert wait_until_gone(process, LIMIT_S)
    assert child.wait(LIMIT_S) == -signal.SIGTERM


def test_a_process_that_its_parent_has_not_collected_is_gone(child: subprocess.Popen):
    process = identity(child)
    child.kill()
    assert wait_until_gone(process, LIMIT_S)
    assert child.returncode is None
    assert not is_alive(process)
    assert identity_of(child.pid) is None


def test_a_recycled_pid_is_another_process_and_gets_no_signal(child: subprocess.Popen):
    boot, ticks = identity(child).started.split(":")
    earlier = dataclasses.replace(identity(child), started=f"{boot}:{int(ticks) - 1}")
    assert not is_alive(earlier)
    assert wait_until_gone(earlier, timeout_s=0)
    with pytest.raises(NoSuchProcess, match=f"process {child.pid} has ended"):
        send_signal(earlier, signal.SIGKILL)
    assert child.poll() is None


def test_the_same_pid_of_an_earlier_boot_is_another_process(child: subprocess.Popen):
    _, ticks = identity(child).started.split(":")
    assert not is_alive(dataclasses.replace(identity(child), started=f"an-earlier-boot:{ticks}"))


def test_an_ended_process_is_not_signalled(child: subprocess.Popen):
    process = identity(child)
    child.kill()
    child.wait()
    with pytest.raises(NoSuchProcess, match="has ended: there is nothing to stop"):
        send_signal(process, signal.SIGTERM)


def test_a_process_of_another_host_is_left_to_that_host():
    process = elsewhere(this_process())
    for call in (is_alive, lambda p: send_signal(p, signal.SIGTERM), lambda p: wait_until_gone(p, 0)):
        with pytest.raises(NoSuchProcess, match=r"runs on another-host, and this is .*: give the command on another-h"):
            call(process)


def test_a_process_whose_name_looks_like_fields_is_read_right(tmp_path):
    program = tmp_path / "a) S 1 2 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "60"])
    try:
        deadline = time.monotonic() + LIMIT_S
        # Until it has become the other program, it is a copy of this one with this one's name.
        while "a) S" not in Path(f"/proc/{child.pid}/stat").read_text():
            assert time.monotonic() < deadline
        boot, ticks = identity(child).started.split(":")
        assert boot == this_process().started.split(":")[0]
        assert int(ticks) >= int(this_process().started.split(":")[1])
    finally:
        child.kill()
        child.wait()
