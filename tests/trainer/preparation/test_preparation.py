"""The output is a function of input and seed, and what is done is not done again."""

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.preparation.raw_data import (
    payloads_of,
    prepare,
    shards_of,
    write_images,
    write_lines,
    write_records,
    write_tables,
)
from trainer.data.checks import DataError
from trainer.preparation import parts
from trainer.preparation.order import FileKeys, shard_of
from trainer.preparation.preparation import UNFINISHED, Preparation, make_folder
from trainer.preparation.request import Request
from trainer.preparation.tasks import Task, carry_out


@pytest.mark.parametrize("format", ["images", "csv", "parquet", "lines", "tfrecord"])
def test_pieces_order_and_repetition_make_no_difference(tmp_path, monkeypatch, format) -> None:
    writers = {"images": write_images, "lines": write_lines, "tfrecord": write_records}
    raw = writers[format](tmp_path / "raw") if format in writers else write_tables(tmp_path / "raw", format)
    asked = Request(source=str(raw), format=format, num_shards=4, target=None if format in writers else "late")
    manifest = prepare(asked, tmp_path / "whole")
    whole = shards_of(tmp_path / "whole")
    assert [shard.name for shard in manifest.shards] == list(whole) and len(whole) == 4
    monkeypatch.setattr(parts.PartWriter.__init__, "__defaults__", (64,))
    prepare(asked.model_copy(update={"chunk_bytes": 100}), tmp_path / "pieces", order=random.Random(1), twice=True)
    assert shards_of(tmp_path / "pieces") == whole
    assert not (tmp_path / "pieces" / UNFINISHED).exists()
    prepare(asked.model_copy(update={"seed": 1}), tmp_path / "seed")
    assert sorted(payloads_of(tmp_path / "seed")) == sorted(payloads_of(tmp_path / "whole"))
    assert shards_of(tmp_path / "seed") != whole


def test_the_place_of_the_input_makes_no_difference(tmp_path: Path) -> None:
    for name in ("here", "there"):
        source = write_records(tmp_path / name / "raw")
        prepare(Request(source=source, format="tfrecord", num_shards=2), tmp_path / name / "out")
    assert shards_of(tmp_path / "here" / "out") == shards_of(tmp_path / "there" / "out")


def test_the_order_is_that_of_random_numbers() -> None:
    keys = [FileKeys(seed, name).key(n) for seed in (0, 1) for name in ("a", "b") for n in range(5000)]
    assert len(set(keys)) == len(keys)
    counts = [0] * 16
    for key in keys:
        counts[shard_of(key, 16)] += 1
    # 1,250 each, give or take 34: a chi-squared of 15 degrees exceeds 44 once in 10,000 times.
    assert sum((count - 1250) ** 2 / 1250 for count in counts) < 44
    ranks = sorted(range(5000), key=keys.__getitem__)
    assert abs(sum((rank - 2499.5) * (place - 2499.5) for place, rank in enumerate(ranks))) < 5 * 5000**2.5 / 12


@given(st.integers(0, 2**64 - 1), st.integers(1, 1000))
def test_a_larger_key_is_in_no_earlier_shard(key: int, shards: int) -> None:
    assert 0 <= shard_of(key, shards) < shards
    assert shard_of(max(0, key - 1), shards) <= shard_of(key, shards)


@pytest.mark.parametrize("killed_after", range(1, 10))
def test_after_a_kill_at_any_task_the_rest_is_done(tmp_path: Path, killed_after: int) -> None:
    folder = tmp_path
    asked = Request(source=write_tables(folder / "raw", "csv", rows=5), format="csv", num_shards=3, target="late")
    prepare(asked, folder / "whole")
    make_folder(folder / "out")
    done = 0
    while True:
        preparation = Preparation(asked, folder / "out")
        if preparation.finished is not None:
            break
        for stage in (preparation.surveys, preparation.parts, preparation.shards):
            for task in stage():
                carry_out(task)
                done += 1
                if done == killed_after:
                    break
            else:
                continue
            break
        else:
            preparation.finish()
    assert done == 9 and shards_of(folder / "out") == shards_of(folder / "whole")


