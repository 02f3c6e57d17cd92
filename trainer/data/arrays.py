"""The source `arrays`: an .npz file with one array a feature; mapped instead of loaded when it is large.

Shape legend: B batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainer.config.data import ArraysData
from trainer.data.array_schema import conform_arrays, describe_arrays, to_unit_range
from trainer.data.held_out import Split, choose_split, draw_records
from trainer.data.memory import MemorySource, Place, numbered
from trainer.data.npz import map_npz, read_npz
from trainer.data.places import find_path
from trainer.data.source import Schema, SkippedRecords, Source
from trainer.data.streaming import Sample, Stored, StreamingSource

# Bytes up to which a file is loaded; a larger one stays on disk, in the system's page cache.
LARGEST_LOADED = 2**30


class MappedSource(StreamingSource):
    """Samples in arrays that are mapped from a file; each is checked when it is read.

    Args:
        schema: Names, shapes and types; `num_samples` is the length of `rows`.
        arrays: Values by feature.
        rows: The row of each sample in the arrays.
        place: Where each sample comes from, for messages.
        skip_bad_records: The most samples that may be left out.
    """

    def __init__(
        self, schema: Schema, arrays: Mapping[str, np.ndarray], rows: np.ndarray, place: Place, skip_bad_records: int
    ):
        super().__init__(schema, skip_bad_records, Stored({}))
        self._arrays, self._rows, self._place = arrays, rows, place

    def load(self, index: np.ndarray) -> list[Sample]:
        """Copies the samples at `index` out of the mapped file."""
        rows = self._rows[index]
        batch = {name: values[rows] for name, values in self._arrays.items()}
        conformed = to_unit_range(conform_arrays(batch, self.schema, self.place(0)[0]))
        return [{name: values[i] for name, values in conformed.items()} for i in range(len(index))]

    def place(self, index: int) -> tuple[str, str]:
        """Names the file of a sample, and its row."""
        return self._place(index)


def open_arrays(data: ArraysData, split: Split) -> Source:
    """Opens a split of an .npz file.

    Raises:
        DataError: The file is missing or damaged, its arrays do not go together, or more samples are bad than
            data.skip_bad_records allows.
    """
    file = find_path(data.path, "data.path")
    arrays = _load(file)
    schema = describe_arrays(arrays, file, data.target, data.num_classes)
    rows = np.arange(schema.num_samples)
    if data.held_out_path is None:
        rows = choose_split(file, draw_records(file.name, len(rows)), data.held_out_fraction, split)
    elif split == "held_out":
        file = find_path(data.held_out_path, "data.held_out_path")
        arrays = _load(file)
        rows = np.arange(len(next(iter(arrays.values()))))
    return source_of_arrays(arrays, schema, file, rows, data.skip_bad_records)


def source_of_arrays(
    arrays: Mapping[str, np.ndarray], schema: Schema, file: object, rows: np.ndarray, skip_bad_records: int
) -> Source:
    """Makes the source of some rows of arrays: in memory, or mapped if they are.

    Raises:
        DataError: The arrays are not what `schema` says, or more samples are bad than `skip_bad_records`.
    """
    place = numbered(file, rows)
    if any(isinstance(values, np.memmap) for values in arrays.values()):
        conform_arrays({name: values[:1] for name, values in arrays.items()}, schema, file)
        return MappedSource(replace(schema, num_samples=len(rows)), arrays, rows, place, skip_bad_records)
    chosen = {name: values[rows] for name, values in conform_arrays(arrays, schema, file).items()}
    return MemorySource(schema, chosen, place, skipped=SkippedRecords(skip_bad_records))


def _load(file: Path) -> dict[str, np.ndarray]:
    return read_npz(file) if file.stat().st_size <= LARGEST_LOADED else map_npz(file)
