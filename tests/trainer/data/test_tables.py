from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf

from trainer.config.data import CsvData, ParquetData
from trainer.data.checks import DataError
from trainer.data.tables import open_table

HEADER = "colour,size,weight,kind\n"


def write(path: Path, *lines: str, header: str = HEADER) -> str:
    path.write_text(header + "".join(f"{line}\n" for line in lines))
    return str(path)


def pair(tmp_path: Path, *lines: str, **options) -> CsvData:
    """Training rows of which the statistics are known, and `lines` as the held-out file."""
    train = write(tmp_path / "train.csv", "red,1,10,a", "red,3,10,b", "blue,5,10,b", "green,7,10,a")
    held_out = write(tmp_path / "held.csv", *lines) if lines else None
    return CsvData(path=train, held_out_path=held_out, target="kind", **options)


def everything(source) -> dict[str, list]:
    batch = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    return {name: values.numpy().tolist() for name, values in batch.items()}


def test_vocabularies_and_statistics_come_from_the_training_rows(tmp_path):
    data = pair(tmp_path, "green,100,0,a", "violet,2,1,b", ",3,2,a")
    train, held_out = open_table(data, "train"), open_table(data, "held_out")
    for source in (train, held_out):
        features = source.schema.features
        assert features["colour"].vocabulary == ("red", "blue", "green") and features["colour"].num_values == 4
        assert features["size"].mean == 4 and features["size"].std == pytest.approx(5**0.5)
        assert features["weight"].mean == 10 and features["weight"].std == 1
        assert source.schema.class_names == ("a", "b") and source.schema.num_classes == 2
    assert everything(train)["colour"] == [1, 1, 2, 3]
    assert everything(train)["kind"] == [0, 1, 1, 0]
    # Unknown and missing categories are both 0.
    assert everything(held_out)["colour"] == [3, 0, 0]
    assert everything(held_out)["size"] == [100, 2, 3]


def test_fraction_takes_its_statistics_from_the_rest(tmp_path):
    lines = [f"c{i},{i},0,a" for i in range(50)]
    data = CsvData(path=write(tmp_path / "t.csv", *lines), target="kind", held_out_fraction=0.2)
    train, held_out = open_table(data, "train"), open_table(data, "held_out")
    sizes = everything(train)["size"]
    assert sorted(sizes + everything(held_out)["size"]) == list(range(50))
    assert train.schema.features["size"].mean == pytest.approx(np.mean(sizes))
    assert train.schema.features["colour"].vocabulary is not None
    assert len(train.schema.features["colour"].vocabulary) == len(sizes)
    assert set(everything(held_out)["colour"]) == {0}
    row = int(everything(held_out)["size"][0]) + 1
    assert held_out.locate(0) == f"{data.path}, row {row}"


def test_missing_numbers(tmp_path):
    with pytest.raises(DataError, match=r"held\.csv, row 2: feature 'size' is missing: correct it"):
        open_table(pair(tmp_path, "red,1,1,a", "red,,1,a"), "held_out")
    filled = open_table(pair(tmp_path, "red,1,1,a", "red,,1,a", missing="mean"), "held_out")
    assert everything(filled)["size"] == [1, 4]
    skipping = open_table(pair(tmp_path, "red,1,1,a", "red,,1,a", "red,2,1,b", skip_bad_records=1), "held_out")
    assert everything(skipping)["size"] == [1, 2]
    assert [record.record for record in skipping.skipped.records()] == ["row 2"]
    assert skipping.locate(1).endswith("held.csv, row 3")


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("red,2,1,c", r"row 2: label 'kind' is 'c', which is no class of the training rows \(a, b\)"),
        ("red,2,1,", "row 2: label 'kind' is missing"),
        ("red,two,1,a", "row 2: feature 'size' is 'two', which is not a number"),
        ("red,inf,1,a", "row 2: feature 'size' holds an infinite value"),
        ("red,2,1", "row 2: it has 3 columns, the header has 4"),
    ],
)
def test_bad_rows_are_named_and_can_be_skipped(tmp_path, line, rule):
    with pytest.raises(DataError, match=rf"held\.csv, {rule}"):
        open_table(pair(tmp_path, "red,1,1,a", line, "red,3,1,b"), "held_out")
    source = open_table(pair(tmp_path, "red,1,1,a", line, "red,3,1,b", skip_bad_records=1), "held_out")
    assert everything(source)["size"] == [1, 3] and len(source.skipped) == 1
    assert source.locate(1).endswith("row 3")


