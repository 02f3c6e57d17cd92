from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.data import ArraysData
from trainer.data import arrays as arrays_module
from trainer.data.array_schema import describe_arrays
from trainer.data.arrays import MappedSource, open_arrays
from trainer.data.checks import DataError
from trainer.data.source import Feature


def write(path: Path, *, compressed: bool = False, **arrays: np.ndarray) -> str:
    (np.savez_compressed if compressed else np.savez)(path, allow_pickle=True, **arrays)
    return str(path)


def images(count: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "image": draw.integers(0, 256, (count, 4, 4), np.uint8),
        "id": np.arange(count, dtype=np.float32),
        "label": np.arange(count) % 3,
    }


def ids(source) -> list[int]:
    index = tf.range(source.schema.num_samples, dtype=tf.int64)
    return source.read(index)["id"].numpy().astype(int).tolist()


def test_fraction_is_held_out_disjoint_and_complete(tmp_path):
    data = ArraysData(path=write(tmp_path / "a.npz", **images(100)), held_out_fraction=0.2)
    train, held_out = open_arrays(data, "train"), open_arrays(data, "held_out")
    assert sorted(ids(train) + ids(held_out)) == list(range(100))
    assert 8 < held_out.schema.num_samples < 32
    assert ids(open_arrays(data, "train")) == ids(train)
    assert train.schema.features["image"] == Feature((4, 4, 1), "float32")
    assert train.schema.num_classes == held_out.schema.num_classes == 3
    row = ids(held_out)[0]
    assert held_out.locate(0) == f"{data.path}, row {row}"


def test_second_file_is_held_out_with_the_rules_of_the_first(tmp_path):
    first = write(tmp_path / "a.npz", **images(9))
    good = ArraysData(path=first, held_out_path=write(tmp_path / "b.npz", **images(6)))
    assert open_arrays(good, "train").schema.num_samples == 9
    assert open_arrays(good, "held_out").schema.num_samples == 6
    unknown = {**images(6), "label": np.array([0, 1, 2, 0, 3, 1])}
    bad = ArraysData(path=first, held_out_path=write(tmp_path / "c.npz", **unknown))
    with pytest.raises(DataError, match=r"c\.npz, row 4: label 'label' is 3, which is not in 0\.\.2"):
        open_arrays(bad, "held_out")
    other = {**images(6), "image": np.zeros((6, 5, 5), np.uint8)}
    with pytest.raises(DataError, match=r"'image' is uint8 of shape \[5, 5, 1\] .* float32 of shape \[4, 4, 1\]"):
        open_arrays(ArraysData(path=first, held_out_path=write(tmp_path / "d.npz", **other)), "held_out")
    with pytest.raises(DataError, match="there is no array 'image', which the training data have"):
        only = {"id": np.zeros(3, np.float32), "label": np.zeros(3, int)}
        open_arrays(ArraysData(path=first, held_out_path=write(tmp_path / "e.npz", **only)), "held_out")


@pytest.mark.parametrize("compressed", [False, True])
def test_mapped_file_reads_the_same(tmp_path, monkeypatch, compressed):
    data = ArraysData(path=write(tmp_path / "a.npz", compressed=compressed, **images(20)))
    loaded = open_arrays(data, "train")
    monkeypatch.setattr(arrays_module, "LARGEST_LOADED", 10)
    mapped = open_arrays(data, "train")
    assert isinstance(mapped, MappedSource) is not compressed
    assert mapped.schema == loaded.schema
    index = tf.constant([5, 0, 11], tf.int64)
    ours, theirs = mapped.read(index), loaded.read(index)
    for name in theirs:
        assert ours[name].dtype == theirs[name].dtype
        assert np.array_equal(ours[name], theirs[name])
    assert mapped.locate(5) == loaded.locate(5)


def test_mapped_file_is_checked_when_read(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays_module, "LARGEST_LOADED", 10)
    values = images(20)
    values["id"][:] = np.nan
    path = write(tmp_path / "a.npz", **values)
    source = open_arrays(ArraysData(path=path), "train")
    read = tf.function(source.read, autograph=False)
    with pytest.raises(tf.errors.OpError):
        read(tf.constant([0], tf.int64))
    assert source.failure is not None and source.failure.rule == "feature 'id' holds NaN"
    skipping = open_arrays(ArraysData(path=path, skip_bad_records=2), "train")
    assert skipping.read(tf.constant([0, 1], tf.int64))["sample_weight"].numpy().tolist() == [0, 0]
    assert len(skipping.skipped) == 2


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz: it does not exist: correct data.path"):
        open_arrays(ArraysData(path=str(tmp_path / "none.npz")), "train")
    text = tmp_path / "text.npz"
    text.write_text("not a zip")
    with pytest.raises(DataError, match=r"text\.npz: it cannot be read as \.npz"):
        open_arrays(ArraysData(path=str(text)), "train")
    flipped = Path(write(tmp_path / "flipped.npz", **images(50)))
    content = bytearray(flipped.read_bytes())
    content[500] ^= 1
    flipped.write_bytes(content)
    with pytest.raises(DataError, match=r"flipped\.npz, array image: it cannot be read \(Bad CRC"):
        open_arrays(ArraysData(path=str(flipped)), "train")
    objects = write(tmp_path / "objects.npz", label=np.array([{}, {}]), x=np.zeros(2))
    with pytest.raises(DataError, match="array label: it cannot be read"):
        open_arrays(ArraysData(path=objects), "train")


@pytest.mark.parametrize(
    ("arrays", "target", "rule"),
    [
        ({"x": np.zeros((3, 2))}, "label", "no array 'label', it has x: set data.target"),
        ({"label": np.zeros(3, int)}, "label", "nothing in it but the target"),
        ({"x": np.array(["a", "b"]), "label": np.zeros(2, int)}, "label", "'x' is of type <U1, neither"),
        ({"x": np.array([2**40]), "label": np.zeros(1, int)}, "label", "'x' holds 1099511627776, more than 32 bits"),
        ({"x": np.zeros((3, 2))}, None, "without a target the data must be one array of tokens"),
    ],
)
def test_arrays_that_mean_nothing_are_refused(arrays, target, rule):
    with pytest.raises(DataError, match=rule):
        describe_arrays(arrays, "x.npz", target)


def test_schemas_of_each_kind_of_target():
    x = np.zeros((4, 3))
    regression = describe_arrays({"x": x, "y": np.array([4.0, 6.0, 4.0, 6.0])}, "f", "y")
    assert regression.num_classes is None and regression.features["y"] == Feature((), "float32", mean=5.0, std=1.0)
    labels = describe_arrays({"x": x, "y": np.zeros((4, 5), np.int64)}, "f", "y")
    assert labels.num_classes == 5 and labels.features["y"] == Feature((5,), "float32")
    given = describe_arrays({"x": x, "y": np.array([0, 1, 0, 1])}, "f", "y", num_classes=7)
    assert given.num_classes == 7 and given.features["y"] == Feature((), "int32")
    tokens = describe_arrays({"tokens": np.array([[1, 5, 2]])}, "f", None)
    assert tokens.num_classes == 6 and tokens.features["tokens"] == Feature((3,), "int32", num_values=6)
