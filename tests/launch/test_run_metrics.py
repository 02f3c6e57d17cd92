"""What Prometheus reads: checked with promtool where it is installed, else with Prometheus' own parser."""

import json
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.supervisor.events import SnapshotTaken
from launch.config import load_config
from launch.run_config import RunConfig
from launch.run_watch import Watching, start_watching
from tests.launch.promql import queries, unanswered
from tests.trainer.goodput.journals import EPOCH, Story
from trainer.observe.journal import Journal
from trainer.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "mnist")
    folder.create()
    return folder


def config_of(tmp_path: Path, *overrides: str) -> RunConfig:
    return load_config("configs/mnist.yaml", [f"run.dir={tmp_path}", "observe.tensorboard=false", *overrides])


def add(folder: RunFolder, story: Story) -> None:
    with folder.journal.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in story.records)
    story.records.clear()


def watch(folder: RunFolder, config: RunConfig) -> tuple[Watching, str]:
    said: list[str] = []
    watching = start_watching(config, folder, said.append)
    return watching, said[0].removeprefix("metrics at ")


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def values(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def killed(folder: RunFolder) -> Story:
    """A run in which a worker was killed and the next generation trains."""
    story = Story()
    story.begin()
    story.start("w3", "w4", "w5")
    story.ready(9.0, "w3", "w4")
    story.exit(11.0, "w2", signal=9)
    story.kill("w1", "generation 1 is broken")
    story.exit(11.25, "w1", signal=9)
    story.form("w3", "w4", restore=60)
    story.report(12.0, 60, "restore")
    story.report(13.0, 60, "compile")
    story.report(14.0, 70, "step")
    story.report(15.0, 100, "step")
    add(folder, story)
    return story


def test_a_scrape_tells_how_the_run_is(folder, killed, tmp_path):
    (folder.checkpoints / "step-00000040").mkdir(parents=True)
    folder.metrics.write_text('{"step": 50, "loss": 0.5, "examples_per_s": 1000.0, "time": 1.0}\n')
    watching, url = watch(folder, config_of(tmp_path, "cluster.metrics_port=0", "train.steps=500"))
    text = scrape(url)
    journal = Journal(folder.journal)
    watching.close(journal)
    journal.close()
    assert url.startswith("http://127.0.0.1:")
    found = values(text)
    assert found["phalanx_step"] == 100
    assert found["phalanx_target_step"] == 500
    assert found["phalanx_generation"] == 2
    assert [found[f"phalanx_workers{{state={state}}}"] for state in ("member", "standby", "starting", "ending")] == [
        2,
        0,
        1,
        0,
    ]
    assert found["phalanx_restarts_total{cause=failure}"] == 1
    assert found["phalanx_restarts_total{cause=hang}"] == 0
    assert found["phalanx_lost_steps_total"] == 20
    assert found["phalanx_time_seconds_total{phase=lost}"] == pytest.approx(3, abs=0.05)
    assert found["phalanx_time_seconds_total{phase=restart_first_step}"] == pytest.approx(1, abs=0.05)
    assert found["phalanx_last_failure_timestamp_seconds"] == pytest.approx(EPOCH + 11, abs=0.05)
    assert found["phalanx_last_failure_downtime_seconds"] == pytest.approx(3, abs=0.05)
    assert found["phalanx_step_duration_seconds"] == pytest.approx(1 / 10, abs=0.07)
    assert (found["phalanx_checkpoint_step"], found["phalanx_training_loss"]) == (40, 0.5)
    assert 'phalanx_run_info{cluster="local",data="mnist_sample",model="mlp",run="mnist"' in text


def test_dashboard_and_alert_rules_ask_for_what_is_there_and_promtool_has_no_complaint(folder, killed, tmp_path):
    (folder.checkpoints / "step-00000040").mkdir(parents=True)
    folder.metrics.write_text('{"step": 50, "loss": 0.5, "examples_per_s": 1000.0, "time": 1.0}\n')
    killed.event(SnapshotTaken(16.0, "a", 2, 100))
    add(folder, killed)
    watching, url = watch(folder, config_of(tmp_path, "cluster.metrics_port=0", "train.steps=500"))
    text = scrape(url)
    journal = Journal(folder.journal)
    watching.close(journal)
    journal.close()
    assert unanswered(queries("training"), text) == []
    promtool = shutil.which("promtool")
    if promtool is None:
        print("promtool is not installed: checked with the parser of prometheus_client")
        assert len(values(text)) > 30
        return
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_counters_never_go_back_when_work_turns_out_to_be_lost(folder, tmp_path):
    story = Story()
    story.begin()
    add(folder, story)
    watching, url = watch(folder, config_of(tmp_path, "cluster.metrics_port=0"))
    before = values(scrape(url))
    story.start("w3", "w4")
    story.ready(10.0, "w3", "w4")
    story.exit(11.0, "w1", signal=9)
    story.exit(11.0, "w2", signal=9)
    story.form("w3", "w4")
    story.report(12.0, 0, "compile")
    add(folder, story)
    after = values(scrape(url))
    journal = Journal(folder.journal)
    watching.close(journal)
    journal.close()
    assert after["phalanx_lost_steps_total"] == 80
    assert all(after[name] >= value for name, value in before.items() if "_total" in name)
    assert after["phalanx_time_seconds_total{phase=lost}"] > 0


def test_a_taken_port_is_said_and_the_run_goes_on(folder, tmp_path):
    story = Story()
    add(folder, story)
    said: list[str] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        watching = start_watching(config_of(tmp_path, f"cluster.metrics_port={port}"), folder, said.append)
        journal = Journal(folder.journal)
        watching.close(journal)
        journal.close()
    assert said == [
        f"cluster.metrics_port={port} on 127.0.0.1 cannot be used (Address already in use): the run goes on without "
        "metrics; choose another port, or 0 for any that is free"
    ]


def test_without_a_port_nothing_listens(folder, tmp_path):
    add(folder, Story())
    said: list[str] = []
    watching = start_watching(config_of(tmp_path), folder, said.append)
    journal = Journal(folder.journal)
    watching.close(journal)
    journal.close()
    assert said == []
