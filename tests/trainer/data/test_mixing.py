import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import small_config, small_session
from trainer.config.task import ClassificationTask
from trainer.data.counter_random import sample_keys
from trainer.data.memory import MemorySource
from trainer.data.mixing import MIXED_SHARE, MIXED_TARGET, beta_quantile, build_mixing
from trainer.data.order import SampleOrder
from trainer.data.pipeline import train_batches
from trainer.data.shard import WHOLE, Shard
from trainer.data.source import Feature, Schema
from trainer.tasks.classification import Classification

COUNT, SIDE = 60, 8
SCHEMA = Schema(
    {"image": Feature((SIDE, SIDE, 1), "float32"), "label": Feature((), "int32")}, "label", COUNT, num_classes=COUNT
)
KEYS = sample_keys(1, tf.fill([COUNT], tf.constant(5, tf.int64)), tf.range(COUNT, dtype=tf.int64))
# Each image is its own class, and its pixels say so.
BATCH = {
    "image": tf.tile(tf.range(COUNT, dtype=tf.float32)[:, None, None, None] / COUNT, [1, SIDE, SIDE, 1]),
    "label": tf.range(COUNT),
}


def mixed(*augmentations: str, weights=None) -> dict[str, np.ndarray]:
    mix = build_mixing(augmentations, SCHEMA, COUNT)
    assert mix is not None
    batch = mix(BATCH, KEYS, tf.ones(COUNT) if weights is None else tf.constant(weights, tf.float32))
    return {name: value.numpy() for name, value in batch.items()}


def source() -> MemorySource:
    arrays = {"image": BATCH["image"].numpy(), "label": BATCH["label"].numpy()}
    return MemorySource(SCHEMA, arrays, lambda index: ("test", f"row {index}"))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_quantiles_are_those_of_the_beta_distribution(alpha):
    rng = np.random.default_rng(0)
    drawn = beta_quantile((np.arange(4096) + 0.5) / 4096, alpha)
    sample = rng.beta(alpha, alpha, 400_000)
    assert drawn.mean() == pytest.approx(0.5, abs=1e-6)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=2e-3)  # of Beta(a, a)
    assert np.quantile(drawn, [0.1, 0.3, 0.9]) == pytest.approx(np.quantile(sample, [0.1, 0.3, 0.9]), abs=5e-3)


@pytest.mark.parametrize("augmentations", [("mixup=1",), ("cutmix=1",), ("flip", "mixup=1", "cutmix=1")])
def test_image_and_classes_have_the_same_shares_of_both_neighbours(augmentations):
    batch = mixed(*augmentations)
    assert batch["label"].tolist() == list(range(COUNT))
    assert batch[MIXED_TARGET].tolist() == [i ^ 1 for i in range(COUNT)]
    share = batch[MIXED_SHARE]
    assert share.min() >= 0 and share.max() <= 1 and len(set(share.tolist())) > 10
    expected = (share * batch["label"] + (1 - share) * batch[MIXED_TARGET]) / COUNT
    np.testing.assert_allclose(batch["image"].mean(axis=(1, 2, 3)), expected, rtol=1e-4, atol=1e-6)


def test_mixup_blends_and_cutmix_cuts_and_together_each_sample_undergoes_one():
    def is_cut(image: np.ndarray) -> bool:
        return len(np.unique(image)) > 1

    assert not any(is_cut(image) for image in mixed("mixup=1")["image"])
    assert sum(is_cut(image) for image in mixed("cutmix=1")["image"]) > COUNT * 3 // 4
    assert COUNT // 5 < sum(is_cut(image) for image in mixed("mixup=1", "cutmix=1")["image"]) < COUNT * 4 // 5


def test_padding_is_nobodys_partner():
    weights = np.ones(COUNT)
    weights[[7, 20]] = 0
    batch, plain = mixed("mixup=1", weights=weights), mixed("mixup=1")
    assert batch[MIXED_SHARE][[6, 21]].tolist() == [1, 1]
    assert np.array_equal(batch["image"][[6, 21]], BATCH["image"].numpy()[[6, 21]])
    assert np.array_equal(batch["image"][30:], plain["image"][30:])


