"""Sources that read from object stores give what they give from this machine, to the bit."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordWriter

from tests.trainer.object_store.faulty_store import FaultyStore, faulty_store
from tests.trainer.preparation.raw_data import prepare, write_tables
from trainer.config.data import CsvData, ParquetData
from trainer.config.data_streams import ArrayRecordData, RecordFeature, TfrecordData
from trainer.config.prepared import PreparedData
from trainer.config.store import StoreConfig
from trainer.data import stored_tables
from trainer.data.checks import DataError
from trainer.data.order import SampleOrder
from trainer.data.pipeline import train_batches
from trainer.data.record_index import open_index
from trainer.data.record_writer import encode_example, write_shards
from trainer.data.registry import open_source
from trainer.data.stored_tables import MappedTable
from trainer.data.table_files import find_table_files
from trainer.data.tfrecord import RecordSource, open_records
from trainer.preparation.request import Request

FEATURES = {"x": RecordFeature(kind="float", shape=(3,)), "label": RecordFeature(kind="integer")}
RECORDS = {"features": FEATURES, "num_classes": 5}
STORE = StoreConfig(block=4096, retries=8, timeout_s=10.0, ahead=3)


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(tmp_path / "cache"))


def payloads(count: int = 60) -> list[bytes]:
    return [encode_example({"x": [n, n / 2, n / 7], "label": n % 5}) for n in range(count)]


def files_in(folder: Path, *, hidden: bool = True) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and (hidden or path.name[0] != ".")
    }


def read_all(data, split: str = "train") -> dict[str, np.ndarray]:
    source = open_source(data, split)
    batch = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    return {name: value.numpy() for name, value in batch.items()}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("hidden", [True, False], ids=["with its indexes", "without"])
def test_training_from_a_store_that_fails_at_random(tmp_path: Path, hidden: bool) -> None:
    raw = write_tables(tmp_path / "raw", "csv", rows=40)
    prepare(Request(source=raw, format="csv", num_shards=3, target="late"), tmp_path / "out")
    order = SampleOrder(108, 8, seed=3)

    def batches(path: str, **options: object) -> list:
        source = open_source(PreparedData(path=path, **options), "train")
        steps = 2 * order.steps_per_epoch
        return list(train_batches(source, order, first_step=0, num_steps=steps).as_numpy_iterator())

    local = open_source(PreparedData(path=str(tmp_path / "out")), "train")
    order = SampleOrder(local.schema.num_samples, 8, seed=3)
    expected = batches(str(tmp_path / "out"))
    with faulty_store(files_in(tmp_path / "out", hidden=hidden), share=0.2, seed=5, delay_s=0.005) as store:
        found = batches(store.url, store=STORE)
        assert len(set(store.faults)) > 2
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


def test_records_in_memory_and_on_a_web_server(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", "train", payloads(), 3)
    expected = read_all(TfrecordData(pattern=f"{tmp_path}/shards/train-*", **RECORDS))
    memory = fsspec.filesystem("memory")
    for name, body in files_in(tmp_path / "shards", hidden=False).items():
        memory.pipe_file(f"/remote/{name}", body)
    assert_same(read_all(TfrecordData(pattern="memory://remote/train-*", store=STORE, **RECORDS)), expected)
    with faulty_store(files_in(tmp_path / "shards")) as store:
        pattern = f"{store.url}/train-{{00000..00002}}-of-00003.tfrecord"
        assert_same(read_all(TfrecordData(pattern=pattern, store=STORE, **RECORDS)), expected)


def test_array_records_here_and_there(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", "train", payloads(), 2)
    expected = read_all(TfrecordData(pattern=f"{tmp_path}/shards/train-*", held_out_pattern="x", **RECORDS))
    (tmp_path / "array").mkdir()
    for shard in range(2):
        writer = ArrayRecordWriter(str(tmp_path / "array" / f"{shard}.array_record"), "group_size:4")
        for payload in payloads()[shard::2]:
            writer.write(payload)
        writer.close()
    common = {"held_out_pattern": "x", **RECORDS}
    data = ArrayRecordData(pattern=f"{tmp_path}/array/*.array_record", **common)
    assert_same(read_all(data), expected)
    source = open_source(data, "train")
    backwards = source.read(tf.range(59, -1, -1, dtype=tf.int64))
    np.testing.assert_array_equal(backwards["x"][::-1], expected["x"])
    with faulty_store(files_in(tmp_path / "array"), share=0.2, seed=1) as store:
        there = {"pattern": f"{store.url}/{{0,1}}.array_record", **common}
        assert_same(read_all(ArrayRecordData(store=STORE, **there)), expected)
        store.objects.clear()
        store.is_gone = True
        with pytest.raises(DataError, match="it cannot be reached: 1 tries"):
            read_all(ArrayRecordData(store=STORE.model_copy(update={"retries": 0}), **there))
    with faulty_store(files_in(tmp_path / "array")) as store:
        small = StoreConfig(cache=4096, block=4096)
        with pytest.raises(DataError, match=r"which are needed whole, and data.store.cache is 4096: raise"):
            (tmp_path / "array" / "big").write_bytes(bytes(5000))
            store.objects["0.array_record"] = bytes(5000)
            read_all(ArrayRecordData(pattern=f"{store.url}/0.array_record", store=small, **common))
    (tmp_path / "array" / "0.array_record").write_bytes(b"no such thing")
    with pytest.raises(DataError, match=r"0.array_record: it cannot be read as ArrayRecord"):
        open_source(data, "train")


@pytest.mark.parametrize("largest", [2**30, 0], ids=["in memory", "mapped"])
@pytest.mark.parametrize(("format", "kind"), [("csv", CsvData), ("parquet", ParquetData)])
def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, kind, largest: int) -> None:
    pattern = write_tables(tmp_path / "raw", format)
    local = {split: read_all(kind(path=pattern, target="late"), split) for split in ("train", "held_out")}
    features = open_source(kind(path=pattern, target="late"), "train").schema
    monkeypatch.setattr(stored_tables, "LARGEST_LOADED", largest)
    with faulty_store(files_in(tmp_path / "raw"), share=0.2, seed=2) as store:
        there = kind(path=f"{store.url}/{{0..2}}.{format}", target="late", store=STORE)
        for split in ("train", "held_out"):
            assert_same(read_all(there, split), local[split])
        source = open_source(there, "train")
        assert source.schema == features and source.in_memory is (largest > 0)
        # The rows are here: all that is asked of the store is whether they are still those that it has.
        asked = {path for path, part in store.requests if part != "bytes=0-0"}
        store.requests.clear()
        assert asked and read_all(there)
        assert {part for _, part in store.requests} == {"bytes=0-0"}
        # A file on this machine that is large is read like this too.
        if not largest:
            assert_same(read_all(kind(path=pattern, target="late")), local["train"])
        store.is_gone = True
        gone = there.model_copy(update={"store": STORE.model_copy(update={"retries": 1})})
        with pytest.raises(DataError, match="cannot be reached: 2 tries"):
            open_source(gone, "train")


def test_batches_of_a_mapped_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CsvData(path=write_tables(tmp_path / "raw", "csv", rows=300), target="late")
    order = SampleOrder(open_source(data, "train").schema.num_samples, 64, seed=3)

    def batches() -> list:
        source = open_source(data, "train")
        steps = 2 * order.steps_per_epoch
        return list(train_batches(source, order, first_step=0, num_steps=steps).as_numpy_iterator())

    expected = batches()
    monkeypatch.setattr(stored_tables, "LARGEST_LOADED", 0)
    source = open_source(data, "train")
    assert isinstance(source, MappedTable) and source.ahead and source.announce(np.arange(64)) == 64
    for one, other in zip(batches(), expected, strict=True):
        assert_same(one, other)


def kinds_of(data: CsvData) -> tuple[str, ...]:
    return open_source(data, "train").schema.features["kind"].vocabulary or ()


def test_an_object_that_changes_is_noticed(tmp_path: Path) -> None:
    write_tables(tmp_path / "raw", "csv", files=1)
    changed = (tmp_path / "raw" / "0.csv").read_bytes().replace(b"cat", b"ape")
    with faulty_store(files_in(tmp_path / "raw")) as store:
        data = CsvData(path=f"{store.url}/0.csv", target="late", store=STORE)
        assert "cat" in kinds_of(data)
        store.objects["0.csv"] = changed
        assert "ape" in kinds_of(data)
        # In the middle of reading: once it was found, and before its rows are kept.
        files = find_table_files(data.path, "data.path", data.store)
        store.objects["0.csv"] = changed + b"1.0,cat,no\n"
        with pytest.raises(DataError, match=r"0.csv: it changed after the run began: start a new run on the new data"):
            files[0].check_unchanged()


def test_bad_rows_of_a_table_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["colour,size,kind", *(f"red,{n},a" for n in range(6)), "red,1", "red,inf,b", "blue,,a", "blue,8,b"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    local = CsvData(path=str(tmp_path / "t.csv"), held_out_path=str(tmp_path / "t.csv"), target="kind")
    with faulty_store({"t.csv": (tmp_path / "t.csv").read_bytes()}) as store:
        for largest in (2**30, 0):
            monkeypatch.setattr(stored_tables, "LARGEST_LOADED", largest)
            for split in ("train", "held_out"):
                there = local.model_copy(
                    update={"path": f"{store.url}/t.csv", "held_out_path": f"{store.url}/t.csv", "store": STORE}
                )
                with pytest.raises(DataError, match=r"t.csv, row 7: it has 2 columns, the header has 3"):
                    open_source(there, split)
                one, two, three = (there.model_copy(update={"skip_bad_records": most}) for most in (1, 2, 3))
                with pytest.raises(DataError, match=r"row 8: feature 'size' holds an infinite value, after as many"):
                    open_source(one, split)
                with pytest.raises(DataError, match=r"row 9: feature 'size' is missing, after as many"):
                    open_source(two, split)
                source = open_source(three, split)
                assert [record.record for record in source.skipped.records()] == ["row 7", "row 8", "row 9"]
                assert source.locate(5).endswith("t.csv, row 6") and source.locate(6).endswith("t.csv, row 10")
                assert source.read(tf.constant([6, 0], tf.int64))["size"].numpy().tolist() == [8, 0]


def test_a_table_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    write_tables(tmp_path / "raw", "parquet", files=1, rows=500)
    with faulty_store(files_in(tmp_path / "raw")) as store:
        small = StoreConfig(cache=4096, block=4096)
        with pytest.raises(DataError, match=r"its 500 rows take 6000 bytes .* data.store.cache is 4096: raise"):
            read_all(ParquetData(path=f"{store.url}/0.parquet", target="late", store=small))


@contextmanager
def source_in_a_store(folder: Path) -> Iterator[tuple[RecordSource, FaultyStore]]:
    """One shard with its index, so that nothing of it has been read when the source is open."""
    (shard,) = write_shards(folder, "train", payloads(2000), 1)
    open_index(shard)
    with faulty_store(files_in(folder)) as store:
        config = STORE.model_copy(update={"retries": 1})
        yield open_records(TfrecordData(pattern=f"{store.url}/{shard.name}", store=config, **RECORDS), "train"), store


def test_a_store_that_goes_is_named(tmp_path: Path) -> None:
    with source_in_a_store(tmp_path / "shards") as (source, store):
        store.is_gone = True
        with pytest.raises((DataError, tf.errors.OpError)):
            source.read(tf.constant([1500], tf.int64))
        assert source.failure is not None
        assert f"{store.url}/train-00000-of-00001.tfrecord: its bytes" in str(source.failure)
        assert "cannot be read: 2 tries" in str(source.failure) and "data.store.retries" in str(source.failure)


def test_what_was_announced_is_there_when_its_turn_comes(tmp_path: Path) -> None:
    with source_in_a_store(tmp_path / "shards") as (source, store):
        assert source.ahead == 3
        index = np.asarray([3, 700, 1500], np.int64)
        assert source.announce(index) == 3
        deadline = time.monotonic() + 30
        while len(list((tmp_path / "cache" / "blocks").glob("*/*"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        store.is_gone = True
        batch = source.read(tf.constant(index))
        numbers = np.asarray([source._records[i] for i in index])
        np.testing.assert_array_equal(batch["x"][:, 0], numbers)
