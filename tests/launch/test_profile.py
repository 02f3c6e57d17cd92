"""`phalanx profile` beside a run that is going on."""

import time

import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from launch.profile_file import ProfileFile, ProfileRequest, profile_on_file
from tests.launch.supervised_runs import PATIENCE_S, last_step, started, wait_until, write_config


@pytest.mark.processes
def test_the_worker_that_is_asked_for_is_profiled_and_the_run_goes_on(tmp_path, capsys):
    folder = tmp_path / "group"
    with started("train", write_config(tmp_path), "train.steps=1000000") as process:
        wait_until(lambda: last_step(folder) >= 50, process)
        assert run(["profile", str(folder), "--steps", "20", "--rank", "1"]) == ExitCode.DONE
        [written] = folder.rglob("*.xplane.pb")
        assert written.is_relative_to(folder / "tensorboard" / "rank-1") and str(written) in capsys.readouterr().out
        assert run(["profile", str(folder), "--rank", "7", "--timeout", "1"]) == ExitCode.FAILED
        assert "no such worker" in capsys.readouterr().err
        before = last_step(folder)
        wait_until(lambda: last_step(folder) > before, process)
        assert run(["stop", str(folder)]) == ExitCode.DONE
        process.communicate(timeout=PATIENCE_S)
    assert run(["profile", str(folder)]) == ExitCode.WRONG_REQUEST
    assert "is not running" in capsys.readouterr().err


def test_only_a_request_that_is_made_meanwhile_is_carried_out(tmp_path):
    file, got = ProfileFile(tmp_path), []
    file.write(ProfileRequest(1, 0))
    with profile_on_file(file, got.append):
        assert not got
        file.write(ProfileRequest(20, 1))
        deadline = time.monotonic() + PATIENCE_S
        while not got and time.monotonic() < deadline:
            time.sleep(0.02)
    assert got == [ProfileRequest(20, 1)]
