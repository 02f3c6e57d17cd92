"""What several tests of supervised runs compare with."""

import fcntl
import os
from pathlib import Path

import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch.supervised_runs import write_config


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    """A finished run of two workers. The processes that the tests are divided among share it: only look at it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "undisturbed"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            assert run(["train", write_config(folder)]) == ExitCode.DONE
            (folder / "done").touch()
    return folder / "group"
