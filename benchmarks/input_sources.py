"""The sources of `benchmarks.input`: their files, and for each how Phalanx, its peers and the bare machine read it.

Shape legend: B batch.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks.synthetic_records import class_image, write_synthetic_records
from trainer.config.data import ArraysData, CsvData, DataConfig
from trainer.config.data_streams import ImagesData, RecordFeature, TfrecordData
from trainer.data.augment import build_augmentation
from trainer.data.block_reader import BlockReader
from trainer.data.counter_random import sample_keys
from trainer.data.mixture import sample_order
from trainer.data.pipeline import steps_of_block, train_blocks
from trainer.data.registry import open_source

Begin = Callable[[], Iterator[int]]
"""Begins to read, and gives the size of one batch after the other."""

SIDE, CLASSES = 224, 10
IMAGES_BATCH, ARRAYS_BATCH, TABLE_BATCH = 32, 256, 1024
STEPS_PER_LOOP = 50  # the config's default
NUM_ARRAYS, NUM_ROWS, NUM_COLUMNS = 20_000, 100_000, 8
AUGMENT = ("flip", "shift=4", "brightness=0.2", "contrast=0.2")
HAS_GRAIN = importlib.util.find_spec("grain") is not None


@dataclass(frozen=True)
class Workload:
    """One source, and who reads it.

    Attributes:
        contenders: By name; "phalanx" and "limit" are among them.
    """

    contenders: dict[str, Begin]


@dataclass(frozen=True)
class Files:
    """Where everything lies."""

    records: Path
    images: Path
    arrays: Path
    table: Path


def make_files(folder: Path, images: int) -> Files:
    """Makes all sources below a folder, with so many photographs."""
    files = Files(folder / "records", folder / "images", folder / "arrays.npz", folder / "table.csv")
    write_synthetic_records(files.records, images, 8, CLASSES)
    for number in range(images):
        label = number % CLASSES
        (files.images / f"class-{label}").mkdir(parents=True, exist_ok=True)
        pixels = class_image(label, CLASSES, np.random.default_rng([1, number]))
        Image.fromarray(pixels).save(files.images / f"class-{label}" / f"{number}.jpeg", quality=90)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (NUM_ARRAYS, 32, 32, 3), np.uint8)
    np.savez(files.arrays, image=pixels, label=rng.integers(0, CLASSES, NUM_ARRAYS, np.int64))
    table = rng.normal(size=(NUM_ROWS, NUM_COLUMNS)).astype(np.float32)
    names = [f"number_{column}" for column in range(NUM_COLUMNS)]
    lines = (",".join([*(f"{value:.5f}" for value in row), "yes" if row[0] > 0 else "no"]) for row in table)
    files.table.write_text("\n".join([",".join([*names, "label"]), *lines]) + "\n")
    return files


def records_config(files: Files) -> TfrecordData:
    """The photographs in records, as a config has them."""
    return TfrecordData(
        pattern=str(files.records / "train-*"),
        held_out_pattern=str(files.records / "validation-*"),
        features={
            "image": RecordFeature(kind="image", key="image/encoded"),
            "label": RecordFeature(kind="integer", key="image/class/label", offset=-1),
        },
        num_classes=CLASSES,
        batch_size=IMAGES_BATCH,
    )


def phalanx(data: DataConfig) -> Begin:
    """The training's own hand-over."""
    source = open_source(data, "train")
    order = sample_order(data, source, 0)
    block_steps = steps_of_block(source, order, STEPS_PER_LOOP)

    def begin() -> Iterator[int]:
        blocks = train_blocks(
            source, order, first_step=0, num_steps=2**30, block_steps=block_steps, augment=data.augment
        )
        reader = BlockReader(blocks, block_steps)
        try:
            while True:
                yield reader.take(block_steps).num_steps * data.batch_size
        finally:
            reader.close()

    return begin


def of_dataset(make: Callable[[], tf.data.Dataset]) -> Begin:
    """Batches of a tf.data pipeline, which begins anew each time."""

    def begin() -> Iterator[int]:
        for batch in make():
            yield int(tf.nest.flatten(batch)[0].shape[0])

    return begin


def of_grain(source: Any, change: Callable[[Any], Any], batch_size: int) -> dict[str, Begin]:
    """Batches of Grain, with threads; nothing where it is not installed."""
    if not HAS_GRAIN:
        return {}
    import grain

    def begin() -> Iterator[int]:
        samples = grain.MapDataset.source(source).shuffle(seed=0).repeat().map(change)
        for batch in samples.batch(batch_size).to_iter_dataset(grain.ReadOptions()):
            yield len(next(iter(batch.values())))

    return {"grain": begin}


