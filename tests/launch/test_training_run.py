"""Whole runs through the command line, on a model and data small enough for seconds."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.run_lock import RunLock
from launch.cli import run
from launch.exit_code import ExitCode
from trainer.observe.journal import read_journal
from trainer.observe.metrics_log import read_metrics

CONFIG = """\
model: {name: mlp, hidden: [4]}
data: {name: synthetic, shape: [6], num_classes: 3, num_samples: 64, held_out_samples: 16, batch_size: 16}
train: {steps: 8, log_every: 2, steps_per_loop: 2, deterministic: false}
observe: {tensorboard: false}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A config file beside which a run is done."""
    folder = tmp_path_factory.mktemp("finished")
    config = folder / "tiny.yaml"
    config.write_text(CONFIG + f"run: {{dir: {folder}}}\n")
    done = subprocess.run(
        [sys.executable, "-c", "from launch.cli import main; main()", "train", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout


def test_a_run_says_where_everything_is(finished):
    folder, output = finished
    places = [line.split()[-1] for line in output.splitlines() if line.startswith("  ")]
    assert str(folder / "tiny" / "export" / "1") in places
    assert str(folder / "tiny" / "report.html") in places
    assert all(Path(place).exists() for place in places)


def test_the_folder_holds_what_the_design_says(finished):
    run_folder = finished[0] / "tiny"
    for name in ("config.yaml", "environment.json", "logs/0/0.log", "checkpoints/step-00000008", "trace/0.jsonl"):
        assert (run_folder / name).exists(), name
    lines = read_metrics(run_folder / "metrics.jsonl")
    assert [line["step"] for line in lines if "split" not in line] == [2, 4, 6, 8]
    events = [event["event"] for event in read_journal(run_folder / "journal.jsonl")]
    assert events[0] == "started"
    assert events[-3:] == ["finished", "exported", "goodput"]


def test_repeating_the_command_of_a_finished_run_changes_nothing(finished, capsys):
    folder = finished[0]
    metrics = (folder / "tiny" / "metrics.jsonl").read_bytes()
    export = (folder / "tiny" / "export" / "1").stat().st_mtime_ns
    assert run(["train", str(folder / "tiny.yaml")]) == ExitCode.DONE
    assert (folder / "tiny" / "metrics.jsonl").read_bytes() == metrics
    assert (folder / "tiny" / "export" / "1").stat().st_mtime_ns == export
    assert "done after step 8" in capsys.readouterr().out


def test_a_changed_config_is_shown_and_refused(finished, capsys):
    folder = finished[0]
    before = (folder / "tiny" / "config.yaml").read_bytes()
    assert run(["train", str(folder / "tiny.yaml"), "train.seed=1"]) == ExitCode.WRONG_REQUEST
    refusal = capsys.readouterr().err
    assert "train.seed: 0 -> 1" in refusal
    assert "--accept-config-change" in refusal
    assert (folder / "tiny" / "config.yaml").read_bytes() == before


def test_a_config_that_only_the_data_can_refute_leaves_nothing_behind(tmp_path, capsys):
    config = tmp_path / "warm.yaml"
    config.write_text(CONFIG + f"run: {{dir: {tmp_path / 'runs'}}}\noptimizer: {{schedule: {{warmup: 5ep}}}}\n")
    assert run(["train", str(config)]) == ExitCode.WRONG_REQUEST
    refusal = capsys.readouterr().err
    assert "optimizer.schedule.warmup=5ep is 20 steps" in refusal
    assert not (tmp_path / "runs" / "warm").exists()


def test_steps_to_profile_beyond_the_epochs_are_refused(tmp_path, capsys):
    config = tmp_path / "profiled.yaml"
    config.write_text(CONFIG.replace("steps: 8", "epochs: 2") + f"run: {{dir: {tmp_path}}}\n")
    assert run(["train", str(config), "observe.profile_steps=[8,9]"]) == ExitCode.WRONG_REQUEST
    refusal = capsys.readouterr().err
    assert "must lie within the training, train.epochs=2 of 4 steps: choose steps from 1 to 8" in refusal


def test_a_run_that_never_took_a_step_may_change_its_config(tmp_path, capsys):
    config = tmp_path / "late.yaml"
    config.write_text(CONFIG + f"run: {{dir: {tmp_path}}}\n")
    missing = ["data.name=arrays", f"data.path={tmp_path / 'late.npz'}"]
    assert run(["train", str(config), *missing]) == ExitCode.FAILED
    assert "late.npz" in capsys.readouterr().err
    assert [event["event"] for event in read_journal(tmp_path / "late" / "journal.jsonl")] == ["failed"]
    assert run(["train", str(config)]) == ExitCode.DONE


@pytest.mark.parametrize("metric", ["macro_f", "perplexity"])
def test_a_best_metric_that_there_is_not_is_refused_before_the_training(tmp_path, capsys, metric):
    config = tmp_path / "best.yaml"
    config.write_text(CONFIG + f"run: {{dir: {tmp_path}}}\ncheckpoint: {{best_metric: {metric}}}\n")
    assert run(["train", str(config)]) == ExitCode.WRONG_REQUEST
    refusal = capsys.readouterr().err
    assert f"checkpoint.best_metric={metric} must be one of accuracy, loss, macro_f1, macro_recall: " in refusal
    assert ("did you mean macro_f1?" in refusal) == (metric == "macro_f")
    assert not (tmp_path / "best").exists()


def test_a_longer_run_needs_no_permission_and_goes_on(finished, capsys):
    folder = finished[0]
    assert run(["resume", str(folder / "tiny"), "train.steps=10"]) == ExitCode.DONE
    assert "train.steps: 8 -> 10" in capsys.readouterr().out
    steps = [line["step"] for line in read_metrics(folder / "tiny" / "metrics.jsonl") if "split" not in line]
    assert steps == [2, 4, 6, 8, 10]
    assert [event["generation"] for event in read_journal(folder / "tiny" / "journal.jsonl")][-1] > 0


def test_an_accepted_change_is_written_down(finished):
    folder = finished[0]
    arguments = ["resume", str(folder / "tiny"), "train.log_every=1", "train.steps=12", "--accept-config-change"]
    assert run(arguments) == ExitCode.DONE
    assert "log_every: 1" in (folder / "tiny" / "config.yaml").read_text()


def test_a_run_that_somebody_holds_is_refused_with_the_holder(finished, capsys):
    folder = finished[0]
    with RunLock(folder / "tiny", ["phalanx"]):
        assert run(["resume", str(folder / "tiny")]) == ExitCode.WRONG_REQUEST
    message = capsys.readouterr().err
    assert "is in use by process" in message
    assert "phalanx stop" in message


def test_status_logs_report_and_export_of_a_run(finished, capsys):
    folder = str(finished[0] / "tiny")
    assert run(["status", folder, "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "finished"
    assert found["step"] == found["total_steps"]
    assert run(["logs", folder, "--all"]) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "logs/0/0.log" in shown
    for step in (2, 4, 6, 8):
        assert f"step {step}/8  loss" in shown
    assert "step 8/8  validation" in shown or "step 8/8  test" in shown
    assert "goodput" in shown
    assert run(["report", folder]) == ExitCode.DONE
    assert Path(capsys.readouterr().out.strip()).read_text().startswith("<!doctype html>")
    assert run(["export", folder]) == ExitCode.DONE
    assert "differs from the trained model by at most" in capsys.readouterr().out
    assert run(["stop", folder]) == ExitCode.WRONG_REQUEST
    assert "is not running" in capsys.readouterr().err


def test_a_moved_run_goes_on_where_it_lies(finished, capsys):
    folder = finished[0]
    moved = (folder / "tiny").rename(folder / "elsewhere")
    try:
        assert run(["resume", str(moved)]) == ExitCode.DONE
        assert not (folder / "tiny").exists()
        assert str(moved / "export" / "1") in capsys.readouterr().out
    finally:
        moved.rename(folder / "tiny")


@pytest.mark.processes
def test_stop_saves_the_state_and_resume_goes_on(tmp_path, capsys):
    config = tmp_path / "long.yaml"
    config.write_text(CONFIG.replace("steps: 8", "steps: 100000000") + f"run: {{dir: {tmp_path}}}\n")
    command = [sys.executable, "-c", "from launch.cli import main; main()", "train", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            assert next(line for line in process.stdout if line.startswith("step")), "the first logged step"
            assert run(["status", str(tmp_path / "long"), "--json"]) == ExitCode.DONE
            found = json.loads(capsys.readouterr().out)
            assert (found["state"], found["pid"]) == ("running", process.pid)
            reader = threading.Thread(target=process.stdout.read)  # the run must not wait for a full pipe
            reader.start()
            assert run(["stop", str(tmp_path / "long")]) == ExitCode.DONE
            assert process.wait(timeout=60) == ExitCode.STOPPED
            reader.join(timeout=60)
        finally:
            process.send_signal(signal.SIGKILL)
    assert run(["status", str(tmp_path / "long"), "--json"]) == ExitCode.DONE
    capsys.readouterr()
    checkpoints = sorted((tmp_path / "long" / "checkpoints").glob("step-*"))
    step = int(checkpoints[-1].name.removeprefix("step-"))
    assert [event["event"] for event in read_journal(tmp_path / "long" / "journal.jsonl")][-2:] == [
        "stopped",
        "goodput",
    ]
    assert run(["resume", str(tmp_path / "long"), f"train.steps={step + 4}"]) == ExitCode.DONE
    assert f"done after step {step + 4}" in capsys.readouterr().out


def test_check_tries_everything_and_writes_nothing(finished, tmp_path, capsys):
    config = finished[0] / "tiny.yaml"
    assert run(["check", str(config), f"run.dir={tmp_path / 'new'}", "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["samples"] == 64
    assert found["parameters"] == 6 * 4 + 4 + 4 * 3 + 3
    assert min(found["examples_per_s"], found["peak_memory_bytes"], found["checkpoint_bytes"]) > 0
    assert not (tmp_path / "new").exists()


def test_check_says_in_json_what_is_wrong(finished, capsys):
    config = str(finished[0] / "tiny.yaml")
    assert run(["check", config, "train.stpes=1", "--json"]) == ExitCode.WRONG_REQUEST
    found = json.loads(capsys.readouterr().out)
    assert found == {"ok": False, "problems": ["train.stpes is not a setting: did you mean train.steps?"]}
    assert run(["check", config, "data.name=arrays", "data.path=nowhere.npz", "--json"]) == ExitCode.FAILED
    assert "nowhere.npz" in json.loads(capsys.readouterr().out)["problems"][0]


def test_check_for_people_ends_with_ok(finished, tmp_path, capsys):
    assert run(["check", str(finished[0] / "tiny.yaml"), f"run.dir={tmp_path / 'new'}"]) == ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[-1] == "ok"


def test_data_bench_measures_input_and_model(finished, capsys):
    assert run(["data", "bench", str(finished[0] / "tiny.yaml"), "--seconds", "0.05", "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in found["stages"]][-1] == "pipeline"
    assert found["consumed_per_s"] > 0
    assert run(["data", "bench", str(finished[0] / "tiny.yaml"), "--seconds", "0.05"]) == ExitCode.DONE
    assert "the model" in capsys.readouterr().out.splitlines()[-1]


def test_the_main_job_reaches_on_real_data_what_its_config_says(tmp_path, capsys):
    settings = [f"run.dir={tmp_path}", "observe.tensorboard=false", "export.enabled=false"]
    assert run(["train", "configs/mnist.yaml", *settings]) == ExitCode.DONE
    accuracy = [line["accuracy"] for line in read_metrics(tmp_path / "mnist" / "metrics.jsonl") if "split" in line]
    assert accuracy[-1] >= 0.93
    assert f"metrics      {tmp_path / 'mnist' / 'metrics.jsonl'}" in capsys.readouterr().out
