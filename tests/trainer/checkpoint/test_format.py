import json
import math
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from trainer.checkpoint.format import (
    MANIFEST,
    STATE,
    DamagedCheckpoint,
    read_checkpoint,
    read_manifest,
    verify,
    write_checkpoint,
)

ARRAYS = {
    "model/dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "model/dense/scale": np.array([1.5, -2], ml_dtypes.bfloat16),
    "seed": np.array([1, 2**32 - 1], np.uint32),
    "step": np.array(500, np.int64),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path, 500, ARRAYS, {"wall_time_s": 1.5, "metrics": {"accuracy": 0.1}})


def test_what_was_written_is_read(checkpoint: Path):
    read = read_checkpoint(checkpoint)
    assert (read.path.name, read.step) == ("step-00000500", 500)
    assert read.metadata == {"wall_time_s": 1.5, "metrics": {"accuracy": 0.1}}
    assert read.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert read.arrays[name].dtype == array.dtype
        assert read.arrays[name].shape == array.shape
        assert read.arrays[name].tobytes() == array.tobytes()


def test_the_files_are_plain_json_and_safetensors(checkpoint: Path):
    manifest = json.loads((checkpoint / MANIFEST).read_text())["checkpoint"]
    assert manifest["step"] == 500
    assert manifest["files"][STATE]["bytes"] == (checkpoint / STATE).stat().st_size
    assert manifest["arrays"]["model/dense/scale"] == {"file": STATE, "shape": [2], "dtype": "bfloat16"}
    kernel = safetensors.numpy.load_file(checkpoint / STATE)["model/dense/kernel"]
    assert kernel.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_nothing_but_the_checkpoint_is_left_in_the_folder(checkpoint: Path):
    assert os.listdir(checkpoint.parent) == ["step-00000500"]
    assert sorted(os.listdir(checkpoint)) == [MANIFEST, STATE]


def test_metadata_may_hold_what_training_produces(tmp_path: Path):
    metadata = {"loss": np.float32(0.1), "worst": math.nan, "skipped": [{"from": np.int64(3), "best": -math.inf}]}
    read = read_checkpoint(write_checkpoint(tmp_path, 1, ARRAYS, metadata)).metadata
    assert read == {"loss": float(np.float32(0.1)), "worst": "NaN", "skipped": [{"from": 3, "best": "-Infinity"}]}


def test_a_checkpoint_of_the_same_step_is_replaced(checkpoint: Path):
    changed = {**ARRAYS, "step": np.array(7, np.int64)}
    assert write_checkpoint(checkpoint.parent, 500, changed, {}) == checkpoint
    assert read_checkpoint(checkpoint).arrays["step"] == 7
    assert os.listdir(checkpoint.parent) == ["step-00000500"]


def test_every_single_flipped_bit_is_found(checkpoint: Path):
    for name in (STATE, MANIFEST):
        content = (checkpoint / name).read_bytes()
        for position in range(len(content)):
            changed = bytearray(content)
            changed[position] ^= 1 << position % 8
            (checkpoint / name).write_bytes(changed)
            with pytest.raises(DamagedCheckpoint, match="is damaged") as caught:
                verify(checkpoint)
            assert (caught.value.path, caught.value.file) == (checkpoint, name)
        (checkpoint / name).write_bytes(content)
    verify(checkpoint)


@pytest.mark.parametrize("name", [STATE, MANIFEST])
def test_a_missing_file_is_named(checkpoint: Path, name: str):
    (checkpoint / name).unlink()
    for check in (read_checkpoint, verify):
        with pytest.raises(DamagedCheckpoint, match=f"step-00000500 is damaged: {name} is missing"):
            check(checkpoint)


@pytest.mark.parametrize("name", [STATE, MANIFEST])
@pytest.mark.parametrize("left", [0, 1, 20])
def test_a_truncated_file_is_named(checkpoint: Path, name: str, left: int):
    os.truncate(checkpoint / name, left)
    for check in (read_checkpoint, verify):
        with pytest.raises(DamagedCheckpoint, match=name):
            check(checkpoint)


def test_a_file_with_bytes_behind_its_end_is_damaged(checkpoint: Path):
    with (checkpoint / STATE).open("ab") as file:
        file.write(b"x")
    with pytest.raises(DamagedCheckpoint, match="bytes instead of"):
        read_checkpoint(checkpoint)


def test_a_manifest_of_a_later_version_says_what_to_do(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("trainer.checkpoint.format._FORMAT", 2)
    write_checkpoint(checkpoint.parent, 500, ARRAYS, {})
    monkeypatch.undo()
    with pytest.raises(DamagedCheckpoint, match="has format 2, this version reads up to 1: install a newer one"):
        read_manifest(checkpoint)


def test_no_folder_is_not_a_damaged_one(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "step-00000001")


def test_a_spare_folder_is_written_over(checkpoint: Path):
    spare = checkpoint.rename(checkpoint.with_name("spare"))
    block = (spare / STATE).stat().st_ino
    smaller = {"step": np.array(9, np.int64)}
    written = write_checkpoint(checkpoint.parent, 9, smaller, {}, spare=spare)
    assert (written / STATE).stat().st_ino == block
    assert read_checkpoint(written).arrays == {"step": 9}
    assert os.listdir(checkpoint.parent) == ["step-00000009"]


def test_a_spare_file_that_has_a_second_name_is_left_alone(checkpoint: Path):
    kept = checkpoint.with_name("kept.safetensors")
    os.link(checkpoint / STATE, kept)
    before = kept.read_bytes()
    write_checkpoint(checkpoint.parent, 9, {"step": np.array(9)}, {}, spare=checkpoint.rename(checkpoint.parent / "s"))
    assert kept.read_bytes() == before


def test_what_must_come_before_the_checkpoint_does(tmp_path: Path):
    seen = []
    write_checkpoint(tmp_path, 1, ARRAYS, {}, before_commit=lambda: seen.append((tmp_path / "step-00000001").exists()))
    assert seen == [False]


def test_a_failure_before_the_commit_leaves_nothing(tmp_path: Path):
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_checkpoint(tmp_path, 1, ARRAYS, {}, before_commit=fail)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_during_the_write_leaves_nothing_of_it(small_disk):
    big = {"a": np.ones(250_000, np.float32)}
    write_checkpoint(small_disk.folder, 1, big, {})
    small_disk.fill()
    with pytest.raises(OSError, match=r"No space left on device|File too large"):
        write_checkpoint(small_disk.folder, 2, big, {})
    small_disk.free()
    assert [name for name in os.listdir(small_disk.folder) if "step" in name or name.startswith(".")] == [
        "step-00000001"
    ]
    verify(small_disk.folder / "step-00000001")
