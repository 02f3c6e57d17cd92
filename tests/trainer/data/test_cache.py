import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.cache import CachedSource
from trainer.data.checks import DataError
from trainer.data.order import SampleOrder
from trainer.data.pipeline import train_batches
from trainer.data.source import Feature, Schema
from trainer.data.streaming import Sample, Stored, StreamingSource

SAMPLE_BYTES = 8 * 4 + 4


class CountedReads(StreamingSource):
    """Numbered samples, some of which are bad, that count how often each is read."""

    def __init__(self, num_samples: int = 40, bad: tuple[int, ...] = (), skip: int = 0):
        features = {"x": Feature((8,), "float32"), "label": Feature((), "int32")}
        super().__init__(Schema(features, "label", num_samples, num_samples), skip, Stored({}))
        self.reads = np.zeros(num_samples, int)
        self.bad = bad

    def load(self, index: np.ndarray) -> list[Sample | DataError]:
        np.add.at(self.reads, index, 1)
        return [
            self.error(int(i), "holds NaN")
            if i in self.bad
            else {"x": np.full(8, i, np.float32), "label": np.array(i, np.int32)}
            for i in index
        ]

    def place(self, index: int) -> tuple[str, str]:
        return "numbers", f"record {index}"


def labels(source, *, steps: int, batch_size: int = 8) -> list[list[int]]:
    order = SampleOrder(source.schema.num_samples, batch_size, seed=1)
    batches = list(train_batches(source, order, first_step=0, num_steps=steps))
    for batch in batches:
        weight = batch.get("sample_weight", tf.ones(batch_size))
        assert np.array_equal(batch["x"], tf.repeat(tf.cast(batch["label"], tf.float32)[:, None], 8, axis=1))
        assert batch["x"].shape == (batch_size, 8) and weight.shape == (batch_size,)
    return [batch["label"].numpy().tolist() for batch in batches]


@pytest.mark.parametrize("on_disk", [False, True])
def test_each_sample_is_read_once_and_batches_stay_the_same(on_disk):
    inner = CountedReads()
    source = CachedSource(inner, 10**6, on_disk=on_disk)
    assert labels(source, steps=15) == labels(CountedReads(), steps=15)
    # A record may be read by two reads at once, but never again in a later epoch.
    assert inner.reads.max() <= 2 and inner.reads.min() == 1
    before = inner.reads.sum()
    labels(source, steps=5)
    assert inner.reads.sum() == before


def test_bound_keeps_a_part_and_reads_only_the_rest_again():
    inner = CountedReads()
    source = CachedSource(inner, 10 * SAMPLE_BYTES + 5)
    assert source.capacity == 10
    labels(source, steps=5)
    once = inner.reads.copy()
    assert labels(source, steps=10) == labels(CountedReads(), steps=10)
    assert np.array_equal(inner.reads[:10], once[:10])
    assert np.array_equal(inner.reads[10:], once[10:] + 2)


def test_bound_below_one_sample_keeps_nothing():
    source = CachedSource(CountedReads(), SAMPLE_BYTES - 1)
    assert source.capacity == 0
    assert labels(source, steps=5) == labels(CountedReads(), steps=5)


def test_skipped_records_stay_skipped():
    source = CachedSource(CountedReads(8, bad=(3,), skip=1), 10**6)
    for _ in range(2):
        batch = source.read(tf.range(8, dtype=tf.int64))
        assert batch["sample_weight"].numpy().tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
    assert source.may_skip and len(source.skipped) == 1 and source.locate(3) == "numbers, record 3"


def test_failures_pass_through():
    source = CachedSource(CountedReads(8, bad=(3,)), 10**6)
    with pytest.raises(tf.errors.OpError):
        tf.function(source.read, autograph=False)(tf.constant([3], tf.int64))
    assert source.failure is not None and source.failure.record == "record 3"
    assert source.read(tf.constant([2], tf.int64))["label"].numpy().tolist() == [2]


def test_parallel_reads_of_the_same_samples_agree():
    source = CachedSource(CountedReads(200), 10**6)
    read = tf.function(source.read, autograph=False, input_signature=[tf.TensorSpec([16], tf.int64)])
    draws = [np.random.default_rng(i).integers(0, 200, 16) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda index: read(tf.constant(index)), draws))
    for index, batch in zip(draws, batches, strict=True):
        assert np.array_equal(batch["label"], index) and np.array_equal(batch["x"][:, 3], index)


def test_file_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = CachedSource(CountedReads(), 10**6, on_disk=True)
    labels(source, steps=5)
    assert list(tmp_path.iterdir()) == []
    assert any(f"{tmp_path}/" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_disk_without_room_is_a_clear_error(small_disk, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(small_disk.folder))
    small_disk.fill()
    try:
        with pytest.raises(ValueError, match=r"data.cache=disk needs 3600000 bytes in .* lower data.cache_limit"):
            CachedSource(CountedReads(100_000), 10**9, on_disk=True)
    finally:
        small_disk.free()
    assert os.listdir(small_disk.folder) == []


def test_text_cannot_be_cached():
    source = CountedReads()
    source.schema = Schema({"text": Feature((), "string")}, None, 3)
    with pytest.raises(ValueError, match=r"these hold text: set data.cache=none"):
        CachedSource(source, 100)