def in_parallel(make: Callable[[tf.Tensor], Any], size: int) -> Begin:
    """A piece of work on all cores at once; of its result one number is kept, so that nothing is passed on.

    Args:
        make: The work, of a number that counts up.
        size: Samples in one piece.
    """

    def one(number: tf.Tensor) -> tf.Tensor:
        return tf.add_n([tf.cast(tf.reshape(v, [-1])[0], tf.float32) for v in tf.nest.flatten(make(number))])

    def begin() -> Iterator[int]:
        pieces = tf.data.Dataset.range(2**40).map(one, num_parallel_calls=os.cpu_count(), deterministic=False)
        for batch in pieces.batch(max(1, IMAGES_BATCH // size)).prefetch(2):
            yield int(batch.shape[0]) * size

    return begin


def decoded(encoded: tf.Tensor) -> tf.Tensor:
    """The largest centred square of a JPEG, brought to `SIDE`, float32 in [0, 1]."""
    shape = tf.io.extract_jpeg_shape(encoded)
    side = tf.minimum(shape[0], shape[1])
    window = tf.stack([(shape[0] - side) // 2, (shape[1] - side) // 2, side, side])
    return tf.image.resize(tf.io.decode_and_crop_jpeg(encoded, window, channels=3), (SIDE, SIDE)) / 255.0


def with_pil(encoded: bytes) -> np.ndarray:
    """A JPEG as PIL reads it, float32 [SIDE, SIDE, 3]."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE)), np.float32) / 255.0


def records(files: Files) -> Workload:
    """JPEG photographs in TFRecord shards."""
    shards = sorted(map(str, files.records.glob("train-*")))
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_single_example(record, features)
        image = tf.io.decode_jpeg(parsed["image/encoded"], channels=3)
        return {"image": tf.image.resize(image, (SIDE, SIDE)) / 255.0, "label": parsed["image/class/label"]}

    def written() -> tf.data.Dataset:
        read = tf.data.TFRecordDataset(shards, num_parallel_reads=tf.data.AUTOTUNE).shuffle(256).repeat()
        return read.map(parse, tf.data.AUTOTUNE).batch(IMAGES_BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def read_and_decode() -> tf.data.Dataset:
        read = tf.data.TFRecordDataset(shards).repeat()
        image = read.map(
            lambda record: decoded(tf.io.parse_single_example(record, features)["image/encoded"])[0, 0, 0],
            num_parallel_calls=os.cpu_count(),
            deterministic=False,
        )
        return image.batch(IMAGES_BATCH)

    contenders = {
        "phalanx": phalanx(records_config(files)),
        "limit": of_dataset(read_and_decode),
        "tf.data": of_dataset(written),
    }
    if HAS_GRAIN and importlib.util.find_spec("array_record") is not None:
        contenders |= of_grain(_array_record(shards, files.records), _parse_with_pil, IMAGES_BATCH)
    return Workload(contenders)


def images(files: Files) -> Workload:
    """JPEG photographs as files, a folder for each class."""
    paths = sorted(map(str, files.images.glob("*/*.jpeg")))
    labels = np.asarray([int(Path(path).parent.name.removeprefix("class-")) for path in paths])

    def load(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(image, (SIDE, SIDE)) / 255.0, label

    def written() -> tf.data.Dataset:
        read = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(len(paths)).repeat()
        return read.map(load, tf.data.AUTOTUNE).batch(IMAGES_BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    table = tf.constant(paths)
    data = ImagesData(path=str(files.images), held_out_fraction=0.01, batch_size=IMAGES_BATCH)
    return Workload(
        {
            "phalanx": phalanx(data),
            "limit": in_parallel(
                lambda number: decoded(tf.io.read_file(table[tf.math.floormod(number, len(paths))])), 1
            ),
            "tf.data": of_dataset(written),
            **of_grain(
                list(zip(paths, labels.tolist(), strict=True)),
                lambda one: {"image": with_pil(Path(one[0]).read_bytes()), "label": one[1]},
                IMAGES_BATCH,
            ),
        }
    )


def arrays(files: Files, augment: tuple[str, ...] = ()) -> Workload:
    """Small images in memory."""
    data = ArraysData(path=str(files.arrays), held_out_fraction=0.01, batch_size=ARRAYS_BATCH, augment=augment)
    with np.load(files.arrays) as stored:
        pixels, labels = stored["image"], stored["label"]
    table, classes = tf.constant(pixels.astype(np.float32) / 255), tf.constant(labels)
    source = open_source(data, "train")
    change = build_augmentation(augment, source.schema)
    index = tf.random.uniform([16, ARRAYS_BATCH], 0, NUM_ARRAYS, tf.int64, seed=0)
    position = tf.range(ARRAYS_BATCH, dtype=tf.int64)

    def least(number: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = index[tf.math.floormod(number, 16)]
        batch = {"image": tf.gather(table, rows), "label": tf.gather(classes, rows)}
        return change(batch, sample_keys(0, tf.fill([ARRAYS_BATCH], number), position)) if change else batch

    def scale(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.cast(image, tf.float32) / 255.0
        if not augment:
            return image, label
        image = tf.image.random_flip_left_right(image)
        image = tf.image.random_crop(tf.pad(image, [[4, 4], [4, 4], [0, 0]]), (32, 32, 3))
        return tf.image.random_contrast(tf.image.random_brightness(image, 0.2), 0.8, 1.2), label

    def written() -> tf.data.Dataset:
        read = tf.data.Dataset.from_tensor_slices((pixels, labels)).shuffle(len(labels)).repeat()
        return read.map(scale, tf.data.AUTOTUNE).batch(ARRAYS_BATCH).prefetch(tf.data.AUTOTUNE)

    grain_change = functools.partial(_change_with_numpy, np.random.default_rng(0), bool(augment))
    return Workload(
        {
            "phalanx": phalanx(data),
            "limit": in_parallel(least, ARRAYS_BATCH),
            "tf.data": of_dataset(written),
            **of_grain(_Rows({"image": pixels, "label": labels}), grain_change, ARRAYS_BATCH),
        }
    )


def augmented(files: Files) -> Workload:
    """The same, each changed at random in four ways."""
    return arrays(files, AUGMENT)


def table(files: Files) -> Workload:
    """A CSV file of numbers."""
    data = CsvData(path=str(files.table), target="label", held_out_fraction=0.01, batch_size=TABLE_BATCH)
    with files.table.open() as file:
        names = file.readline().strip().split(",")[:-1]
        rows = [line.strip().split(",") for line in file]
    numbers = np.asarray([row[:-1] for row in rows], np.float32)
    labels = np.asarray([row[-1] == "yes" for row in rows], np.int32)
    columns = {**{name: numbers[:, i] for i, name in enumerate(names)}, "label": labels}
    tables = tf.constant(numbers), tf.constant(labels)
    index = tf.random.uniform([16, TABLE_BATCH], 0, NUM_ROWS, tf.int64, seed=0)

    def written() -> tf.data.Dataset:
        read = tf.data.Dataset.from_tensor_slices(columns).shuffle(NUM_ROWS).repeat()
        return read.batch(TABLE_BATCH).prefetch(tf.data.AUTOTUNE)

    def least(number: tf.Tensor) -> list[tf.Tensor]:
        return [
            *tf.unstack(tf.gather(tables[0], index[tf.math.floormod(number, 16)]), axis=1),
            tf.gather(tables[1], index[tf.math.floormod(number, 16)]),
        ]

    return Workload(
        {
            "phalanx": phalanx(data),
            "limit": in_parallel(least, TABLE_BATCH),
            "tf.data": of_dataset(written),
            **of_grain(_Rows(columns), lambda row: row, TABLE_BATCH),
        }
    )


SOURCES: dict[str, Callable[[Files], Workload]] = {
    "records": records,
    "images": images,
    "arrays": arrays,
    "augmented": augmented,
    "table": table,
}


class _Rows:
    """Arrays of one length as a random-access source."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: values[index] for name, values in self._columns.items()}


def _array_record(shards: list[str], folder: Path) -> Any:
    """The records of the shards in the format that Grain's documentation recommends."""
    import grain
    from array_record.python.array_record_module import ArrayRecordWriter

    path = str(folder / "photographs.array_record")
    writer = ArrayRecordWriter(path, "group_size:1")
    for record in tf.data.TFRecordDataset(shards).as_numpy_iterator():
        writer.write(record)
    writer.close()
    return grain.sources.ArrayRecordDataSource(path)


def _parse_with_pil(record: bytes) -> dict[str, Any]:
    features = tf.train.Example.FromString(record).features.feature
    label = features["image/class/label"].int64_list.value[0]
    return {"image": with_pil(features["image/encoded"].bytes_list.value[0]), "label": label}


def _change_with_numpy(rng: np.random.Generator, augments: bool, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    image = row["image"].astype(np.float32) / 255.0
    if augments:
        if rng.random() < 0.5:
            image = image[:, ::-1]
        top, left = rng.integers(0, 9, 2)
        image = np.pad(image, ((4, 4), (4, 4), (0, 0)))[top : top + 32, left : left + 32]
        image = image + rng.uniform(-0.2, 0.2)
        image = (image - image.mean((0, 1))) * rng.uniform(0.8, 1.2) + image.mean((0, 1))
    return {"image": np.ascontiguousarray(image, np.float32), "label": row["label"]}
