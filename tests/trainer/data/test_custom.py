import numpy as np
import pytest
import tensorflow as tf

from trainer.config.data import CustomData
from trainer.data.checks import DataError
from trainer.data.custom import open_custom
from trainer.data.registry import open_source

MODULE = """
import numpy as np
from trainer.config.data import SyntheticData
from trainer.data.synthetic import open_synthetic

def arrays(split, count=10):
    return {"x": np.full((count, 2), split == "train", np.float32), "label": np.arange(count) % 2}

def source(split):
    return open_synthetic(SyntheticData(shape=(3,)), split)

def read(split, bad=()):
    def read_samples(index):
        if set(index) & set(bad):
            raise OSError("disk on fire")
        image = np.zeros((len(index), 2, 2), np.uint8)
        image[:, 0, 0] = index
        return {"image": image, "label": index % 3}
    return 255, read_samples

def short(split):
    return 10, lambda index: {"x": np.zeros((1, 2)), "label": np.zeros(1, int)}

def changing(split):
    return 10, lambda index: {"x": np.zeros((len(index), 2 if 0 in index else 3)), "label": np.zeros(len(index), int)}

def number(split):
    return 5

def endless(split):
    return -1, lambda index: {}

def without_split():
    return arrays("train")
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "own_samples.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def custom(function: str, **options) -> CustomData:
    return CustomData(name=f"own_samples:{function}", **options)


def test_arrays_by_split_with_options():
    data = custom("arrays", options={"count": 4})
    for split, value in (("train", 1), ("held_out", 0)):
        source = open_source(data, split)
        assert source.schema.num_samples == 4 and source.schema.num_classes == 2
        assert np.all(source.read(tf.constant([0], tf.int64))["x"] == value)
    assert open_source(data, "train").locate(3) == "own_samples:arrays, row 3"


def test_source_is_used_as_it_is():
    assert open_custom(custom("source"), "train").schema.num_samples == 10_000


def test_function_of_an_index():
    source = open_custom(custom("read", num_classes=3), "train")
    assert source.schema.num_samples == 255 and source.schema.features["image"].shape == (2, 2, 1)
    batch = tf.function(source.read, autograph=False)(tf.constant([7, 254], tf.int64))
    assert batch["image"][:, 0, 0, 0].numpy().tolist() == [np.float32(7 / 255), np.float32(254 / 255)]
    assert batch["label"].numpy().tolist() == [1, 2]
    with pytest.raises(DataError, match=r"the number of classes cannot be seen in one sample: set data.num_classes"):
        open_custom(custom("read"), "train")


def test_samples_that_fail_are_found_in_their_batch():
    data = custom("read", num_classes=3, options={"bad": [5, 9]}, skip_bad_records=2)
    source = open_custom(data, "train")
    batch = source.read(tf.constant([4, 5, 9, 10], tf.int64))
    assert batch["sample_weight"].numpy().tolist() == [1, 0, 0, 1]
    assert batch["label"].numpy().tolist() == [1, 0, 0, 1]
    assert [(record.file, record.record, record.rule) for record in source.skipped.records()] == [
        ("own_samples:read", f"sample {index}", "reading it fails with OSError (disk on fire)") for index in (5, 9)
    ]


def test_function_that_ignores_the_rest_of_a_batch_is_asked_one_by_one():
    # Three samples for three indices, or an error: never fewer.
    source = open_custom(custom("short", num_classes=2), "train")
    assert source.read(tf.constant([2, 3, 4], tf.int64))["label"].shape == (3,)


def test_function_whose_samples_change_shape_is_refused():
    source = open_custom(custom("changing", num_classes=2), "train")
    with pytest.raises(
        DataError, match=r"own_samples:changing, sample 2: array 'x' is float64 of shape \[3\] a sample"
    ):
        source.read(tf.constant([2], tf.int64))


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        ("number", "it returned int: return a Source, a dict of arrays, or"),
        ("endless", "it returned -1 as the number of samples"),
    ],
)
def test_other_results_are_refused(function, rule):
    with pytest.raises(DataError, match=rule):
        open_custom(custom(function, num_classes=2), "train")


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("own_samples:array", {}, "has no function array, it has arrays"),
        ("no_such_module:f", {}, "there is no module no_such_module"),
        ("own_samples:arrays", {"cout": 3}, "unexpected keyword argument 'cout'"),
        ("own_samples:without_split", {}, "it has no parameter split"),
    ],
)
def test_functions_that_cannot_be_called(name, options, rule):
    with pytest.raises(ValueError, match=rule):
        open_custom(CustomData(name=name, options=options), "train")