def begun(tmp_path: Path) -> tuple[Request, Preparation, list[Task]]:
    write_tables(tmp_path / "raw", "csv")
    asked = Request(source=f"{tmp_path}/raw/*.csv", format="csv", num_shards=3, target="late")
    make_folder(tmp_path / "out")
    preparation = Preparation(asked, tmp_path / "out")
    for task in preparation.surveys():
        carry_out(task)
    tasks = preparation.parts()
    for task in tasks:
        carry_out(task)
    return asked, preparation, tasks


def test_only_what_a_changed_file_made_is_done_again(tmp_path: Path) -> None:
    asked, preparation, _ = begun(tmp_path)
    for task in preparation.shards():
        carry_out(task)
    with (tmp_path / "raw" / "1.csv").open("a") as file:
        file.write("7,dog,yes\n")
    again = Preparation(asked, tmp_path / "out")
    (survey,) = again.surveys()
    carry_out(survey)
    assert [Path(task.chunk.files[0].path).name for task in again.parts()] == ["1.csv"]
    carry_out(again.parts()[0])
    assert len(again.shards()) == 3


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    _, _, tasks = begun(tmp_path)
    os.utime(tasks[0].chunk.files[0].path)
    with pytest.raises(DataError, match=r"0.csv: it changed while the data were prepared: give the command again"):
        carry_out(tasks[0])


@pytest.mark.parametrize(
    "damage", [lambda held: held[:-9], lambda held: b"", lambda held: held[:30] + b"!" + held[31:]]
)
def test_a_damaged_part_is_named(tmp_path: Path, damage) -> None:
    _, preparation, tasks = begun(tmp_path)
    tasks[1].file.write_bytes(damage(tasks[1].file.read_bytes()))
    with pytest.raises(DataError, match=rf"{tasks[1].file.name}: an intermediate file .* is damaged: remove it"):
        for task in preparation.shards():
            carry_out(task)


def test_the_folder_is_for_one_request(tmp_path: Path) -> None:
    asked, _, _ = begun(tmp_path)
    other = asked.model_copy(update={"seed": 5})
    with pytest.raises(
        DataError, match="out: it holds an unfinished preparation with seed=0, and this is one with seed=5"
    ):
        Preparation(other, tmp_path / "out")
    manifest = prepare(asked, tmp_path / "out")
    assert prepare(asked, tmp_path / "out") == manifest
    with pytest.raises(DataError, match="out: it holds a finished preparation with seed=0"):
        Preparation(other, tmp_path / "out")
    shard = tmp_path / "out" / manifest.shards[1].name
    held = shard.read_bytes()
    shard.write_bytes(held[:-1])
    with pytest.raises(DataError, match=f"00001-of-00003.tfrecord: it is not there with the {len(held)} bytes"):
        Preparation(asked, tmp_path / "out")
    shard.write_bytes(held)
    os.utime(tmp_path / "raw" / "1.csv")
    with pytest.raises(DataError, match="have changed since it was prepared: name another folder, or remove this one"):
        Preparation(asked, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(DataError, match="mine: it is not empty and holds no preparation: name a folder"):
        Preparation(asked, tmp_path / "mine")


def test_the_manifest_says_what_is_there(tmp_path: Path) -> None:
    import hashlib

    asked, _, _ = begun(tmp_path)
    manifest = prepare(asked, tmp_path / "out")
    for shard, (name, held) in zip(manifest.shards, shards_of(tmp_path / "out").items(), strict=True):
        assert (shard.name, shard.bytes, shard.sha256) == (name, len(held), hashlib.sha256(held).hexdigest())
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["request"]["seed"] == 0
    assert "name: prepared" in (tmp_path / "out" / "data.yaml").read_text()


def test_nothing_to_prepare(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n \n")
    with pytest.raises(DataError, match="there is no record in it: correct RAW, or --format"):
        prepare(Request(source=str(tmp_path / "a.txt"), format="lines", num_shards=1), tmp_path / "out")
