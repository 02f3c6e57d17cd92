import os
import random
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.trainer.snapshot.layout import SPECS, values
from trainer.checkpoint.host_buffer import ArraySpec
from trainer.snapshot.file import SnapshotFile, SnapshotMissing, held_snapshots, read_snapshot

PROGRAM = Path(__file__).with_name("endless_snapshots.py")
ROOT = Path(__file__).parents[3]


def written(path: Path, *numbers: int) -> SnapshotFile:
    file = SnapshotFile(path, SPECS)
    for number in numbers:
        file.write(10 * number, values(number), {"number": number})
    return file


def number_in(path: Path) -> int | None:
    """The number that every part of the snapshot holds."""
    snapshot = read_snapshot(path)
    if snapshot is None:
        return None
    number = snapshot.metadata["number"]
    assert snapshot.step == 10 * number
    assert snapshot.arrays.keys() == SPECS.keys()
    for name, array in snapshot.arrays.items():
        assert array.shape == SPECS[name].shape and array.dtype == SPECS[name].numpy_dtype
        assert (array.astype(np.float64) == number % 256).all()
    return number


def test_the_newest_snapshot_comes_back_and_outlives_its_writer(tmp_path):
    path = tmp_path / "new folder" / "snapshot"
    assert read_snapshot(path) is None
    written(path)
    assert read_snapshot(path) is None
    for number in range(1, 5):
        written(path, number)  # each time with a new writer, which goes on after the one before
        assert number_in(path) == number
    assert read_snapshot(path).arrays["half"].dtype == ml_dtypes.bfloat16


def test_the_snapshot_of_a_step_is_one_of_the_last_two_or_missing(tmp_path):
    path = tmp_path / "snapshot"
    with pytest.raises(SnapshotMissing, match=r"no whole snapshot of step 10 in .* \(those of steps: none\)"):
        read_snapshot(path, 10)
    file = written(path, 1, 2)
    for step in (10, 20):
        snapshot = read_snapshot(path, step)
        assert snapshot is not None and snapshot.step == step and snapshot.metadata["number"] == step // 10
    assert held_snapshots(path) == [(10, {"number": 1}), (20, {"number": 2})]
    file.write(30, values(3), {"number": 3})
    with pytest.raises(SnapshotMissing, match=r"step 10 in .* \(those of steps: 30, 20\)"):
        read_snapshot(path, 10)
    file.write(20, values(4), {"number": 4})  # the same step once more, of a later generation
    again = read_snapshot(path, 20)
    assert again is not None and again.metadata["number"] == 4


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    file = written(tmp_path / "snapshot", 1)
    snapshot = read_snapshot(tmp_path / "snapshot")
    for number in (2, 3, 4):
        file.write(10 * number, values(number), {"number": number})
    assert (snapshot.arrays["weights"] == 1).all() and snapshot.step == 10


class Killed(Exception):
    pass


@pytest.mark.parametrize("moment", ["before the header is taken back", "in the arrays", "before the header is written"])
@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_write_that_was_cut_off_leaves_the_snapshot_before_it(moment, before, tmp_path, monkeypatch):
    file = written(tmp_path / "snapshot", *range(1, before + 1))
    headers = []
    write_header = file._write_header

    def cut_off_header(slot, header):
        headers.append(header)
        if moment == "before the header is taken back" or (len(headers) == 2 and moment != "in the arrays"):
            raise Killed
        write_header(slot, header)

    def cut_off_array():
        raise Killed

    monkeypatch.setattr(file, "_write_header", cut_off_header)
    arrays = values(99)
    if moment == "in the arrays":
        arrays["step"] = cut_off_array
    with pytest.raises(Killed):
        file.write(990, arrays, {"number": 99})
    assert number_in(tmp_path / "snapshot") == (before or None)
    written(tmp_path / "snapshot", 50)  # and the next process goes on
    assert number_in(tmp_path / "snapshot") == 50


def test_no_changed_byte_is_believed(tmp_path):
    path = tmp_path / "snapshot"
    written(path, 1, 2)
    whole = path.read_bytes()
    rng = random.Random(0)
    # All bytes of the headers, and some of the rest: a change hits one slot, or nothing that is used.
    slot_bytes = (len(whole) - 4096) // 2
    places = [*range(32), *range(4096, 4096 + 48), *range(4096 + slot_bytes, 4096 + slot_bytes + 48)]
    places += rng.sample(range(len(whole)), 100)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert number_in(path) in ((None,) if place < 28 else (1, 2)), place


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\0" * 20_000])
def test_another_file_is_no_snapshot_and_is_replaced(content, tmp_path):
    path = tmp_path / "snapshot"
    path.write_bytes(content)
    assert read_snapshot(path) is None
    written(path, 3)
    assert number_in(path) == 3


def test_another_layout_of_the_same_size_replaces_the_file(tmp_path):
    path = tmp_path / "snapshot"
    specs = {**SPECS, "weights": ArraySpec((3, 100_000), "float32")}
    file = SnapshotFile(path, specs)
    file.write(5, {name: lambda s=spec: np.zeros(s.shape, s.numpy_dtype) for name, spec in specs.items()}, {})
    size = path.stat().st_size
    written(path)
    assert path.stat().st_size == size and read_snapshot(path) is None


def test_a_host_without_memory_is_an_error_before_anything_is_written(small_disk):
    big = {"weights": ArraySpec((10_000_000,), "float32")}
    small_disk.fill()
    with pytest.raises(OSError):
        SnapshotFile(small_disk.folder / "snapshot", big)
    small_disk.free()
    assert not list(small_disk.folder.glob("snapshot*"))


@pytest.mark.processes
def test_sigkill_at_any_moment_leaves_a_whole_snapshot(tmp_path):
    path, rng, last = tmp_path / "snapshot", random.Random(1), 0
    writer = subprocess.Popen(
        [sys.executable, PROGRAM, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    torn = 0
    for _ in range(30):
        print(f"{last} {rng.uniform(0, 0.01)}", file=writer.stdin, flush=True)
        reported = int(writer.stdout.readline())
        number = number_in(path)
        assert number is not None and number >= reported > last
        torn += b"\0" * 44 in (path.read_bytes()[begin : begin + 44] for begin in slots(path))
        last = number
    writer.stdin.close()
    assert writer.wait(60) == 0
    # Without kills in the middle of a write nothing would have been shown.
    assert torn >= 3


def slots(path: Path) -> tuple[int, int]:
    return 4096, 4096 + (path.stat().st_size - 4096) // 2
