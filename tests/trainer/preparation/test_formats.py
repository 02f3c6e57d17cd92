"""Every record of each raw format is in the output exactly once, as it was; what is damaged is named."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.preparation.raw_data import (
    ANIMALS,
    prepare,
    table,
    values_of,
    write_images,
    write_lines,
    write_records,
    write_tables,
)
from trainer.data.checks import DataError
from trainer.data.record_writer import encode_example, write_shards
from trainer.preparation.formats import guess_format
from trainer.preparation.request import Request


def request(source: object, format: str, **options: object) -> Request:
    return Request(**{"source": str(source), "format": format, "num_shards": 3, "chunk_bytes": 500, **options})


def test_images_as_they_are_with_their_class(tmp_path: Path) -> None:
    raw = write_images(tmp_path / "raw")
    manifest = prepare(request(raw, "images"), tmp_path / "out")
    files = [(ANIMALS.index(path.parent.name), path.read_bytes()) for path in raw.rglob("*.png")]
    assert values_of(tmp_path / "out", "label", "image") == Counter(((label,), (image,)) for label, image in files)
    assert manifest.num_records == 30 and manifest.contents.class_names == ANIMALS
    assert manifest.raw_bytes == sum(len(image) for _, image in files)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_rows_of_tables(tmp_path: Path, format: str) -> None:
    raw = write_tables(tmp_path / "raw", format)
    manifest = prepare(request(raw, format, target="late"), tmp_path / "out")
    rows = table(0, 60).to_pylist()
    expected = Counter(
        ((row["size"],), (ANIMALS.index(row["kind"]),), (["no", "yes"].index(row["late"]),)) for row in rows
    )
    assert values_of(tmp_path / "out", "size", "kind", "late") == expected
    contents, sizes = manifest.contents, [row["size"] for row in rows]
    assert contents.class_names == ("no", "yes") and contents.vocabularies == {"kind": ANIMALS}
    assert contents.statistics["size"] == pytest.approx((np.mean(sizes), np.std(sizes)))


def test_chosen_columns_and_a_number_to_regress_on(tmp_path: Path) -> None:
    raw = write_tables(tmp_path / "raw", "csv")
    asked = request(raw, "csv", target="size", target_kind="number", columns=("kind",))
    contents = prepare(asked, tmp_path / "out").contents
    assert set(contents.features) == {"kind", "size"} and contents.num_classes is None
    with pytest.raises(DataError, match="the target 'size' holds fractions, which are no classes: set --target-kind"):
        prepare(request(raw, "csv", target="size"), tmp_path / "other")


def test_whole_numbers_are_classes_in_the_order_of_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{n},{n % 12}\n" for n in range(24)))
    contents = prepare(request(tmp_path / "a.csv", "csv", target="y"), tmp_path / "out").contents
    assert contents.class_names == tuple(map(str, range(12)))


@pytest.mark.parametrize("context", [4, 128])
def test_lines_belong_to_the_chunk_in_which_they_begin(tmp_path: Path, context: int) -> None:
    raw = write_lines(tmp_path / "raw", 12)
    expected: Counter = Counter()
    for file in sorted((tmp_path / "raw").iterdir()):
        for line in filter(None, file.read_text().split("\n")):
            tokens = [*line.encode(), 10]
            for begin in range(0, len(tokens) - 1, context):
                piece = tokens[begin : begin + context + 1]
                expected[((*piece, *[0] * (context + 1 - len(piece))),)] += 1
    for chunk_bytes in (23, 10**6):
        folder = tmp_path / f"out{chunk_bytes}"
        prepare(request(raw, "lines", context=context, chunk_bytes=chunk_bytes), folder)
        assert values_of(folder, "tokens") == expected


def test_records_pass_as_they_are(tmp_path: Path) -> None:
    raw = write_records(tmp_path / "raw")
    manifest = prepare(request(raw, "tfrecord"), tmp_path / "out")
    assert values_of(tmp_path / "out", "x", "label") == Counter(((n / 2, float(n)), (n % 3,)) for n in range(40))
    kinds = {name: (feature.kind, feature.shape) for name, feature in manifest.contents.features.items()}
    assert kinds == {"x": ("float", (2,)), "label": ("integer", ())} and manifest.contents.target == "label"


def damage_image(folder: Path) -> str:
    raw = write_images(folder)
    (raw / "dog" / "001.png").write_bytes((raw / "dog" / "001.png").read_bytes()[:40])
    return str(raw)


def damage_row(folder: Path) -> str:
    raw = write_tables(folder, "csv")
    with (folder / "1.csv").open("a") as file:
        file.write("3.5,cat\n")
    return raw


def empty_number(folder: Path) -> str:
    raw = write_tables(folder, "csv")
    with (folder / "1.csv").open("a") as file:
        file.write(",cat,yes\n")
    return raw


def damage_line(folder: Path) -> str:
    raw = write_lines(folder)
    with (folder / "a.txt").open("ab") as file:
        file.write(b"\nbad \xff\n")
    return raw


def damage_payload(folder: Path) -> str:
    write_shards(folder, "raw", [encode_example({"x": 1.0})] * 4)
    path = folder / "raw-00000-of-00001.tfrecord"
    held = bytearray(path.read_bytes())
    held[len(held) // 2 + 14] ^= 1
    path.write_bytes(held)
    return str(path)


def cut_off(folder: Path) -> str:
    write_shards(folder, "raw", [encode_example({"x": 1.0})] * 4)
    path = folder / "raw-00000-of-00001.tfrecord"
    path.write_bytes(path.read_bytes()[:-3])
    return str(path)


def damage_header(folder: Path) -> str:
    write_shards(folder, "raw", [encode_example({"x": 1.0})] * 4)
    path = folder / "raw-00000-of-00001.tfrecord"
    held = bytearray(path.read_bytes())
    held[len(held) // 2 + 1] ^= 1
    path.write_bytes(held)
    return str(path)


@pytest.mark.parametrize(
    ("damage", "format", "left", "named"),
    [
        (damage_image, "images", 29, r"dog/001.png: the PNG image of 40 bytes cannot be decoded"),
        (damage_row, "csv", 60, r"1.csv, row 21: it has 2 columns, the header has 3"),
        (empty_number, "csv", 60, r"1.csv, row 21: column 'size' is missing"),
        (damage_line, "lines", 80, r"a.txt, line at byte \d+: its byte 4 is not utf-8"),
        (damage_payload, "tfrecord", 3, r"record 2: the checksum of its \d+ bytes does not match"),
        (cut_off, "tfrecord", 3, r"record 3: the file ends in the middle of it, at byte \d+"),
        (damage_header, "tfrecord", 2, r"record 2: the checksum of its length does not match at byte \d+"),
    ],
)
def test_what_is_damaged_is_named_and_may_be_left_out(tmp_path, damage, format, left, named) -> None:
    raw = damage(tmp_path / "raw")
    asked = request(raw, format, target="late" if format == "csv" else None)
    with pytest.raises(DataError, match=f"{named}.*--skip-damaged allows 0"):
        prepare(asked, tmp_path / "out")
    manifest = prepare(asked, tmp_path / "out", most_damaged=1)
    (one,) = manifest.damaged
    assert re.search(named, f"{one.file}{', ' if one.record else ''}{one.record}: {one.rule}")
    assert (
        manifest.num_records
        == left
        == sum(values_of(tmp_path / "out", next(iter(manifest.contents.features))).values())
    )


def test_tables_that_do_not_go_together(tmp_path: Path) -> None:
    raw = write_tables(tmp_path / "raw", "csv")
    with pytest.raises(DataError, match="a table needs a target: name the column to predict with --target: size, kind"):
        prepare(request(raw, "csv"), tmp_path / "out")
    with pytest.raises(DataError, match=r"0.csv: it has no column 'weight': correct --columns or --target"):
        prepare(request(raw, "csv", target="late", columns=("weight",)), tmp_path / "out2")
    (tmp_path / "raw" / "3.csv").write_text("size,kind,late\n1,2,no\n")
    with pytest.raises(DataError, match=r"3.csv: the column 'kind' is text in one file and a number in another"):
        prepare(request(raw, "csv", target="late"), tmp_path / "out3")


def test_the_format_is_what_the_path_looks_like(tmp_path: Path) -> None:
    names = {"a/*.csv": "csv", "b.PARQUET": "parquet", "t.txt": "lines", "r-*.tfrecord": "tfrecord", tmp_path: "images"}
    assert {source: guess_format(str(source)) for source in names} == names
    with pytest.raises(
        DataError, match=r"train-00000: RAW is no folder and does not end in .csv.*say it with --format"
    ):
        guess_format("train-00000")
