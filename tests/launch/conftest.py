"""What several tests of supervised runs compare with."""

from pathlib import Path

import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch.supervised_runs import write_config


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert run(["train", write_config(folder)]) == ExitCode.DONE
    return folder / "group"
