from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.memory import MemorySource, numbered
from trainer.data.order import SampleOrder
from trainer.data.pipeline import BatchPipeline, evaluation_batches, train_batches, train_blocks
from trainer.data.shard import WHOLE, Shard
from trainer.data.source import Feature, Schema

AUGMENT = ("flip", "shift=1", "crop", "noise=0.1")


def numbered_images(num_samples: int, *, streaming: bool = False) -> MemorySource:
    """Images of noise whose label is their own index."""
    schema = Schema(
        {"image": Feature((6, 6, 1), "float32"), "label": Feature((), "int32")}, "label", num_samples, num_samples
    )
    images = np.random.default_rng(0).random((num_samples, 6, 6, 1), np.float32)
    source = MemorySource(schema, {"image": images, "label": np.arange(num_samples)}, numbered("numbers"))
    if streaming:
        source.in_memory = False
    return source


def elements(dataset: Iterable[dict[str, tf.Tensor]]) -> list[dict[str, np.ndarray]]:
    return [{name: value.numpy() for name, value in batch.items()} for batch in dataset]


def assert_equal(ours: list[dict], theirs: list[dict]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert np.array_equal(one[name], other[name]), name


@settings(max_examples=10, deadline=None)
@given(
    num_samples=st.integers(1, 60),
    batch_size=st.integers(1, 40),
    remainder=st.sampled_from(["pad", "keep", "drop"]),
    streaming=st.booleans(),
    cuts=st.lists(st.integers(0, 100), max_size=3),
    readers=st.integers(1, 4),
)
def test_every_sample_once_an_epoch_over_kills_and_readers(
    num_samples, batch_size, remainder, streaming, cuts, readers
):
    """Two epochs, stopped and opened again at `cuts`, each time with another number of readers."""
    batch_size *= 12 if remainder != "drop" else 1
    source = numbered_images(num_samples if remainder != "drop" else num_samples + batch_size, streaming=streaming)
    order = SampleOrder(source.schema.num_samples, batch_size, seed=9, remainder=remainder)
    total = 2 * order.steps_per_epoch
    stops = sorted({0, total, *(cut % (total + 1) for cut in cuts)})
    seen: Counter[int] = Counter()
    for part, (first, stop) in enumerate(pairwise(stops)):
        parts = 1 + (readers + part) % 4 if batch_size % 12 == 0 else 1
        for i in range(parts):
            batches = train_batches(
                source, order, first_step=first, num_steps=stop - first, shard=Shard(i, i + 1, parts)
            )
            for batch in elements(batches):
                weight = batch.get("sample_weight", np.ones(len(batch["label"])))
                seen.update(batch["label"][weight > 0].tolist())
    if remainder == "drop":
        # What is left out differs by epoch: no sample more than twice, and as many in all as full batches hold.
        assert sum(seen.values()) == total * batch_size and max(seen.values()) <= 2
    else:
        assert seen == Counter(dict.fromkeys(range(num_samples), 2))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("remainder", ["pad", "keep"])
def test_resume_is_the_tail_to_the_bit(streaming, remainder):
    source = numbered_images(50, streaming=streaming)
    order = SampleOrder(50, 8, seed=1, remainder=remainder)
    whole = elements(train_batches(source, order, first_step=0, num_steps=20, augment=AUGMENT, seed=3))
    for step in (1, 7):
        tail = train_batches(source, order, first_step=step, num_steps=20 - step, augment=AUGMENT, seed=3)
        assert_equal(elements(tail), whole[step:])


@pytest.mark.parametrize("parts", [2, 8])
@pytest.mark.parametrize("remainder", ["pad", "keep"])
def test_shards_make_the_same_global_batch(parts, remainder):
    source, order = numbered_images(50), SampleOrder(50, 16, seed=1, remainder=remainder)

    def read(shard: Shard) -> list[dict]:
        return elements(train_batches(source, order, first_step=2, num_steps=5, augment=AUGMENT, seed=3, shard=shard))

    together = [
        {name: np.concatenate([part[name] for part in slices]) for name in slices[0]}
        for slices in zip(*(read(Shard(i, i + 1, parts)) for i in range(parts)), strict=True)
    ]
    assert_equal(together, read(WHOLE))


@pytest.mark.parametrize("augment", [(), AUGMENT])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_pipeline_that_is_opened_again_reads_the_same_and_traces_nothing(augment, streaming, monkeypatch):
    source, order = numbered_images(50, streaming=streaming), SampleOrder(50, 12, seed=1)
    traces, read = [], source.read
    monkeypatch.setattr(source, "read", lambda index: traces.append(index) or read(index))
    pipeline = BatchPipeline(source, order, augment=augment, seed=3)
    opened = [(first, Shard(begin, begin + size, 6)) for size in (2, 3) for begin in (0, 3) for first in (0, 14)]
    blocks = [elements(pipeline.blocks(first, 8, 4, shard)) for first, shard in opened]
    assert len(traces) == 2  # for each number of rows
    for (first, shard), ours in zip(opened, blocks, strict=True):
        common = {"num_steps": 8, "block_steps": 4, "augment": augment, "seed": 3}
        assert_equal(ours, elements(train_blocks(source, order, first_step=first, shard=shard, **common)))


def test_memory_and_streaming_paths_agree():
    order = SampleOrder(50, 8, seed=4)
    ours = train_batches(numbered_images(50), order, first_step=3, num_steps=70, augment=AUGMENT)
    theirs = train_batches(numbered_images(50, streaming=True), order, first_step=3, num_steps=70, augment=AUGMENT)
    assert_equal(elements(ours), elements(theirs))
    assert ours.cardinality() == theirs.cardinality() == 70
    assert ours.element_spec == theirs.element_spec


class CountingSource(MemorySource):
    """Counts how many samples are asked for."""

    in_memory = False
    asked = 0

    def read(self, index):
        def count(index):
            type(self).asked += len(index)
            return index

        return super().read(tf.ensure_shape(tf.numpy_function(count, [index], tf.int64), index.shape))


@pytest.mark.parametrize("first_step", [10, 10_000_000, 10**12])
def test_opening_late_reads_nothing_more(first_step, monkeypatch):
    schema = Schema({"label": Feature((), "int32")}, "label", 5000, 5000)
    source = CountingSource(schema, {"label": np.arange(5000)}, numbered("numbers"))
    monkeypatch.setattr(CountingSource, "asked", 0)
    order = SampleOrder(5000, 32, seed=1)
    batches = elements(train_batches(source, order, first_step=first_step, num_steps=3))
    assert CountingSource.asked == 3 * 32
    assert np.array_equal(batches[1]["label"], order.sample_ids(first_step + 1))


def test_weights_only_where_needed():
    def spec(batch_size: int, remainder) -> Any:
        order = SampleOrder(50, batch_size, remainder=remainder)
        return train_batches(numbered_images(50), order, first_step=0, num_steps=2).element_spec

    assert "sample_weight" in spec(8, "pad")
    assert "sample_weight" not in spec(10, "pad") and "sample_weight" not in spec(8, "drop")
    assert spec(8, "pad")["image"].shape == (8, 6, 6, 1)
    assert spec(10, "keep")["label"].shape == (10,)
    assert spec(8, "keep")["label"].shape == (None,)


@pytest.mark.parametrize(("num_samples", "batch_size"), [(7, 3), (6, 3), (2, 5), (1, 1)])
def test_evaluation_is_exact(num_samples, batch_size):
    batches = elements(evaluation_batches(numbered_images(num_samples), batch_size))
    labels = np.concatenate([batch["label"] for batch in batches])
    weights = np.concatenate([batch["sample_weight"] for batch in batches])
    assert labels[weights > 0].tolist() == list(range(num_samples))
    assert weights.sum() == num_samples
    assert {len(batch["label"]) for batch in batches} == {batch_size}


def test_shards_of_an_evaluation_are_slices_of_its_batches():
    whole = elements(evaluation_batches(numbered_images(7), 4))
    parts = [elements(evaluation_batches(numbered_images(7), 4, Shard(i, i + 1, 2))) for i in range(2)]
    together = [{n: np.concatenate([one[n], two[n]]) for n in one} for one, two in zip(*parts, strict=True)]
    assert_equal(together, whole)


def test_parts_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ValueError, match=r"data.batch_size=10 must be a multiple of the 4 parts .* to 12"):
        train_batches(numbered_images(50), SampleOrder(50, 10), first_step=0, num_steps=1, shard=Shard(0, 1, 4))
