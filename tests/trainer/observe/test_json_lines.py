import json
import math
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.observe.json_lines import JsonLines, decode_line, encode_line, read_lines


@given(st.floats(), st.floats(width=32))
def test_floats_read_back_to_the_same_bits(wide: float, narrow: float):
    line = encode_line({"wide": wide, "narrow": np.float32(narrow)})
    record = decode_line(line)
    assert record is not None
    for value, original in ((record["wide"], wide), (record["narrow"], float(np.float32(narrow)))):
        assert (math.isnan(value) and math.isnan(original)) or struct.pack("d", value) == struct.pack("d", original)


def test_a_line_with_nan_is_valid_json():
    def refuse(name: str):
        raise AssertionError(f"{name} is not JSON")

    record = {"loss": np.float32("nan"), "norm": math.inf, "inside": {"low": -math.inf, "list": [np.nan]}}
    parsed = json.loads(encode_line(record), parse_constant=refuse)
    assert parsed == {"loss": "NaN", "norm": "Infinity", "inside": {"low": "-Infinity", "list": ["NaN"]}}


def test_other_types_become_plain(tmp_path: Path):
    record = decode_line(
        encode_line({"path": Path("a/b"), "ids": np.arange(3), "count": np.int64(7), "set": {"b", "a"}})
    )
    assert record == {"path": "a/b", "ids": [0, 1, 2], "count": 7, "set": ["a", "b"]}


def test_a_torn_line_is_left_out_and_the_next_process_starts_a_line_of_its_own(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2, "tex')
    assert list(read_lines(path)) == [{"n": 1}]
    lines = JsonLines(path)
    lines.append({"n": 3})
    assert list(read_lines(path)) == [{"n": 1}, {"n": 3}]


def test_rewrite_drops_refused_and_torn_lines_and_keeps_appending_to_the_new_file(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"n": 1}\nnot json\n{"n": 2}\n{"n": 3, "tex')
    lines = JsonLines(path)
    assert lines.rewrite(lambda record: record["n"] != 2) == 3
    lines.append({"n": 4})
    assert path.read_bytes() == b'{"n": 1}\n{"n": 4}\n'
    assert os.listdir(tmp_path) == ["x.jsonl"]


def test_rewrite_leaves_a_whole_file_alone(tmp_path: Path):
    lines = JsonLines(tmp_path / "x.jsonl")
    lines.append({"n": 1})
    inode = (tmp_path / "x.jsonl").stat().st_ino
    assert lines.rewrite(lambda record: True) == 0
    assert (tmp_path / "x.jsonl").stat().st_ino == inode


def test_a_full_disk_delays_lines_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    room = 12
    write = os.write

    def write_with_room(file: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        written = write(file, data[:room])
        room -= written
        return written

    failures: list[OSError] = []
    lines = JsonLines(tmp_path / "x.jsonl", failures.append)
    monkeypatch.setattr(os, "write", write_with_room)
    for n in range(3):
        lines.append({"n": n})
    assert len(failures) == 1 and failures[0].errno == 28
    assert list(read_lines(lines.path)) == [{"n": 0}]
    with pytest.raises(OSError, match="No space left"):
        lines.sync()
    room = 1000
    lines.append({"n": 3})
    lines.sync()
    assert list(read_lines(lines.path)) == [{"n": n} for n in range(4)]


def test_a_missing_file_has_no_lines(tmp_path: Path):
    assert list(read_lines(tmp_path / "none.jsonl")) == []


def test_two_threads_may_write_and_sync_one_file(tmp_path):
    lines = JsonLines(tmp_path / "log.jsonl")
    done = threading.Event()

    def sync() -> None:
        while not done.is_set():
            lines.sync()

    syncing = threading.Thread(target=sync)
    syncing.start()
    for i in range(5000):
        lines.append({"i": i})
    done.set()
    syncing.join()
    lines.close()
    assert [line["i"] for line in read_lines(tmp_path / "log.jsonl")] == list(range(5000))