@pytest.mark.parametrize("batch_size", [12, 8])
def test_batches_are_the_same_for_any_number_of_readers_and_from_any_step(batch_size):
    def read(shard: Shard, first_step: int) -> list[dict]:
        order = SampleOrder(COUNT, batch_size, seed=3)
        batches = train_batches(
            source(),
            order,
            first_step=first_step,
            num_steps=12 - first_step,
            augment=["flip", "mixup=1", "cutmix=1"],
            seed=9,
            shard=shard,
        )
        return [{name: value.numpy() for name, value in batch.items()} for batch in batches]

    whole = read(WHOLE, 0)
    for count in (2, batch_size // 2):
        for step, batches in enumerate(zip(*(read(Shard(i, i + 1, count), 0) for i in range(count)), strict=True)):
            for name, value in whole[step].items():
                assert np.array_equal(np.concatenate([batch[name] for batch in batches]), value), name
    for one, other in zip(read(WHOLE, 5), whole[5:], strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in other)


def test_the_last_small_batch_may_be_odd():
    order = SampleOrder(COUNT - 3, 10, remainder="keep")
    small = Schema(SCHEMA.features, "label", COUNT - 3, COUNT)
    arrays = {"image": BATCH["image"].numpy()[:-3], "label": BATCH["label"].numpy()[:-3]}
    data = MemorySource(small, arrays, lambda index: ("test", f"row {index}"))
    *_, last = train_batches(data, order, first_step=0, num_steps=6, augment=["mixup=1"])
    assert last["label"].shape == (7,) and last["label"][6] == last[MIXED_TARGET][6]


def test_the_task_takes_both_classes_by_their_shares():
    task = Classification(ClassificationTask(label_smoothing=0.1, top_k=2), SCHEMA)
    logits = tf.constant(np.random.default_rng(0).normal(size=(COUNT, COUNT)), tf.float32)
    share = tf.constant(np.linspace(0, 1, COUNT), tf.float32)
    first, second = {"label": BATCH["label"]}, {"label": tf.bitwise.bitwise_xor(BATCH["label"], 1)}
    both = {**first, MIXED_TARGET: second["label"], MIXED_SHARE: share}
    loss, (one, other) = task.loss(logits, both)[0], (task.loss(logits, batch)[0] for batch in (first, second))
    np.testing.assert_allclose(loss, share * one + (1 - share) * other, rtol=1e-5)
    sums = task.metric_sums(logits, both)
    counts = sums["classes"].numpy().reshape(3, COUNT)
    assert counts[2].sum() == pytest.approx(COUNT, rel=1e-5)
    right = tf.argmax(logits, -1, output_type=tf.int32)
    hits = [tf.cast(right == batch["label"], tf.float32) for batch in (first, second)]
    assert counts[0].sum() == pytest.approx(float(tf.reduce_sum(share * hits[0] + (1 - share) * hits[1])), rel=1e-5)
    assert 0 < float(sums["top_k"][0]) < COUNT


def test_a_session_trains_on_mixed_samples():
    session = small_session(
        model={"name": "cnn", "filters": [4], "dense": 8},
        data={"shape": [8, 8, 1], "augment": ["flip", "mixup", "cutmix"]},
    )
    batch = next(iter(session.batches(0, 1)))
    assert {"image", "label", MIXED_TARGET, MIXED_SHARE} == batch.keys()
    assert batch[MIXED_TARGET].dtype == tf.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"augment": ["mixup", "flip"]}}, r"changes samples after they are mixed: write mixup at the end"),
        ({"data": {"augment": ["mixup"], "batch_size": 15}}, r"a part has 15 samples: .* a multiple of 2 "),
        (
            {"data": {"augment": ["cutmix"], "batch_size": 12}, "train": {"virtual_workers": 4}},
            r"each of the 4 parts of a batch, and a part has 3 samples: set data.batch_size to a multiple of 8",
        ),
        (
            {"data": {"augment": ["mixup", "cutmix"]}, "task": {"focal_gamma": 2}},
            r"does not go with task\.focal_gamma=2, .*: leave out mixup and cutmix, or task\.focal_gamma",
        ),
        (
            {"data": {"augment": ["cutmix"]}, "task": {"class_weights": {"3": 2.0}}},
            r"does not go with task\.class_weights=\{'3': 2\.0\}, .*: leave out cutmix, or task\.class_weights",
        ),
        (
            {"data": {"augment": ["mixup"], "kind": "regression"}, "task": {"name": "regression"}},
            r"must have task.name=classification, not regression: leave out mixup",
        ),
        ({"data": {"augment": ["mixup", "mixup=1"]}}, r"has mixup twice"),
    ],
)
def test_configs_that_cannot_be_mixed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        small_config(**change)


def test_samples_that_cannot_be_mixed_are_refused():
    columns = Schema({"x": Feature((3,), "float32"), "label": Feature((), "int32")}, "label", 10, 2)
    with pytest.raises(ValueError, match=r"the samples hold x, label: leave out mixup"):
        build_mixing(["mixup"], columns, 8)
    with pytest.raises(ValueError, match=r"a part has 5 samples"):
        build_mixing(["mixup"], SCHEMA, 5)
    assert build_mixing(["flip"], SCHEMA, 5) is None
