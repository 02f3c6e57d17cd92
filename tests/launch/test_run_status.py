import json
import math
import os

import pytest

from cluster.run_lock import RunLock
from launch.run_status import describe, read_status
from tests.trainer.goodput.journals import Story
from trainer.intervals.choice import Chosen
from trainer.observe.journal import Journal
from trainer.observe.metrics_log import MetricsLog
from trainer.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "mine")
    run.create()
    run.write_config("train: {steps: 100}\n")
    return run


def record(run, *events, steps=(50, 100)):
    journal, metrics = Journal(run.journal), MetricsLog(run.metrics)
    for step in steps:
        metrics.append({"step": step, "loss": 1.0 / step, "accuracy": 0.5, "examples_per_s": 2e4, "time": 1e9 + step})
    metrics.append({"step": steps[-1], "split": "test", "loss": math.nan, "accuracy": 0.75, "time": 1e9 + 200})
    for event in events:
        journal.write(event)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        (["started", "finished"], "finished"),
        (["started", "stopped"], "stopped"),
        (["started", "failed"], "failed"),
        (["started", "stopped", "resumed"], "interrupted"),
        (["started"], "interrupted"),
    ],
)
def test_state_of_a_run_that_nobody_holds(run, events, state):
    record(run, *events)
    assert read_status(run.path).state == state


def test_a_held_run_is_running_with_its_process(run):
    record(run, "started")
    with RunLock(run.path, ["phalanx"]):
        status = read_status(run.path)
    assert (status.state, status.pid) == ("running", os.getpid())
    assert status.silent_s is not None
    assert "running, process" in describe(status)


def test_the_end_is_that_of_the_newest_start(run):
    run.write_config("train: {epochs: 5}\n")
    record(run, steps=(50, 100))
    journal = Journal(run.journal)
    journal.write("started", step=0, total_steps=150)
    assert read_status(run.path).total_steps == 150
    assert "100/150" in describe(read_status(run.path))
    journal.write("resumed", step=100, total_steps=80)
    assert "100, beyond the end at 80" in describe(read_status(run.path))


def test_progress_and_metrics(run):
    record(run, "started")
    (run.checkpoints / "step-00000050").mkdir(parents=True)
    status = read_status(run.path)
    assert (status.step, status.total_steps, status.checkpoints) == (100, 100, [50])
    text = describe(status)
    for part in ("100/100", "loss 0.0100", "accuracy 0.7500", "20.0k samples/s", "interrupted"):
        assert part in text


def test_json_is_json_even_for_nan(run):
    record(run, "finished")
    found = json.loads(json.dumps(read_status(run.path).as_json(), allow_nan=False))
    assert found["evaluation"]["loss"] == "NaN"
    assert found["training"]["step"] == 100


def test_a_run_that_has_only_begun(run):
    status = read_status(run.path)
    assert (status.step, status.state, status.training) == (0, "interrupted", {})
    assert "checkpoints  none" in describe(status)


def test_where_the_time_went_is_told(run):
    story = Story()
    story.begin()
    story.exit(11.0, "w2", signal=9)
    run.journal.write_text("".join(json.dumps(record) + "\n" for record in story.records))
    status = read_status(run.path)
    assert status.as_json()["goodput"]["seconds"]["productive"] == pytest.approx(8, abs=0.05)
    text = describe(status)
    assert "goodput       72.7% of 11s; 1 failure cost" in text
    assert "last failure  worker 1 on a was killed (SIGKILL); not over yet" in text


def test_how_often_the_state_is_saved_is_told_with_the_reason(run):
    journal = Journal(run.journal)
    for steps in (200, 2000):
        chosen = Chosen("snapshots", steps, 0.002 * steps, 0.0021, 3.6e6, "patience")
        journal.write("interval_chosen", **chosen.to_record())
    status = read_status(run.path)
    assert status.as_json()["intervals"] == {
        "snapshots": {"steps": 2000, "seconds": 4.0, "cost": 0.0021, "mtbf": 3.6e6, "reason": "patience"}
    }
    assert "saving       snapshots every 2000 steps (about 4.0s): one costs 2.1ms, and" in describe(status)


def test_a_member_that_was_replaced_meanwhile_is_no_interruption(run):
    story = Story(replaceable_from=1)
    story.begin()
    story.exit(11.0, "w2", signal=9)
    run.journal.write_text("".join(json.dumps(record) + "\n" for record in story.records))
    text = describe(read_status(run.path))
    assert "worker 1 on a was killed (SIGKILL); not replaced yet, the others went on" in text
