"""Small raw data of each format, and a preparation in this process, task by task."""

import itertools
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from trainer.data.example_message import Example
from trainer.data.record_index import open_index
from trainer.data.record_writer import encode_example, write_shards
from trainer.preparation.manifest import Manifest
from trainer.preparation.preparation import Preparation, make_folder
from trainer.preparation.request import Request
from trainer.preparation.tasks import carry_out

ANIMALS = ("cat", "dog", "emu")


def write_images(folder: Path, count: int = 30) -> Path:
    """PNG files of three classes, each image of its own grey."""
    for number in range(count):
        place = folder / ANIMALS[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(place / f"{number:03d}.png")
    return folder


def table(begin: int, end: int) -> pa.Table:
    rows = range(begin, end)
    return pa.table(
        {
            "size": [row / 4 for row in rows],
            "kind": [ANIMALS[row % 3] for row in rows],
            "late": ["yes" if row % 4 else "no" for row in rows],
        }
    )


def write_tables(folder: Path, format: str, files: int = 3, rows: int = 20) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        part = table(number * rows, (number + 1) * rows)
        if format == "parquet":
            pq.write_table(part, folder / f"{number}.parquet", row_group_size=7)
        else:
            lines = [",".join(part.column_names), *(",".join(map(str, row.values())) for row in part.to_pylist())]
            (folder / f"{number}.csv").write_text("\n".join(lines) + "\n")
    return f"{folder}/*.{format}"


def write_lines(folder: Path, count: int = 40) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name in "ab":
        lines = [f"line {number} of {name}" + " and on" * (number % 9) for number in range(count)]
        (folder / f"{name}.txt").write_text("\n\n".join(lines))
    return f"{folder}/*.txt"


def write_records(folder: Path, count: int = 40) -> str:
    payloads = [encode_example({"x": [n / 2, n + 0.0], "label": n % 3}) for n in range(count)]
    write_shards(folder, "raw", payloads, 3)
    return f"{folder}/*.tfrecord"


def prepare(
    request: Request, folder: Path, most_damaged: int = 0, order: random.Random | None = None, twice: bool = False
) -> Manifest:
    """All tasks, in their order or another one, and some of them again."""
    make_folder(folder)
    preparation = Preparation(request, folder, most_damaged)
    if preparation.finished is not None:
        return preparation.finished
    for stage in (preparation.surveys, preparation.parts, preparation.shards):
        tasks = stage()
        if order is not None:
            order.shuffle(tasks)
        for task in [*tasks, *(tasks[::2] if twice else ())]:
            carry_out(task)
    return preparation.finish()


def shards_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tfrecord"))}


def payloads_of(folder: Path) -> list[bytes]:
    """All records, in the order of shards and places in them, as the index says."""
    found = []
    for path in sorted(folder.glob("*.tfrecord")):
        held, ends = path.read_bytes(), open_index(path).boundaries.tolist()
        found += [held[begin + 12 : end - 4] for begin, end in itertools.pairwise(ends)]
    return found


def values_of(folder: Path, *names: str) -> Counter:
    """How often each combination of these features is there."""
    found: Counter = Counter()
    for payload in payloads_of(folder):
        held = Example.FromString(payload).features.feature
        found[tuple(tuple(getattr(held[name], held[name].WhichOneof("kind")).value) for name in names)] += 1
    return found
