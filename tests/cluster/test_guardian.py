"""What happens to an agent's folder when the agent is gone."""

import os
import shutil
from pathlib import Path

import pytest

from cluster.guardian import Guardian
from tests.cluster.agent_workers import wait_until

pytestmark = pytest.mark.processes


def users(folder: Path) -> set[int]:
    """The processes that have the folder open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == str(folder):
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "a.snapshot").touch()
    return folder


def guarding(folder: Path, stay_s: float) -> Guardian:
    guardian = Guardian()
    guardian.remove(folder)
    guardian.leave_folders(stay_s)
    wait_until(lambda: guardian.pid in users(folder))
    return guardian


def test_a_folder_goes_with_the_agent_or_after_the_time_that_it_is_to_stay(folder):
    guarding(folder, 0.0).close()
    assert not folder.exists()
    folder.mkdir()
    guarding(folder, 0.5).close()
    assert folder.exists()
    wait_until(lambda: not folder.exists())


def test_what_a_later_agent_has_taken_over_is_left_to_it(folder):
    first = guarding(folder, 0.5)
    second = guarding(folder, 60.0)
    first.close()
    wait_until(lambda: users(folder) == {second.pid})
    assert (folder / "a.snapshot").exists()
    second.leave_folders(0.0)
    second.close()
    assert not folder.exists()


def test_another_folder_of_the_name_is_left_alone(folder):
    first = guarding(folder, 0.5)
    first.close()
    shutil.rmtree(folder)
    folder.mkdir()
    wait_until(lambda: not users(Path(f"{folder} (deleted)")))
    assert folder.exists()
