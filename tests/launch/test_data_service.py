"""Runs whose batches are read by service workers: the curve is that of a run without, whatever is killed."""

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from launch.cli import run
from launch.config import ConfigError, load_config
from launch.exit_code import ExitCode
from tests.cluster.ray_nodes import ray_nodes
from tests.launch.supervised_runs import PATIENCE_S, curve, events, last_step, started, wait_for_checkpoint, wait_until

CONFIG = """\
model: {name: mlp, hidden: [8], dropout: 0.2}
data: {name: "tests.launch.traced_samples:samples", batch_size: 16, target: y, num_classes: 2}
train: {steps: 1000000, log_every: 10, steps_per_loop: 10, virtual_workers: 2}
optimizer: {name: adam, learning_rate: 0.01}
evaluate: {every: null}
checkpoint: {every: 50st, max_overhead: 0.9}
observe: {tensorboard: false}
export: {enabled: false}
"""


def write_config(folder: Path) -> str:
    path = folder / "served.yaml"
    path.write_text(CONFIG + f"run: {{dir: {folder}}}\n")
    return str(path)


def processes(wanted: Callable[[str], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if wanted(" ".join(process.info["cmdline"] or [])):
            found.append(process)
    return found


def serving(folder: Path) -> list[psutil.Process]:
    return processes(lambda command: "launch.data_worker" in command and str(folder) in command)


def read_by_others(readers: Path, ours: set[int]) -> Callable[[], bool]:
    """Whether the newest readings are those of other processes."""

    def is_so() -> bool:
        pids = [int(line) for line in readers.read_text().splitlines()[-10:-1]] if readers.exists() else []
        return len(pids) == 9 and not ours & set(pids)

    return is_so


def assert_undisturbed(config: str, folder: Path) -> None:
    """The run of the folder has the curve of one without service workers and without a failure."""
    lines = curve(folder)
    assert run(["train", config, "run.name=plain", f"train.steps={lines[-1]['step']}"]) == ExitCode.DONE
    assert lines == curve(folder.parent / "plain")


@pytest.mark.processes
def test_service_workers_and_then_the_run_are_killed_and_the_curve_is_that_of_a_run_without(tmp_path):
    config, folder, readers = write_config(tmp_path), tmp_path / "struck", tmp_path / "readers"
    arguments = ["train", config, "run.name=struck", "data.service.workers=2"]
    with started(*arguments, READERS=str(readers)) as process:
        wait_until(lambda: len(events(folder, "data_worker_started")) == 2, process)
        wait_until(read_by_others(readers, {process.pid}), process)
        serving(folder)[0].send_signal(signal.SIGKILL)
        wait_until(lambda: len(events(folder, "data_worker_started")) == 3, process)
        assert [event["reason"] for event in events(folder, "data_worker_ended")] == ["SIGKILL"]
        left = serving(folder)
        for worker in left:
            worker.send_signal(signal.SIGKILL)
        reached = last_step(folder)
        wait_until(lambda: last_step(folder) > reached, process)
        wait_for_checkpoint(folder, process)
        process.kill()
    assert not serving(folder)
    reached = last_step(folder)
    # Another number is no other curve: nobody has to agree to it.
    with started(*arguments[:-1], "data.service.workers=1", READERS=str(readers)) as process:
        wait_until(read_by_others(readers, {process.pid}), process)
        wait_until(lambda: last_step(folder) > reached + 50, process)
        assert run(["stop", str(folder)]) == ExitCode.DONE
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED and not (folder / "data_service.json").exists()
    assert_undisturbed(config, folder)


@pytest.mark.processes
def test_service_workers_are_actors_of_a_ray_cluster_and_one_of_them_is_killed(tmp_path):
    config, folder, readers = write_config(tmp_path), tmp_path / "onray", tmp_path / "readers"
    with ray_nodes(1, READERS=str(readers)) as nodes:
        on_ray = ["cluster.kind=ray", "cluster.workers=1", f"cluster.ray.address={nodes.address}"]
        service = ["data.service.workers=1", "data.service.cpus_per_worker=0", "run.name=onray"]
        with started("train", config, *on_ray, *service, "cluster.standbys=0") as process:
            wait_until(lambda: events(folder, "data_worker_started") and last_step(folder), process)
            members = {event["pid"] for event in events(folder, "started")}
            wait_until(read_by_others(readers, members), process)
            victim = int(readers.read_text().splitlines()[-2])
            assert "RayDataWorker" in " ".join(psutil.Process(victim).cmdline())
            psutil.Process(victim).kill()
            wait_until(lambda: len(events(folder, "data_worker_started")) == 2, process)
            wait_until(read_by_others(readers, {*members, victim}), process)
            assert run(["stop", str(folder)]) == ExitCode.DONE
            output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, output
    assert_undisturbed(config, folder)


@pytest.mark.parametrize(
    ("overrides", "rule"),
    [
        (["data.service.workers=0"], "data.service.workers"),
        (["data.service.workers={min: 3, max: 2}"], "data.service.workers.min=3 must be at most"),
        (["data.service.workers=2", "data.service.cpus_per_worker=2"], "says nothing with cluster.kind=local"),
        (
            ["data.service.workers=2", "cluster.kind=tpu", "cluster.tpu.accelerator=v5litepod-4"],
            "data.service must have hosts beside those that train",
        ),
        (["data.service={}"], "data.service.workers"),
    ],
)
def test_a_service_that_cannot_be_is_refused(tmp_path, overrides, rule):
    with pytest.raises(ConfigError, match=rule.replace(".", r"\.")):
        load_config(write_config(tmp_path), overrides)


def test_a_range_and_a_number_are_read(tmp_path):
    service = load_config(write_config(tmp_path), ["data.service.workers={min: 1, max: 8}"]).data.service
    assert service is not None and (service.fewest, service.most) == (1, 8)
    service = load_config(write_config(tmp_path), ["data.service.workers=4"]).data.service
    assert service is not None and (service.fewest, service.most) == (4, 4)
    assert load_config(write_config(tmp_path)).data.service is None
