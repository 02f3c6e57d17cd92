import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config.data import DigitsData, MnistData, MnistSampleData
from trainer.data.checks import DataError
from trainer.data.packaged import open_digits, open_mnist, open_mnist_sample


def everything(source) -> dict[str, np.ndarray]:
    batch = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    return {name: values.numpy() for name, values in batch.items()}


def rows_of(source) -> set[str]:
    return {source.locate(index) for index in range(source.schema.num_samples)}


def test_mnist_sample_is_stratified_and_disjoint():
    train, test = (open_mnist_sample(MnistSampleData(), split) for split in ("train", "held_out"))
    assert (train.schema.num_samples, test.schema.num_samples) == (4000, 1000)
    values, held_out = everything(train), everything(test)
    assert np.bincount(values["label"]).tolist() == [400] * 10
    assert np.bincount(held_out["label"]).tolist() == [100] * 10
    assert values["image"].shape == (4000, 28, 28, 1) and values["image"].dtype == np.float32
    assert values["image"].min() == 0 and values["image"].max() == 1
    assert not rows_of(train) & rows_of(test)
    # Shuffled once, because the file is sorted by class: the first samples are like all others.
    assert len(np.unique(values["label"][:50])) == 10 and len(np.unique(held_out["label"][:50])) == 10
    assert train.schema.class_names == tuple("0123456789")


def test_digits_hold_out_one_in_five():
    train, test = (open_digits(DigitsData(), split) for split in ("train", "held_out"))
    assert train.schema.num_samples + test.schema.num_samples == 1797
    assert not rows_of(train) & rows_of(test)
    values = everything(train)
    assert values["image"].shape[1:] == (8, 8, 1) and values["image"].max() == 1
    assert np.all(np.bincount(everything(test)["label"]) >= 35)


def test_mnist_takes_both_splits_of_keras(monkeypatch):
    def load_data():
        return (np.full((6, 28, 28), 255, np.uint8), np.arange(6)), (np.zeros((4, 28, 28), np.uint8), np.arange(4))

    monkeypatch.setattr(keras.datasets.mnist, "load_data", load_data)
    train, test = (open_mnist(MnistData(), split) for split in ("train", "held_out"))
    assert (train.schema.num_samples, test.schema.num_samples) == (6, 4)
    assert everything(train)["image"].shape == (6, 28, 28, 1)
    assert everything(train)["image"].min() == 1 and everything(test)["image"].max() == 0


def test_mnist_without_a_network_says_what_to_do(monkeypatch):
    def load_data():
        raise Exception("URL fetch failure on mnist.npz: None -- Name or service not known")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", load_data)
    with pytest.raises(DataError, match=r"URL fetch failure .*: connect to a network, or set data.name=mnist_sample"):
        open_mnist(MnistData(), "train")
