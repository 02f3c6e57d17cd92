"""Several workers under a supervisor, through the command line: real processes on this machine, really killed."""

import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from launch.host_memory import HostMemory
from tests.launch.supervised_runs import (
    PATIENCE_S,
    curve,
    events,
    last_step,
    pid_of_rank,
    snapshots,
    started,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.processes


def test_a_group_trains_and_leaves_nothing_in_memory(undisturbed):
    assert [line["step"] for line in curve(undisturbed) if "split" not in line] == list(range(10, 601, 10))
    assert not HostMemory(undisturbed).folder.exists()
    assert [event["step"] for event in events(undisturbed, "finished")] == [600]


def test_what_a_group_has_trained_and_what_it_will_train_can_be_looked_at_by_one_process(undisturbed, tmp_path, capsys):
    assert run(["export", str(undisturbed)]) == ExitCode.DONE
    assert (undisturbed / "export" / "1" / "saved_model.pb").exists()
    assert run(["check", str(undisturbed / "config.yaml"), f"run.dir={tmp_path}"]) == ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[-1] == "ok"
    assert run(["status", str(undisturbed)]) == ExitCode.DONE
    assert "finished" in capsys.readouterr().out


def test_a_change_that_the_workers_refuse_leaves_the_config_as_it_was(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "group")
    config = (folder / "config.yaml").read_bytes()
    assert (
        run(["resume", str(folder), "model.hidden=[9]", "train.steps=610", "--accept-config-change"]) != ExitCode.DONE
    )
    assert (folder / "config.yaml").read_bytes() == config


def test_a_killed_worker_is_replaced_and_the_curve_is_the_undisturbed_one(undisturbed, tmp_path):
    config, folder = write_config(tmp_path), tmp_path / "group"
    with started("train", config) as process:
        wait_until(lambda: held(folder) >= 96, process)
        known = held(folder)
        os.kill(chief_pid(folder), signal.SIGKILL)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert curve(folder) == curve(undisturbed)
    [resumed] = events(folder, "resumed")
    assert resumed["step"] >= known
    assert "SIGKILL" in output
    (account,) = events(folder, "goodput")
    assert sum(account["seconds"].values()) == pytest.approx(account["wall_s"])
    assert f"goodput {100 * account['goodput']:.1f}% of" in output
    (failure,) = account["failures"]
    assert (failure["rank"], failure["signal"], failure["is_over"]) == (0, signal.SIGKILL, True)
    reached = max(event["step"] for event in events(folder, "progressed") if event["generation"] == 1)
    assert 0 <= failure["steps_lost"] <= reached - resumed["step"]
    assert failure["phases"].keys() >= {"restart_ended", "restart_formed", "restart_built", "restart_first_step"}
    assert run(["replay", str(folder)]) == ExitCode.DONE


def test_a_worker_that_is_told_to_end_hands_over_and_nothing_is_done_twice(undisturbed, tmp_path):
    config, folder = write_config(tmp_path), tmp_path / "group"
    # No failure is allowed: this is none.
    with started("train", config, "cluster.standbys=2", "cluster.max_failures=0") as process:
        wait_until(lambda: last_step(folder) >= 100, process)
        os.kill(pid_of_rank(folder, 1, rank=1), signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert curve(folder) == curve(undisturbed)
    assert "worker 1 on localhost has been told to end (SIGTERM): generation 2 takes over" in output
    [stopped], [resumed] = events(folder, "stopped"), events(folder, "resumed")
    assert stopped["step"] == resumed["step"] >= 100
    assert f"from step {resumed['step']} in the memory of localhost" in output
    assert run(["replay", str(folder)]) == ExitCode.DONE


def chief_pid(folder: Path) -> int:
    return events(folder, "started")[-1]["pid"]


def held(folder: Path) -> int:
    """The newest step that the supervisor knows to be in memory."""
    return max(snapshots(folder, 1).values(), default=0)


def test_stop_saves_the_state_of_the_group_and_resume_goes_on(undisturbed, tmp_path, capsys):
    config, folder = write_config(tmp_path), tmp_path / "group"
    with started("train", config) as process:
        wait_until(lambda: last_step(folder) >= 50, process)
        assert run(["stop", str(folder)]) == ExitCode.DONE
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, output
    assert run(["resume", str(folder)]) == ExitCode.DONE
    assert curve(folder) == curve(undisturbed)


def test_no_worker_outlives_its_launcher_and_the_next_one_goes_on_from_memory(undisturbed, tmp_path):
    config, folder = write_config(tmp_path), tmp_path / "group"
    with started("train", config) as process:
        wait_until(lambda: held(folder) >= 96, process)
        known, workers = held(folder), psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(workers, 10)
        assert not alive
    assert HostMemory(folder).hosts() == ["localhost"] and not events(folder, "checkpoint_saved")
    with started("train", config) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    [resumed] = events(folder, "resumed")
    assert resumed["step"] >= known and resumed["step"] % 8 == 0
    assert f"generation 2 starts with 2 workers on localhost from step {resumed['step']} in the memory" in output
    assert curve(folder) == curve(undisturbed)
    assert run(["replay", str(folder)]) == ExitCode.DONE
    assert not HostMemory(folder).folder.exists()