def test_roles_can_be_set(tmp_path):
    data = pair(tmp_path, categorical=("colour", "weight"), numeric=("size",), held_out_fraction=0.3)
    schema = open_table(data, "train").schema
    assert list(schema.inputs) == ["colour", "weight", "size"]
    assert schema.features["weight"].vocabulary == ("10",)
    fewer = open_table(pair(tmp_path, numeric=(), categorical=("colour",)), "train").schema
    assert list(fewer.inputs) == ["colour"]
    small = open_table(pair(tmp_path, "red,1,1,a", max_vocabulary=1), "train")
    assert small.schema.features["colour"].vocabulary == ("red",)
    assert everything(small)["colour"] == [1, 1, 0, 0]


def test_number_as_target(tmp_path):
    train = write(tmp_path / "t.csv", "red,1,10,a", "red,3,11.5,b", "blue,,12,b")
    data = CsvData(
        path=train, held_out_path=train, target="weight", target_kind="number", categorical=("kind",), numeric=()
    )
    source = open_table(data, "train")
    assert source.schema.num_classes is None
    assert everything(source)["weight"] == [10, 11.5, 12]


def test_parquet_and_several_files_with_dictionary_columns(tmp_path):
    def rows(colours: list[str | None], kinds: list[int]) -> pa.Table:
        return pa.table({"colour": pa.array(colours).dictionary_encode(), "kind": kinds})

    pyarrow.parquet.write_table(rows(["red", None], [10, 2]), tmp_path / "a.parquet")
    pyarrow.parquet.write_table(rows(["blue", "red"], [2, 10]), tmp_path / "b.parquet")
    data = ParquetData(path=str(tmp_path / "*.parquet"), held_out_path=str(tmp_path / "b.parquet"), target="kind")
    source = open_table(data, "train")
    assert source.schema.class_names == ("2", "10")
    assert everything(source) == {"colour": [1, 0, 2, 1], "kind": [1, 0, 0, 1]}
    assert source.locate(2) == f"{tmp_path / 'b.parquet'}, row 1"
    assert everything(open_table(data, "held_out"))["colour"] == [2, 1]


def test_wrong_files_and_columns(tmp_path):
    with pytest.raises(DataError, match=r"no file matches it: correct data\.path"):
        open_table(CsvData(path=str(tmp_path / "*.csv"), target="kind"), "train")
    path = write(tmp_path / "t.csv", "red,1,10,a", "blue,2,10,b")
    with pytest.raises(DataError, match="there is no column 'knd', it has colour, size, weight, kind: correct"):
        open_table(CsvData(path=path, target="knd"), "train")
    empty = write(tmp_path / "empty.csv")
    with pytest.raises(DataError, match="it holds no rows"):
        open_table(CsvData(path=empty, target="kind"), "train")
    write(tmp_path / "u.csv", "red,1", header="colour,size\n")
    with pytest.raises(DataError, match=r"u\.csv: it lacks the column 'weight'"):
        open_table(CsvData(path=str(tmp_path / "[tu].csv"), target="kind"), "train")
    with pytest.raises(DataError, match=r"t\.csv: it cannot be read as Parquet"):
        open_table(ParquetData(path=path, target="kind"), "train")
    with pytest.raises(ValueError, match="'kind' is also an input"):
        CsvData(path=path, target="kind", numeric=("kind",))
    with pytest.raises(ValueError, match=r"'size' is in data\.categorical and in data\.numeric"):
        CsvData(path=path, target="kind", numeric=("size",), categorical=("size",))
