from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.synthetic_records import write_synthetic_records
from trainer.config.data_streams import RecordFeature, TfrecordData
from trainer.data.tfrecord import open_records

FEATURES = {
    "image": RecordFeature(kind="image", key="image/encoded"),
    "label": RecordFeature(kind="integer", key="image/class/label", offset=-1),
}


def test_the_records_are_those_that_the_config_reads_and_can_be_told_apart(tmp_path: Path) -> None:
    write_synthetic_records(tmp_path, count=12, held_out=6, num_classes=3, num_shards=2)
    data = TfrecordData(
        pattern=f"{tmp_path}/train-*",
        held_out_pattern=f"{tmp_path}/validation-*",
        features=FEATURES,
        image_size=(32, 32),
        num_classes=3,
    )
    colours = {}
    for split, count in (("train", 12), ("held_out", 6)):
        source = open_records(data, split)
        batch = source.read(tf.range(count, dtype=tf.int64))
        labels = batch["label"].numpy()
        assert np.bincount(labels).tolist() == [count // 3] * 3
        colours[split] = np.stack([batch["image"].numpy()[labels == label].mean((0, 1, 2)) for label in range(3)])
    distance = np.linalg.norm(colours["train"][:, None] - colours["held_out"][None], axis=-1)
    assert (distance.argmin(1) == np.arange(3)).all()


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_synthetic_records(tmp_path / "a", 3, 1, num_shards=1)
    second = write_synthetic_records(tmp_path / "b", 3, 1, num_shards=1)
    other = write_synthetic_records(tmp_path / "c", 3, 1, num_shards=1, seed=1)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_bytes() != other[0].read_bytes()
