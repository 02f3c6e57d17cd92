import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.config.data_streams import RecordFeature, TfrecordData
from trainer.data.checks import DataError
from trainer.data.order import SampleOrder
from trainer.data.pipeline import evaluation_batches, train_batches
from trainer.data.record_writer import encode_example, write_shards
from trainer.data.tfrecord import RecordSource, open_records

NUMBERS = {"x": RecordFeature(kind="float", shape=(2,)), "label": RecordFeature(kind="integer")}
IMAGES = {"image": RecordFeature(kind="image", key="image/encoded"), "label": RecordFeature(kind="integer")}


def numbers(count: int = 20) -> list[bytes]:
    return [encode_example({"x": [float(i), -float(i)], "label": i % 4}) for i in range(count)]


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (shade, 0, 255)).save(file, "PNG")
    return file.getvalue()


def data(folder: Path, **options: Any) -> TfrecordData:
    options = {"features": NUMBERS, "num_classes": 4, "held_out_pattern": "unused", "image_size": (4, 4), **options}
    return TfrecordData(pattern=f"{folder}/train-*", **options)


def opened(folder: Path, payloads: list[bytes], num_shards: int = 3, **options: Any) -> RecordSource:
    write_shards(folder, "train", payloads, num_shards)
    return open_records(data(folder, **options), "train")


def read(source: RecordSource, *index: int) -> dict[str, np.ndarray]:
    batch = source.read(tf.constant(index or range(source.schema.num_samples), tf.int64))
    return {name: values.numpy() for name, values in batch.items()}


def fault(source: RecordSource, *index: int) -> DataError:
    """The error of a read, as the training loop finds it."""
    with pytest.raises((tf.errors.OpError, DataError)):
        list(evaluation_batches(source, 4) if not index else [source.read(tf.constant(index, tf.int64))])
    assert source.failure is not None
    return source.failure


