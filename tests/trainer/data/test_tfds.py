"""On data sets that TensorFlow Datasets itself writes here, since those of its catalogue need a network."""

import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.data_streams import TfdsData
from trainer.data.checks import DataError
from trainer.data.pipeline import evaluation_batches
from trainer.data.tfds import TfdsSource, open_tfds

COUNT = 9


def samples() -> list[tuple[int, dict[str, Any]]]:
    return [
        (
            number,
            {
                "image": np.full((6 + number, 8, 3), 10 * number, np.uint8),
                "label": number % 3,
                "nested": {"x": np.asarray([number, -number], np.float32)},
                "caption": f"number {number}",
            },
        )
        for number in range(COUNT)
    ]


def build(folder: Path, name: str, file_format: str, rows: list[tuple[int, dict[str, Any]]]) -> None:
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
            "nested": {"x": tfds.features.Tensor(shape=(2,), dtype=np.float32)},
            "caption": tfds.features.Text(),
        }
    )
    builder = tfds.dataset_builders.AdhocBuilder(
        name=name,
        version="1.0.0",
        features=features,
        split_datasets={"train": rows, "test": rows[:4]},
        data_dir=str(folder),
        file_format=file_format,
    )
    builder.download_and_prepare(file_format=file_format)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    build(folder, "tiny", "array_record", samples())
    build(folder, "sequential", "tfrecord", samples())
    broken = samples()
    broken[5][1]["nested"]["x"][0] = np.nan
    build(folder, "broken", "array_record", broken)
    return folder


def opened(folder: Path, part: Any = "train", **options: Any) -> TfdsSource:
    options = {"name": "tfds:tiny", "image_size": (4, 4), **options}
    return open_tfds(TfdsData(data_dir=str(folder), **options), part)


def read(source: TfdsSource, index: list[int]) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in source.read(tf.constant(index, tf.int64)).items()}


def test_schema(folder: Path) -> None:
    schema = opened(folder).schema
    assert {name: (feature.shape, feature.dtype) for name, feature in schema.features.items()} == {
        "image": ((4, 4, 3), "float32"),
        "label": ((), "int32"),
        "nested/x": ((2,), "float32"),
    }
    assert list(schema.features) == sorted(schema.features)
    assert (schema.target, schema.num_samples, schema.num_classes) == ("label", COUNT, 3)
    assert schema.class_names == ("ant", "bee", "cat")


def test_samples_are_read_at_any_index_with_all_their_features(folder: Path) -> None:
    batch = read(opened(folder), [7, 0, 3, 3, 8])
    number = batch["nested/x"][:, 0]
    # The package shuffles while it writes: the features of a sample must still be of one sample.
    np.testing.assert_array_equal(batch["nested/x"][:, 1], -number)
    np.testing.assert_array_equal(batch["label"], number % 3)
    np.testing.assert_allclose(batch["image"][:, 1, 2, 0], 10 * number / 255, atol=1e-6)
    assert number[2] == number[3]
    assert batch["image"].dtype == np.float32


def test_every_sample_is_there_once(folder: Path) -> None:
    batches = evaluation_batches(opened(folder), 4).as_numpy_iterator()
    seen = [value for batch in batches for value in batch["nested/x"][:, 0][batch["sample_weight"] > 0]]
    assert sorted(seen) == list(range(COUNT))


def test_splits(folder: Path) -> None:
    assert opened(folder, "held_out").schema.num_samples == 4
    assert opened(folder, "held_out", held_out_split="train[:2]").schema.num_samples == 2
    assert opened(folder, split="train[2:]").schema.num_samples == COUNT - 2
    assert opened(folder).locate(3) == "tfds:tiny[train], record 3"


def test_chosen_features_keep_the_target(folder: Path) -> None:
    assert set(opened(folder, features=("nested/x",)).schema.features) == {"nested/x", "label"}


def test_a_bad_record_is_named_or_left_out(folder: Path) -> None:
    source = opened(folder, name="tfds:broken")
    with pytest.raises(DataError, match=r"tfds:broken\[train\], record \d: feature 'nested/x' holds NaN"):
        read(source, list(range(COUNT)))
    lenient = opened(folder, name="tfds:broken", skip_bad_records=1)
    assert sum(read(lenient, list(range(COUNT)))["sample_weight"]) == COUNT - 1
    assert len(lenient.skipped) == 1


REFUSED = {
    "split": ({"split": "trein"}, r"it has no split 'trein': set data\.split to one of train, test"),
    "feature": ({"features": ("colour",)}, "it has no feature 'colour': use some of caption, image, label, nested/x"),
    "text": ({"features": ("caption",)}, r"feature 'caption' \(Text\) is no number of a fixed shape"),
    "sizes": ({"image_size": None}, r"the images of feature 'image' are of different sizes: set data\.image_size"),
    "format": ({"name": "tfds:sequential"}, "in which records cannot be read at random: prepare it again with"),
    "name": ({"name": "tfds:no_such_set"}, "TensorFlow Datasets has no data set of this name"),
    "download": ({"name": "tfds:cifar10", "download": False}, "it is not prepared in .*: set data.download=true"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_named(folder: Path, kind: str) -> None:
    options, message = REFUSED[kind]
    with pytest.raises(DataError, match=message):
        opened(folder, **options)


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError) as caught:
        open_tfds(TfdsData(name="tfds:mnist"), "train")
    assert str(caught.value) == (
        "tfds:mnist: the package 'tensorflow_datasets' is not installed: install phalanx[tfds]"
    )


def test_a_host_that_cannot_be_reached_is_named_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*host: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(ValueError) as caught:
        open_tfds(TfdsData(name="tfds:cifar10", data_dir=str(folder)), "train")
    assert "www.cs.toronto.edu, where it comes from, cannot be reached: connect the machine, or set" in str(
        caught.value
    )
