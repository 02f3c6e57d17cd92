"""Sources from any importable function, `data.name=package.module:function`.

The function is called with `split="train"` or `split="held_out"` and with `data.options`, and returns one of:

- a `Source`, used as it is;
- a dict of numpy arrays, one row a sample, held in memory;
- `(num_samples, read)`, where `read(index)` takes an int64 array [B] and returns a dict of arrays, each [B, ...].
  It is called from several threads at once while training runs.

Shape legend: B batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trainer.config.data import CustomData
from trainer.data.array_schema import conform_arrays, describe_arrays, to_unit_range
from trainer.data.arrays import source_of_arrays
from trainer.data.checks import DataError
from trainer.data.held_out import Split
from trainer.data.source import Schema, Source
from trainer.data.streaming import Sample, Stored, StreamingSource
from trainer.importing import call_with, import_function

ReadSamples = Callable[[np.ndarray], Mapping[str, np.ndarray]]

EXPECTED = "return a Source, a dict of arrays, or (num_samples, read)"


class CallableSource(StreamingSource):
    """Samples that a Python function reads.

    Args:
        name: `package.module:function`, for messages.
        schema: Names, shapes, types and length.
        read: Reads samples by index.
        skip_bad_records: The most samples that may be left out.
    """

    def __init__(self, name: str, schema: Schema, read: ReadSamples, skip_bad_records: int):
        super().__init__(schema, skip_bad_records, Stored({}))
        self._name, self._read = name, read

    def load(self, index: np.ndarray) -> Sequence[Sample | DataError]:
        """Reads a batch in one call; if that fails, one sample at a time, to find those that cannot be read."""
        try:
            return self._load_together(index)
        except Exception as error:
            if len(index) == 1:
                return [self._explain(int(index[0]), error)]
            return [sample for i in index for sample in self.load(np.asarray([i]))]

    def place(self, index: int) -> tuple[str, str]:
        """Names the function, and the sample."""
        return self._name, f"sample {index}"

    def _load_together(self, index: np.ndarray) -> list[Sample]:
        arrays = conform_arrays(_as_arrays(self._read(index)), self.schema, self._name)
        rows = len(next(iter(arrays.values())))
        if rows != len(index):
            rule = f"it returned {rows} samples for {len(index)} indices"
            raise DataError(self._name, "", rule, "return one row for each index")
        arrays = to_unit_range(arrays)
        return [{name: values[row] for name, values in arrays.items()} for row in range(rows)]

    def _explain(self, index: int, error: Exception) -> DataError:
        if isinstance(error, DataError):
            return self.error(index, error.rule, error.change)
        return self.error(index, f"reading it fails with {type(error).__name__} ({error})")


def open_custom(data: CustomData, split: Split) -> Source:
    """Calls the user's function and makes a source of what it returns.

    Raises:
        ValueError: The function cannot be imported, or does not take `split` and the options.
        DataError: It returns something else, or its samples are not what training needs.
    """
    function = import_function(data.name, "data.name")
    if "split" not in inspect.signature(function).parameters:
        raise ValueError(
            f"data.name={data.name}: it has no parameter split, so both splits would be the same samples: "
            'give it one, which is "train" or "held_out"'
        )
    made: Any = call_with(function, data.name, "data.name", {"split": split}, data.options)
    if isinstance(made, Source):
        return made
    if isinstance(made, Mapping):
        arrays = _as_arrays(made)
        schema = describe_arrays(arrays, data.name, data.target, data.num_classes)
        return source_of_arrays(arrays, schema, data.name, np.arange(schema.num_samples), data.skip_bad_records)
    if isinstance(made, tuple) and len(made) == 2 and callable(made[1]):
        return _of_callable(data, *made)
    raise DataError(data.name, "", f"it returned {type(made).__name__}", EXPECTED)


def _of_callable(data: CustomData, num_samples: Any, read: ReadSamples) -> CallableSource:
    if not isinstance(num_samples, int) or num_samples < 1:
        raise DataError(data.name, "", f"it returned {num_samples!r} as the number of samples", EXPECTED)
    first = _as_arrays(read(np.zeros(1, np.int64)))
    labels = first.get(data.target) if data.target else next(iter(first.values()))
    one_a_sample = labels is not None and labels.dtype.kind in "iu" and labels.ndim == (1 if data.target else 2)
    if data.num_classes is None and one_a_sample:
        what = "classes" if data.target else "tokens"
        raise DataError(data.name, "", f"the number of {what} cannot be seen in one sample", "set data.num_classes")
    schema = describe_arrays(first, data.name, data.target, data.num_classes)
    features = {
        # One sample does not show the range of the others.
        name: feature if name == data.target or data.target is None else replace(feature, num_values=None)
        for name, feature in schema.features.items()
    }
    return CallableSource(
        data.name, replace(schema, features=features, num_samples=num_samples), read, data.skip_bad_records
    )


def _as_arrays(made: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in made.items()}
