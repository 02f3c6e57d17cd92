from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.preparation.raw_data import ANIMALS, prepare, table, write_images, write_lines, write_tables
from trainer.config.prepared import PreparedData
from trainer.data.checks import DataError
from trainer.data.registry import open_source
from trainer.preparation.preparation import Preparation, make_folder
from trainer.preparation.request import Request


def read_all(data: PreparedData, split: str = "train") -> tuple[dict[str, np.ndarray], object]:
    source = open_source(data, split)
    batch = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    return {name: value.numpy() for name, value in batch.items()}, source.schema


def prepared(tmp_path: Path, format: str, raw: object, name: str = "out", **options: object) -> str:
    prepare(Request(source=str(raw), format=format, num_shards=2, **options), tmp_path / name)
    return str(tmp_path / name)


def test_images_and_their_classes_in_both_splits(tmp_path: Path) -> None:
    folder = prepared(tmp_path, "images", write_images(tmp_path / "raw"), "o[u]t $1")
    data = PreparedData(path=folder.replace("$", "$$"), image_size=(4, 4), channels=1, held_out_fraction=0.3)
    found = []
    for split in ("train", "held_out"):
        batch, schema = read_all(data, split)
        assert schema.class_names == ANIMALS and schema.target == "label"
        greys = np.rint(batch["image"][:, 0, 0, 0] * 255).astype(int)
        np.testing.assert_array_equal(batch["label"], greys % 3)
        found += greys.tolist()
    assert sorted(found) == list(range(30))


def test_tables_know_their_categories_and_statistics(tmp_path: Path) -> None:
    folder = prepared(tmp_path, "csv", write_tables(tmp_path / "raw", "csv"), target="late")
    batch, schema = read_all(PreparedData(path=folder, held_out_path=folder))
    kind, size = schema.features["kind"], schema.features["size"]
    assert kind.vocabulary == ANIMALS and kind.num_values == 4
    sizes = [row["size"] for row in table(0, 60).to_pylist()]
    assert (size.mean, size.std) == pytest.approx((np.mean(sizes), np.std(sizes)))
    for row, place in zip(table(0, 60).to_pylist(), np.argsort(batch["size"]), strict=True):
        assert ANIMALS[batch["kind"][place] - 1] == row["kind"] and batch["size"][place] == row["size"]
        assert schema.class_names[batch["late"][place]] == row["late"]
    assert set(read_all(PreparedData(path=folder, features=("size",)))[0]) == {"size", "late"}


def test_lines_are_for_language_modelling(tmp_path: Path) -> None:
    folder = prepared(tmp_path, "lines", write_lines(tmp_path / "raw"), context=16)
    batch, schema = read_all(PreparedData(path=folder))
    assert schema.target is None and schema.num_classes == 256 and batch["tokens"].shape[1] == 17


def test_what_is_no_whole_prepared_folder(tmp_path: Path) -> None:
    raw = write_tables(tmp_path / "raw", "csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"it has no manifest.json: name a folder of phalanx data prepare in data.path"):
        open_source(PreparedData(path=str(tmp_path / "empty")), "train")
    make_folder(tmp_path / "begun")
    Preparation(Request(source=raw, format="csv", num_shards=2, target="late"), tmp_path / "begun")
    with pytest.raises(DataError, match="its preparation is not finished: give the command that began it again"):
        open_source(PreparedData(path=str(tmp_path / "begun")), "train")
    folder = prepared(tmp_path, "csv", raw, target="late")
    with pytest.raises(DataError, match="it has no feature 'weight'; it has 'size', 'kind', 'late'"):
        open_source(PreparedData(path=folder, features=("weight",)), "train")
    other = prepared(tmp_path, "csv", raw, "other", target="late", columns=("size",))
    with pytest.raises(DataError, match="its features, categories or classes are others than those of"):
        open_source(PreparedData(path=folder, held_out_path=other), "held_out")
    shard = next((tmp_path / "out").glob("*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"it is not there with the .* bytes that manifest.json says: copy the folder"):
        open_source(PreparedData(path=folder), "train")
