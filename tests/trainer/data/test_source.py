from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trainer.data.checks import DataError
from trainer.data.memory import MemorySource, numbered
from trainer.data.source import Feature, Schema, SkippedRecord, SkippedRecords, Source


def error(record: int) -> DataError:
    return DataError("a.tfrecord", f"record {record}", "holds NaN")


def test_without_a_bound_the_first_bad_record_fails():
    first = error(1)
    with pytest.raises(DataError) as raised:
        SkippedRecords(0).add(first)
    assert raised.value is first


def test_bound_counts_each_record_once():
    skipped = SkippedRecords(2)
    for record in (5, 1, 5, 1):
        skipped.add(error(record))
    assert len(skipped) == 2
    assert skipped.records() == [
        SkippedRecord("a.tfrecord", "record 1", "holds NaN"),
        SkippedRecord("a.tfrecord", "record 5", "holds NaN"),
    ]
    with pytest.raises(
        DataError, match=r"record 9: holds NaN, after as many records as data.skip_bad_records=2 allows"
    ):
        skipped.add(error(9))


def test_bound_holds_for_parallel_reads():
    skipped = SkippedRecords(50)

    def add(record: int) -> bool:
        try:
            skipped.add(error(record))
        except DataError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        accepted = sum(pool.map(add, range(200)))
    assert accepted == len(skipped) == 50


def test_inputs_are_all_but_the_target():
    schema = Schema({"a": Feature((), "float32"), "b": Feature((), "int32")}, "b", 1, 2)
    assert list(schema.inputs) == ["a"]


def test_memory_source_is_a_source():
    schema = Schema({"a": Feature((), "float32")}, None, 1)
    assert isinstance(MemorySource(schema, {"a": np.zeros(1)}, numbered("x")), Source)
