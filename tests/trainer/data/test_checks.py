import pickle

import numpy as np
import pytest

from trainer.data.checks import DataError, bad_rows, check_shapes
from trainer.data.source import Feature, Schema

SCHEMA = Schema(
    {
        "image": Feature((2, 2), "float32"),
        "carrier": Feature((), "int32", num_values=3),
        "label": Feature((), "int32"),
    },
    "label",
    4,
    num_classes=10,
)


def arrays(rows: int = 4) -> dict[str, np.ndarray]:
    return {
        "image": np.zeros((rows, 2, 2), np.float32),
        "carrier": np.zeros(rows, np.int32),
        "label": np.zeros(rows, np.int32),
    }


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("image", np.nan, "feature 'image' holds NaN"),
        ("image", -np.inf, "feature 'image' holds an infinite value"),
        ("carrier", 3, "feature 'carrier' is 3, which is not in 0..2"),
        ("carrier", -1, "feature 'carrier' is -1, which is not in 0..2"),
        ("label", 10, "label 'label' is 10, which is not in 0..9"),
    ],
)
def test_each_rule_is_named_with_its_row(name, value, rule):
    values = arrays()
    values[name][(2, 1, 0) if name == "image" else 2] = value
    assert bad_rows(SCHEMA, values) == {2: rule}


def test_good_rows_and_no_rows_break_nothing():
    assert bad_rows(SCHEMA, arrays()) == {}
    assert bad_rows(SCHEMA, arrays(0)) == {}


def test_regression_label_must_be_finite():
    schema = Schema({"label": Feature((), "float32")}, "label", 2)
    assert bad_rows(schema, {"label": np.array([1.0, np.nan])}) == {1: "label 'label' holds NaN"}


def test_error_is_one_sentence_with_file_record_rule_and_change():
    error = DataError("train.npz", "row 17", "label 'label' is 12, which is not in 0..9")
    assert str(error) == (
        "train.npz, row 17: label 'label' is 12, which is not in 0..9: "
        "correct it, or leave such records out with data.skip_bad_records"
    )
    again = pickle.loads(pickle.dumps(error))
    assert (again.file, again.record, again.rule, str(again)) == ("train.npz", "row 17", error.rule, str(error))


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({}, "no arrays"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, r"differ in length \(a 3, b 4\)"),
        ({"a": np.zeros((0, 5))}, "holds no samples"),
        ({"a": np.float32(1)}, "holds no samples"),
    ],
)
def test_lengths_are_checked(values, rule):
    with pytest.raises(DataError, match=rule):
        check_shapes("x.npz", {name: np.asarray(array) for name, array in values.items()})
