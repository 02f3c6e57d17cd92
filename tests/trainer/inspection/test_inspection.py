from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.inspection.people import ROWS, rows_of_people
from trainer.data.custom import CallableSource
from trainer.data.source import Feature, Schema
from trainer.inspection.inspection import inspect_source, read_inspection
from trainer.inspection.reading import MOST_NUMBERS, chosen_positions


def test_a_table(open_csv):
    rows = rows_of_people()
    found = inspect_source(open_csv([*rows, rows[3], "red,-inf,170,dog", ",30,170.5,cat", "red,,171,dog"]), "csv")
    assert (found.total, found.read, found.left_out, found.is_complete) == (ROWS + 4, ROWS + 2, 2, True)
    colour, age, kind = found.features["colour"], found.features["age"], found.features["kind"]
    assert (colour.kind, colour.distinct, colour.missing) == ("category", 2, pytest.approx(1 / (ROWS + 2)))
    assert colour.frequent == [("green", 31), ("red", 30), ("(missing or unknown)", 1)]
    ages = [20 + i % 50 for i in range(ROWS)] + [23, 30]
    assert (age.min, age.max) == (20, 69)
    assert age.mean == pytest.approx(np.mean(ages)) and age.std == pytest.approx(np.std(ages))
    assert age.missing == pytest.approx(2 / (ROWS + 4))
    assert age.histogram is not None and sum(age.histogram.counts) == ROWS + 2 and age.histogram.is_exact
    assert age.quantiles["0.5"] == pytest.approx(np.median(ages))
    assert kind.kind == "class" and found.balance == {"cat": 41, "dog": 21}
    assert found.duplicates.count == 1
    assert [place.rpartition(", ")[2] for place in found.duplicates.examples[0]] == [f"row {ROWS + 1}", "row 4"]
    assert {one.rule for one in found.left_out_examples} == {
        "feature 'age' holds an infinite value",
        "feature 'age' is missing",
    }
    rules = found.rules.features
    assert rules["colour"].names == ["red", "green"] or rules["colour"].names == ["green", "red"]
    assert rules["colour"].may_miss and rules["age"].range == (20, 69) and rules["kind"].names == ["cat", "dog"]


def test_images_integers_and_labels_without_names(source_of):
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (50, 4, 4), np.uint8)
    found = inspect_source(source_of({"image": image, "room": np.arange(50) % 7, "label": np.arange(50) % 3}), "arrays")
    pixels, room = found.features["image"], found.features["room"]
    assert (pixels.dtype, pixels.shape, pixels.count) == ("float32", (4, 4, 1), 800)
    assert pixels.mean == pytest.approx(image.mean() / 255, rel=1e-5)
    assert (room.kind, room.distinct, room.frequent[0]) == ("integer", 7, ("0", 8))
    assert room.histogram is not None and room.histogram.edges[:2] == [-0.5, 0.5] and len(room.histogram.counts) == 7
    assert found.balance == {"0": 17, "1": 17, "2": 16}


def test_far_values_do_not_flatten_a_histogram(source_of):
    x = np.linspace(0, 1, 1000)
    x[17] = 1e6
    values = inspect_source(source_of({"x": x, "label": np.arange(1000) % 2}), "arrays").features["x"]
    assert values.max == 1e6 and values.histogram is not None
    assert values.histogram.edges[-1] < 2 and values.histogram.above >= 1 and max(values.histogram.counts) < 100


def test_only_so_many_samples_are_read_evenly_by_position(source_of):
    source = source_of({"x": np.arange(1000.0), "label": np.arange(1000) % 2})
    found = inspect_source(source, "arrays", most=10)
    assert (found.read, found.total, found.is_complete) == (10, 1000, False)
    x = found.features["x"]
    assert (x.min, x.max, x.mean) == (0, 900, 450)
    # The samples between are given room.
    assert found.rules.features["x"].range == (-450, 1350)


def test_large_samples_are_bounded_by_their_numbers():
    image = Feature((224, 224, 3), "float32")
    schema = Schema({"image": image}, None, 1_281_167)
    positions = chosen_positions(schema, None)
    assert len(positions) == MOST_NUMBERS // (224 * 224 * 3) and (np.diff(positions) > 170).all()
    assert positions[-1] < schema.num_samples
    assert len(chosen_positions(replace(schema, num_samples=9), None)) == 9


def test_what_a_reading_source_leaves_out_is_not_counted_as_a_value():
    def read(index):
        return {"x": np.where(index == 5, np.nan, index).astype(np.float32), "label": index % 2}

    schema = Schema({"x": Feature((), "float32"), "label": Feature((), "int32")}, "label", 20, 2)
    found = inspect_source(CallableSource("made:up", schema, read, 100), "made:up")
    assert (found.total, found.read, found.left_out) == (20, 19, 1)
    assert found.features["x"].count == 19 and found.features["x"].missing == 1 / 20
    assert found.left_out_examples[0].record == "sample 5"


def test_the_file_reads_back_and_a_damaged_one_is_refused_in_a_sentence(source_of, tmp_path):
    found = inspect_source(source_of({"x": np.arange(9.0), "label": np.arange(9) % 2}), "arrays")
    path = tmp_path / "data_inspection.json"
    path.write_text(found.model_dump_json(indent=2))
    assert read_inspection(path) == found
    path.write_text(path.read_text().replace('"dtype"', '"dtpye"', 1))
    with pytest.raises(
        ValueError, match=r"data_inspection.json does not hold an inspection \(features.x.dtype: .*anew"
    ):
        read_inspection(path)
    with pytest.raises(ValueError, match=r"there is no file .*phalanx data inspect"):
        read_inspection(tmp_path / "nowhere.json")