def overwrite(path: Path, at: int, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= byte
    path.write_bytes(content)


def test_records_are_read_at_any_index(tmp_path: Path) -> None:
    source = opened(tmp_path, numbers())
    # 20 records in turn over 3 shards: the second shard begins with record 1.
    order = [*range(0, 20, 3), *range(1, 20, 3), *range(2, 20, 3)]
    index = np.random.default_rng(0).permutation(20)
    batch = read(source, *index.tolist())
    expected = np.asarray(order)[index]
    np.testing.assert_array_equal(batch["x"], np.stack([expected, -expected], 1).astype(np.float32))
    np.testing.assert_array_equal(batch["label"], expected % 4)
    assert (batch["x"].dtype, batch["label"].dtype) == (np.float32, np.int32)
    assert source.locate(7) == f"{tmp_path}/train-00001-of-00003.tfrecord, record 0"


def test_the_order_of_the_pipeline_reaches_every_record_once(tmp_path: Path) -> None:
    source = opened(tmp_path, numbers())
    batches = train_batches(source, SampleOrder(20, 4, seed=3), first_step=0, num_steps=5)
    seen = np.concatenate([batch["x"][:, 0] for batch in batches.as_numpy_iterator()])
    assert sorted(seen) == list(range(20))
    assert seen.tolist() != sorted(seen)


def test_images_are_decoded_and_resized(tmp_path: Path) -> None:
    payloads = [encode_example({"image/encoded": picture(i * 10), "label": i % 4}) for i in range(5)]
    source = opened(tmp_path, payloads, 1, features=IMAGES)
    batch = read(source)
    assert batch["image"].shape == (5, 4, 4, 3)
    np.testing.assert_allclose(batch["image"][:, 2, 2, 0], np.arange(5) * 10 / 255, atol=1e-6)
    assert source.schema.features["image"].shape == (4, 4, 3)
    batches = train_batches(source, SampleOrder(5, 5, remainder="drop"), first_step=0, num_steps=1)
    assert batches.element_spec["image"].shape == (5, 4, 4, 3)


def test_raw_bytes_and_offsets(tmp_path: Path) -> None:
    arrays = np.arange(12, dtype="<i4").reshape(2, 2, 3)
    payloads = [encode_example({"bytes": array.tobytes(), "class": number + 1}) for number, array in enumerate(arrays)]
    features = {
        "table": RecordFeature(kind="raw", key="bytes", dtype="int32", shape=(2, 3)),
        "label": RecordFeature(kind="integer", key="class", offset=-1),
    }
    batch = read(opened(tmp_path, payloads, 1, features=features, num_classes=2))
    np.testing.assert_array_equal(batch["table"], arrays)
    np.testing.assert_array_equal(batch["label"], [0, 1])


def test_an_integer_without_bound_keeps_its_64_bits(tmp_path: Path) -> None:
    features = {**NUMBERS, "id": RecordFeature(kind="integer")}
    payload = encode_example({"x": [0.0, 0.0], "label": 0, "id": 2**40 + 1})
    assert read(opened(tmp_path, [payload], 1, features=features))["id"].tolist() == [2**40 + 1]


def test_a_label_beyond_32_bits_is_out_of_range_rather_than_wrapped(tmp_path: Path) -> None:
    source = opened(tmp_path, [encode_example({"x": [0.0, 0.0], "label": 2**32 + 1})], 1)
    assert "label 'label' is 4294967297, which is not in 0..3" in str(fault(source))


def test_a_fraction_is_held_out_and_stays_when_shards_are_added(tmp_path: Path) -> None:
    options = {"held_out_pattern": None, "held_out_fraction": 0.25}
    before = set(read(opened(tmp_path, numbers(200), 2, **options))["x"][:, 0])
    held_out = open_records(data(tmp_path, **options), "held_out")
    held = set(read(held_out)["x"][:, 0])
    assert before | held == set(range(200))
    assert not before & held
    assert 30 < len(held) < 70
    write_shards(tmp_path, "train-more", [encode_example({"x": [-1.0, 0.0], "label": 0})] * 50)
    after = set(read(open_records(data(tmp_path, **options), "held_out"))["x"][:, 0])
    assert after - {-1.0} == held


def test_a_missing_pattern_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/train-\*: no file matches it: correct data\.pattern"):
        open_records(data(tmp_path), "train")


def test_shards_without_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the files hold no records"):
        opened(tmp_path, [])


BROKEN = {
    "not an example": (b"\xff\xff\xff", "it is not a serialised tf.train.Example"),
    "no feature": (encode_example({"label": 1}), "it has no feature 'x'; it has 'label'"),
    "type": (encode_example({"x": [1, 2], "label": 1}), "feature 'x' is int64_list, where 'float' needs float_list"),
    "length": (encode_example({"x": [1.0] * 3, "label": 1}), "feature 'x' holds 3 value(s), where the config declares"),
    "nan": (encode_example({"x": [0.0, float("nan")], "label": 1}), "feature 'x' holds NaN"),
    "range": (encode_example({"x": [0.0, 0.0], "label": 4}), "label 'label' is 4, which is not in 0..3"),
    "negative": (encode_example({"x": [0.0, 0.0], "label": -1}), "label 'label' is -1, which is not in 0..3"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_record_is_named(tmp_path: Path, kind: str) -> None:
    payload, rule = BROKEN[kind]
    source = opened(tmp_path, [*numbers(5), payload, *numbers(2)], 1)
    error = fault(source)
    assert rule in error.rule
    assert (error.file, error.record) == (f"{tmp_path}/train-00000-of-00001.tfrecord", "record 5")
    assert "data.skip_bad_records" in error.change


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_record_is_left_out_within_the_bound(tmp_path: Path, kind: str) -> None:
    source = opened(tmp_path, [*numbers(5), BROKEN[kind][0], *numbers(2)], 1, skip_bad_records=1)
    batch = read(source)
    assert batch["sample_weight"].tolist() == [1, 1, 1, 1, 1, 0, 1, 1]
    assert not batch["x"][5].any()
    assert batch["x"][6:, 0].tolist() == [0, 1]
    read(source)
    assert [(skipped.record, len(source.skipped)) for skipped in source.skipped.records()] == [("record 5", 1)]


def test_images_that_cannot_be_decoded(tmp_path: Path) -> None:
    images = [picture(1), b"", picture(2), b"text", picture(3)[:-20], picture(4)]
    payloads = [encode_example({"image/encoded": image, "label": 0}) for image in images]
    source = opened(tmp_path, payloads, 1, features=IMAGES, skip_bad_records=3)
    batch = read(source)
    assert batch["sample_weight"].tolist() == [1, 0, 1, 0, 0, 1]
    np.testing.assert_allclose(batch["image"][:, 1, 1, 0] * 255, [1, 0, 2, 0, 0, 4], atol=1e-4)
    rules = {skipped.record: skipped.rule for skipped in source.skipped.records()}
    assert rules.keys() == {"record 1", "record 3", "record 4"}
    assert rules["record 1"] == "feature 'image': the image is empty (0 bytes)"
    strict = open_records(data(tmp_path, features=IMAGES), "train")
    assert fault(strict, *range(6)).record == "record 1"


def test_without_skipping_a_bad_image_stops_a_pipeline_that_drops_the_weights(tmp_path: Path) -> None:
    payloads = [encode_example({"image/encoded": image, "label": 0}) for image in [picture(1)] * 3 + [b""]]
    source = opened(tmp_path, payloads, 1, features=IMAGES)
    batches = train_batches(source, SampleOrder(4, 2, remainder="drop"), first_step=0, num_steps=4)
    with pytest.raises(tf.errors.OpError):
        list(batches.map(lambda batch: batch["label"]))
    assert source.failure is not None and source.failure.record == "record 3"


def test_a_flipped_byte_in_a_payload_is_found(tmp_path: Path) -> None:
    source = opened(tmp_path, numbers(4), 1, skip_bad_records=1)
    (shard,) = tmp_path.glob("train-*")
    # Inside the first value of x: still a valid example, with another number in it.
    status = shard.stat()
    at = shard.read_bytes().index(np.asarray([3, -3], "<f4").tobytes())
    overwrite(shard, at, 1)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read(source)["sample_weight"].tolist() == [1, 1, 1, 0]
    (skipped,) = source.skipped.records()
    assert skipped.record == "record 3"
    assert "the checksum of its" in skipped.rule


def test_more_bad_records_than_allowed_are_an_error(tmp_path: Path) -> None:
    bad = [BROKEN[kind][0] for kind in ("nan", "range", "type")]
    source = opened(tmp_path, [*numbers(3), *bad], 1, skip_bad_records=2)
    error = fault(source, *range(6))
    assert error.record == "record 5"
    assert "feature 'x' is int64_list" in error.rule
    assert "data.skip_bad_records=2" in str(error)


def test_what_is_skipped_does_not_depend_on_the_threads(tmp_path: Path) -> None:
    payloads = numbers(64)
    for position in range(0, 64, 5):
        payloads[position] = BROKEN["nan"][0]
    lists = []
    for _ in range(3):
        source = opened(tmp_path, payloads, 4, skip_bad_records=13)
        weights = [batch["sample_weight"] for batch in evaluation_batches(source, 2).as_numpy_iterator()]
        assert np.concatenate(weights).sum() == 64 - 13
        lists.append(source.skipped.records())
    assert lists[0] == lists[1] == lists[2]
    assert len(lists[0]) == 13


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, "train", numbers(4))
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"record 3: the file ends in the middle of it.*skip_bad_records"):
        open_records(data(tmp_path), "train")
    source = open_records(data(tmp_path, skip_bad_records=1), "train")
    assert source.schema.num_samples == 3
    assert [skipped.record for skipped in source.skipped.records()] == ["record 3"]
    assert read(source)["x"][:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("change", "rule"), [("removed", "now cannot"), ("replaced", "changed after the run began")])
def test_a_shard_that_changes_during_the_run(tmp_path: Path, change: str, rule: str) -> None:
    source = opened(tmp_path, numbers(4), 1, skip_bad_records=4)
    read(source)
    (shard,) = tmp_path.glob("train-*")
    shard.unlink()
    if change == "replaced":
        write_shards(tmp_path, "train", numbers(5))
    error = fault(source)
    assert rule in error.rule
    assert error.file == str(shard)
