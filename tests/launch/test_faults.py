"""What goes wrong around a run, through the command line: a clear message, and nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from trainer.checkpoint.store import CheckpointStore
from trainer.observe.journal import read_journal
from trainer.observe.metrics_log import read_metrics

CONFIG = """\
model: {name: mlp, hidden: [4]}
data: {name: synthetic, shape: [6], num_classes: 3, num_samples: 64, held_out_samples: 16, batch_size: 16}
train: {steps: 8, log_every: 2, steps_per_loop: 2}
evaluate: {every: null}
observe: {tensorboard: false}
export: {enabled: false}
"""
ENDLESS = [
    *("train.steps=100000000", "train.log_every=50", "train.steps_per_loop=50"),
    *("checkpoint.every=50st", "checkpoint.max_overhead=0.5"),
]
PATIENCE_S = 300.0


def write_config(folder: Path, runs: Path) -> str:
    path = folder / "tiny.yaml"
    path.write_text(CONFIG + f"run: {{dir: {runs}}}\n")
    return str(path)


def curve(run_folder: Path) -> list[dict]:
    changing = {"time", "examples_per_s", "data_wait"}
    lines = read_metrics(run_folder / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in changing} for line in lines]


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", "from launch.cli import main; main()", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.002)


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory) -> Path:
    """A finished run with the checkpoints of steps 4 and 8; its config is in it."""
    folder = tmp_path_factory.mktemp("two")
    config = write_config(folder, folder)
    assert run(["train", config, "train.steps=4"]) == ExitCode.DONE
    assert run(["train", config]) == ExitCode.DONE
    assert CheckpointStore(folder / "tiny" / "checkpoints").steps() == [4, 8]
    return folder / "tiny"


def flip_a_byte(checkpoint: Path) -> None:
    file = checkpoint / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def remove_the_state(checkpoint: Path) -> None:
    (checkpoint / "state.safetensors").unlink()


def cut_off_the_state(checkpoint: Path) -> None:
    os.truncate(checkpoint / "state.safetensors", 100)


@pytest.mark.parametrize("damage", [flip_a_byte, remove_the_state, cut_off_the_state])
def test_with_a_damaged_newest_checkpoint_the_run_goes_on_from_the_one_before(
    two_checkpoints, tmp_path, capsys, damage: Callable[[Path], None]
):
    copy = shutil.copytree(two_checkpoints, tmp_path / "tiny")
    undisturbed = curve(copy)
    damage(copy / "checkpoints" / "step-00000008")
    assert run(["resume", str(copy)]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "step-00000008" in said
    assert "the checkpoint of step 4 is used" in said
    assert curve(copy) == undisturbed
    assert CheckpointStore(copy / "checkpoints").steps() == [4, 8]
    assert (copy / "checkpoints" / "damaged-step-00000008").is_dir()
    events = [event["event"] for event in read_journal(copy / "journal.jsonl")]
    assert "checkpoint_damaged" in events


def test_with_every_checkpoint_damaged_the_run_says_that_it_begins_anew(two_checkpoints, tmp_path, capsys):
    copy = shutil.copytree(two_checkpoints, tmp_path / "tiny")
    undisturbed = curve(copy)
    for step in (4, 8):
        flip_a_byte(copy / "checkpoints" / f"step-{step:08d}")
    assert run(["resume", str(copy)]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert said.count("set aside as") == 2
    assert "no good checkpoint is left: the training begins anew from step 0" in said
    assert "is used" not in said
    assert curve(copy) == undisturbed
    assert {path.name for path in (copy / "checkpoints").glob("damaged-*")} == {
        "damaged-step-00000004",
        "damaged-step-00000008",
    }
    [anew] = [event for event in read_journal(copy / "journal.jsonl") if event["event"] == "began_anew"]
    assert anew["damaged"] == 2


def test_a_refused_change_leaves_the_config_as_it_was(two_checkpoints, tmp_path, capsys):
    copy = shutil.copytree(two_checkpoints, tmp_path / "tiny")
    config = (copy / "config.yaml").read_bytes()
    change = ["model.hidden=[9]", "train.steps=10", "--accept-config-change"]
    assert run(["resume", str(copy), *change]) == ExitCode.WRONG_REQUEST
    said = capsys.readouterr()
    assert "config.yaml is as it was before" in said.out
    assert (copy / "config.yaml").read_bytes() == config
    assert run(["resume", str(copy), "train.steps=10"]) == ExitCode.DONE
    assert "done after step 10" in capsys.readouterr().out


def test_a_read_only_run_folder_is_refused_in_one_sentence(two_checkpoints, read_only_folder, capsys):
    folder, read_only = read_only_folder
    copy = shutil.copytree(two_checkpoints, folder / "tiny")
    with read_only():
        assert run(["resume", str(copy), "train.steps=10"]) == ExitCode.WRONG_REQUEST
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written (Permission denied)" in line
    assert "make it writable" in line
    assert CheckpointStore(copy / "checkpoints").steps() == [4, 8]


def test_a_full_disk_is_refused_before_anything_starts(small_disk, tmp_path, capsys, two_checkpoints):
    copy = shutil.copytree(two_checkpoints, small_disk.folder / "tiny")
    config = (copy / "config.yaml").read_bytes()
    small_disk.fill()
    code = run(["resume", str(copy), "train.steps=10"])
    small_disk.free()
    said = capsys.readouterr()
    if code == ExitCode.DONE:  # a limit on the size of a file stops no small one
        assert type(small_disk).__name__ == "FileSizeLimit"
        return
    assert code == ExitCode.WRONG_REQUEST
    (line,) = said.err.splitlines()
    assert "No space left on device" in line
    assert "free space there" in line
    assert (copy / "config.yaml").read_bytes() == config
    assert run(["resume", str(copy), "train.steps=10"]) == ExitCode.DONE


def test_training_outlives_a_disk_that_is_full_for_a_while(small_disk, tmp_path, capsys):
    """The run goes on meanwhile; afterwards every line and a newer state are there."""
    config = write_config(tmp_path, small_disk.folder)
    folder = small_disk.folder / "tiny"
    store = CheckpointStore(folder / "checkpoints")
    output: list[str] = []

    def said() -> str:
        output.append(capsys.readouterr().out)
        return "".join(output)

    def disturb() -> None:
        try:
            wait_until(store.steps)
            small_disk.fill()
            wait_until(lambda: "the earlier ones are kept" in said())
            newest_when_full = store.steps()[-1]
            small_disk.free()
            wait_until(lambda: store.steps()[-1] > newest_when_full)
        finally:
            small_disk.free()
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=disturb)
    thread.start()
    # Wide, so that a checkpoint is larger than the limit on the size of files allows.
    code = run(["train", config, *ENDLESS, "model.hidden=[3000]", "checkpoint.keep=1"])
    thread.join()
    assert code == ExitCode.STOPPED, said()
    steps = [line["step"] for line in read_metrics(folder / "metrics.jsonl")]
    assert steps == list(range(50, steps[-1] + 1, 50))
    newest = store.newest_verified()
    assert newest is not None
    assert newest.step // 50 * 50 == steps[-1]


def test_a_run_that_cannot_save_its_end_says_so_and_can_be_repeated(small_disk, tmp_path, capsys):
    config = write_config(tmp_path, small_disk.folder)
    wide = ["model.hidden=[3000]", "checkpoint.keep=1"]
    assert run(["train", config, *wide, "train.steps=4"]) == ExitCode.DONE
    folder = small_disk.folder / "tiny"
    before = CheckpointStore(folder / "checkpoints").steps()

    def fill_when_resumed() -> None:
        wait_until(lambda: [event["event"] for event in read_journal(folder / "journal.jsonl")].count("resumed"))
        small_disk.fill()

    thread = threading.Thread(target=fill_when_resumed)
    thread.start()
    # No checkpoint but the last one, and time enough for the disk to fill up before it.
    code = run(["train", config, *wide, "train.steps=2000", "train.log_every=100", "--accept-config-change"])
    thread.join()
    message = capsys.readouterr().err
    small_disk.free()
    assert code == ExitCode.FAILED
    assert "the state of step 2000 could not be saved" in message
    assert "goes on from step 4" in message
    assert CheckpointStore(folder / "checkpoints").steps() == before
    assert run(["train", config, *wide, "train.steps=6", "--accept-config-change"]) == ExitCode.DONE


def test_deleted_data_are_named_and_the_run_is_kept(tmp_path, capsys):
    data = tmp_path / "samples.npz"
    np.savez(data, x=np.zeros((64, 6), np.float32), label=np.arange(64) % 3)
    config = write_config(tmp_path, tmp_path)
    Path(config).write_text(
        Path(config)
        .read_text()
        .replace(CONFIG.splitlines()[1], f"data: {{name: arrays, path: {data}, batch_size: 16}}")
    )
    assert run(["train", config]) == ExitCode.DONE
    data.rename(tmp_path / "elsewhere.npz")
    assert run(["train", config, "train.steps=10"]) == ExitCode.FAILED
    assert str(data) in capsys.readouterr().err
    assert CheckpointStore(tmp_path / "tiny" / "checkpoints").steps()[-1] == 8
    (tmp_path / "elsewhere.npz").rename(data)
    assert run(["train", config, "train.steps=10"]) == ExitCode.DONE


def test_a_mistyped_key_changes_nothing_of_a_run(two_checkpoints, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in two_checkpoints.rglob("*"))
    assert run(["resume", str(two_checkpoints), "optimizer.learing_rate=0.1"]) == ExitCode.WRONG_REQUEST
    assert "did you mean optimizer.learning_rate?" in capsys.readouterr().err
    assert sorted((path, path.stat().st_mtime_ns) for path in two_checkpoints.rglob("*")) == before


def a_lock(folder: Path) -> bool:
    return (folder / ".lock").exists() and (folder / ".lock").stat().st_size > 0


def a_step(folder: Path) -> bool:
    return bool(read_metrics(folder / "metrics.jsonl"))


def a_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints").glob(".writing*"))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("phase", "number"),
    [(a_lock, signal.SIGINT), (a_lock, signal.SIGTERM), (a_step, signal.SIGINT), (a_checkpoint, signal.SIGTERM)],
)
def test_a_signal_in_any_phase_saves_the_state(tmp_path, number: signal.Signals, phase: Callable[[Path], bool]):
    config, folder = write_config(tmp_path, tmp_path), tmp_path / "tiny"
    process = start("train", config, *ENDLESS)
    try:
        wait_until(lambda: phase(folder), process)
        process.send_signal(number)
        output, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == ExitCode.STOPPED, output
    assert f"stopped by {number.name}" in output
    assert "Traceback" not in output
    (event,) = [event for event in read_journal(folder / "journal.jsonl") if event["event"] in ("stopped", "finished")]
    assert (event["event"], event["reason"]) == ("stopped", number.name)
    newest = CheckpointStore(folder / "checkpoints").newest_verified()
    assert (newest.step if newest else 0) == event["step"]


@pytest.mark.processes
def test_a_second_process_is_refused_with_the_first_one_s_pid_and_host(tmp_path, capsys):
    config, folder = write_config(tmp_path, tmp_path), tmp_path / "tiny"
    process = start("train", config, *ENDLESS)
    try:
        wait_until(lambda: a_lock(folder), process)
        assert run(["train", config, *ENDLESS]) == ExitCode.WRONG_REQUEST
        (line,) = capsys.readouterr().err.splitlines()
        assert f"is in use by process {process.pid} on {os.uname().nodename}" in line
    finally:
        process.kill()
        process.communicate()


@pytest.mark.processes
def test_a_run_killed_during_the_export_exports_when_it_is_repeated(tmp_path, capsys):
    config, folder = write_config(tmp_path, tmp_path), tmp_path / "tiny"
    process = start("train", config, "export.enabled=true")
    try:
        wait_until(lambda: any((folder / "export").glob("*")), process)
    finally:
        process.kill()
        process.communicate()
    assert not (folder / "export" / "1").exists()
    assert read_journal(folder / "journal.jsonl")[-1]["event"] == "finished"
    metrics = (folder / "metrics.jsonl").read_bytes()
    assert run(["train", config, "export.enabled=true"]) == ExitCode.DONE
    assert "export/1" in capsys.readouterr().out
    assert json.loads((folder / "export" / "1" / "assets.extra" / "phalanx.json").read_text())
    assert [path.name for path in (folder / "export").iterdir()] == ["1"]
    assert (folder / "metrics.jsonl").read_bytes() == metrics
