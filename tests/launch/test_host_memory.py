"""The memory of a machine does not fill with what killed runs have left."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from cluster.guardian import Guardian
from launch import host_memory
from launch.host_memory import HostMemory
from tests.cluster.agent_workers import wait_until


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was killed hours ago."""
    place = tmp_path / "memory"
    place.mkdir()
    monkeypatch.setattr(host_memory, "_MEMORY", place)
    old = HostMemory(tmp_path / "killed")
    old.create()
    old.snapshot("a").touch()
    grow_old(old.folder)
    return old.folder


def grow_old(folder: Path) -> None:
    hours_ago = time.time() - 7200
    os.utime(folder, (hours_ago, hours_ago))


def is_held(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_new_run_removes_what_nobody_holds_any_more(left, tmp_path):
    others = left.with_name("phalanx-4711-0123456789abcdef")  # of another user
    others.mkdir()
    grow_old(others)
    HostMemory(tmp_path / "new").create()
    assert not left.exists() and others.exists()


def test_what_is_young_or_a_link_stays(left, tmp_path):
    young = HostMemory(tmp_path / "young")
    young.create()
    link = left.with_name(f"{left.name}-link")
    link.symlink_to(tmp_path)
    HostMemory(tmp_path / "new").create()
    assert young.folder.exists() and link.is_symlink() and tmp_path.exists()


@pytest.mark.processes
def test_what_an_agent_holds_stays_and_so_does_what_it_has_just_left(left, tmp_path):
    guardian = Guardian()
    guardian.remove(left)
    guardian.leave_folders(20.0)
    wait_until(lambda: is_held(left))
    HostMemory(tmp_path / "new").create()
    assert left.exists()
    guardian.close()
    wait_until(lambda: time.time() - left.stat().st_mtime < 3600)
    HostMemory(tmp_path / "newer").create()
    assert (left / "a.snapshot").exists()
