"""What happened in a run, as Cloud Logging reads it."""

import json
import threading
from pathlib import Path

import pytest

from cluster.run_lock import RunLock
from launch.cli import run
from launch.cloud_log import RunEvents, follow_events
from tests.cluster.agent_workers import wait_until
from tests.trainer.goodput.journals import EPOCH, Story
from trainer.observe.json_lines import encode_line
from trainer.run_folder import RunFolder

LABELS = "logging.googleapis.com/labels"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "mnist")
    folder.create()
    folder.write_config("train: {steps: 1}\n")
    return folder


def add(path: Path, *records: dict) -> None:
    with path.open("ab") as file:
        file.writelines(encode_line(record) for record in records)


def read(events: RunEvents) -> list[dict]:
    return [json.loads(line, parse_constant=pytest.fail) for line in events.read()]


def test_events_and_metrics_are_lines_in_the_order_of_their_times(folder):
    story = Story()
    story.begin()
    story.exit(11.0, "w2", signal=9)
    story.kill("w1", "generation 1 is broken")
    story.exit(11.25, "w1", signal=9)
    story.tick(12.0)
    add(folder.journal, *story.records)
    add(folder.metrics, {"step": 50, "loss": float("nan"), "time": EPOCH + 11.1})
    events = RunEvents(folder)
    lines = read(events)
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert {line[LABELS]["run"] for line in lines} == {"mnist"}
    assert "ticked" not in {line["message"] for line in lines}
    assert [(line["message"], line["severity"]) for line in lines[-4:]] == [
        ("worker_exited", "WARNING"),
        ("kill", "INFO"),
        ("metrics", "INFO"),
        ("worker_exited", "INFO"),  # it was told to
    ]
    assert (lines[-2]["step"], lines[-2]["loss"]) == (50, "NaN")
    assert all("at" not in line for line in lines)
    assert read(events) == []


def test_metrics_that_a_resumed_run_has_shortened_are_not_told_twice(folder):
    events = RunEvents(folder)
    add(folder.metrics, *({"step": step, "loss": 1.0, "time": float(step)} for step in (1, 2, 3)))
    assert [line["step"] for line in read(events)] == [1, 2, 3]
    folder.metrics.write_bytes(b"")
    add(folder.metrics, {"step": 1, "loss": 1.0, "time": 1.0}, {"step": 2, "loss": 1.0, "time": 4.0})
    assert [line["step"] for line in read(events)] == [2]


def test_events_of_one_instant_are_all_told_however_they_are_read(folder):
    events = RunEvents(folder)
    add(folder.journal, {"event": "worker_ready", "worker": "w1", "time": 5.0})
    assert [line["worker"] for line in read(events)] == ["w1"]
    add(folder.journal, {"event": "worker_ready", "worker": "w2", "time": 5.0})
    assert [line["worker"] for line in read(events)] == ["w2"]


def test_a_run_is_followed_to_its_end_and_the_command_shows_the_last_lines(folder, capsys):
    shown: list[str] = []
    fields = {"generation": 0, "rank": 0, "host": "a"}
    add(folder.journal, {"time": 1.0, "event": "started", **fields}, {"time": 2.0, "event": "evaluated", **fields})
    with RunLock(folder.path, ["train"]):
        thread = threading.Thread(target=follow_events, args=(folder, shown.append, 1))
        thread.start()
        wait_until(lambda: len(shown) == 1)
        add(folder.journal, {"time": 3.0, "event": "failed", **fields}, {"time": 4.0, "event": "stopped", **fields})
    thread.join(10)
    assert not thread.is_alive()
    told = [json.loads(line) for line in shown]
    assert [(line["message"], line["severity"]) for line in told] == [
        ("evaluated", "INFO"),
        ("failed", "ERROR"),
        ("stopped", "INFO"),
    ]
    assert told[0][LABELS] == {"run": "mnist", "generation": "0", "rank": "0"}
    assert run(["logs", str(folder.path), "--json", "-n", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == shown[1:]
    assert run(["logs", str(folder.path), "--json", "--follow"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
