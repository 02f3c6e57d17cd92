import numpy as np
import pytest
import tensorflow as tf

from trainer.config.data import SyntheticData
from trainer.data import synthetic
from trainer.data.synthetic import open_synthetic


def read(data: SyntheticData, split="train", count: int = 500) -> dict[str, np.ndarray]:
    batch = open_synthetic(data, split).read(tf.range(count, dtype=tf.int64))
    return {name: values.numpy() for name, values in batch.items()}


def test_same_seed_same_samples_and_splits_differ():
    data = SyntheticData(shape=(3, 3, 1))
    assert np.array_equal(read(data)["image"], read(data)["image"])
    assert not np.array_equal(read(data)["image"], read(data, "held_out")["image"])
    assert not np.array_equal(read(data)["image"], read(SyntheticData(shape=(3, 3, 1), data_seed=1))["image"])
    assert open_synthetic(data, "held_out").schema.num_samples == 1000


def test_classes_can_be_told_apart_on_held_out_samples():
    data = SyntheticData(shape=(40,), num_classes=4)
    train, held_out = read(data), read(data, "held_out")
    centres = np.stack([train["features"][train["label"] == label].mean(axis=0) for label in range(4)])
    nearest = np.argmin(np.linalg.norm(held_out["features"][:, None] - centres, axis=2), axis=1)
    assert np.mean(nearest == held_out["label"]) > 0.95


def test_numbers_follow_the_inputs():
    batch = read(SyntheticData(kind="regression", shape=(5,)))
    inputs = np.column_stack([batch["features"], np.ones(500)])
    _, residual, *_ = np.linalg.lstsq(inputs, batch["label"], rcond=None)
    assert 1 - residual[0] / 500 / batch["label"].var() > 0.95


def test_tokens_mostly_follow_one_rule_on_both_splits():
    data = SyntheticData(kind="tokens", shape=(30,), num_classes=12)
    tokens = read(data)["tokens"]
    assert tokens.shape == (500, 31) and tokens.dtype == np.int32
    pairs = np.zeros((12, 12))
    np.add.at(pairs, (tokens[:, :-1].ravel(), tokens[:, 1:].ravel()), 1)
    follower = pairs.argmax(axis=1)
    assert len(set(follower)) == 12
    held_out = read(data, "held_out")["tokens"]
    assert np.mean(follower[held_out[:, :-1]] == held_out[:, 1:]) == pytest.approx(0.9 + 0.1 / 12, abs=0.02)
    with pytest.raises(ValueError, match="must be the context length alone"):
        SyntheticData(kind="tokens", shape=(3, 3))


def test_long_sources_repeat_a_pool(monkeypatch):
    monkeypatch.setattr(synthetic, "POOL_BYTES", 1)
    source = open_synthetic(SyntheticData(shape=(2,), num_samples=10**9), "train")
    assert source.schema.num_samples == 10**9
    batch = source.read(tf.constant([3, 3 + 64 * 10**6, 4], tf.int64))
    assert np.array_equal(batch["features"][0], batch["features"][1])
    assert not np.array_equal(batch["features"][0], batch["features"][2])
