"""The source `series`, and what all series have in common: windows of a past and of what came next.

Nothing of the held-out part, which is the end of the series, is known to the training: its windows end before it, and
what numbers are scaled by is computed before it. A held-out window begins where it may: forecasts are made from what
was known by then.

A value that is missing among the past steps is the last known one, as for anyone who has to forecast at that time. A
window that lacks a value which is to be predicted is left out.

Shape legend: B batch, N steps of the series, C channels, K channels to predict, P past steps, F steps to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import tensorflow as tf

from trainer.config.time_series import SeriesData, WindowedSeries
from trainer.data.checks import DataError
from trainer.data.held_out import Split
from trainer.data.npz import read_npz
from trainer.data.places import find_path
from trainer.data.source import Feature, Schema, SkippedRecords

PAST, COMING = "past", "coming"


@dataclass(frozen=True)
class Series:
    """What is known at each step.

    Attributes:
        file: Where it comes from, for messages.
        values: Float32 [N, C]; NaN where a value is missing.
        num_targets: K: the first K channels are to be predicted.
        step_name: Says which step a number means, for messages.
    """

    file: object
    values: np.ndarray
    num_targets: int
    step_name: Callable[[int], str] = "step {}".format


class WindowSource:
    """Windows of a series that is in memory; a batch is one gather.

    Args:
        series: What is known at each step.
        data: Lengths of the windows, and what is held out.
        split: Which windows.

    Raises:
        DataError: A channel has no value, or the split has no window.
    """

    in_memory = True
    may_skip = False

    def __init__(self, series: Series, data: WindowedSeries, split: Split):
        self.skipped = SkippedRecords(data.skip_bad_records)
        self.failure: DataError | None = None
        self._series, self._past = series, data.past
        num_steps, num_channels = series.values.shape
        first_held_out = num_steps - round(num_steps * data.held_out_fraction)
        scales = _scales(series, first_held_out)
        filled = _last_known(series.values)
        self._starts = _starts(series, filled, data, split, first_held_out)
        mean, std = np.mean(scales[: series.num_targets], axis=0)
        features = {
            PAST: Feature((data.past, num_channels), "float32", channels=tuple(map(tuple, scales.tolist()))),
            COMING: Feature(
                (data.horizon, series.num_targets), "float32", mean=float(mean), std=float(std), continues=True
            ),
        }
        self.schema = Schema(features, COMING, len(self._starts))
        self._window = np.arange(data.past + data.horizon)
        with tf.device("CPU:0"):
            self._table_NC = tf.constant(filled)
            self._first = tf.constant(self._starts)

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads the windows at `index`, int64 [B]: "past", float32 [B, P, C], and "coming", float32 [B, F, K]."""
        steps = tf.gather(self._first, index)[:, None] + self._window
        windows = tf.gather(self._table_NC, steps)
        return {
            PAST: windows[:, : self._past],
            COMING: windows[:, self._past :, : self._series.num_targets],
        }

    def locate(self, index: int) -> str:
        """Names the last step that a forecast is made from."""
        return f"{self._series.file}, {self._series.step_name(int(self._starts[index]) + self._past - 1)}"


def open_series(data: SeriesData, split: Split) -> WindowSource:
    """Opens the windows of a CSV or .npz file.

    Raises:
        DataError: The file is missing, a column is missing or holds no numbers, or the series is too short.
    """
    path = find_path(data.path, "data.path")
    columns = _npz_columns(path) if path.suffix == ".npz" else _csv_columns(path)
    names = data.columns or tuple(name for name, values in columns.items() if values is not None)
    targets = data.target or names
    # What is predicted comes first, so that a model knows which channels go on.
    ordered = (*targets, *(name for name in names if name not in targets))
    for name in ordered:
        if name not in columns:
            rule = f"there is no column {name!r}, it has {', '.join(columns)}"
            raise DataError(path, "", rule, "correct data.columns or data.target")
        if columns[name] is None:
            raise DataError(path, f"column {name!r}", "it holds no numbers", "leave it out of data.columns")
    if not ordered:
        raise DataError(path, "", "it has no column of numbers", "store one row a step")
    values = np.stack([np.asarray(columns[name], np.float32) for name in ordered], axis=1)
    infinite = np.flatnonzero(np.isinf(values).any(axis=1))
    if len(infinite):
        raise DataError(path, f"row {infinite[0] + 1}", "it holds an infinite value", "correct it, or leave it empty")
    return WindowSource(Series(path, values, len(targets), lambda step: f"row {step + 1}"), data, split)


Columns = Mapping[str, np.ndarray | None]
"""Values by name, float [N]; None for what is no column of numbers."""


def _csv_columns(path: Path) -> Columns:
    try:
        table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(null_values=["", "NA", "NaN"]))
    except pa.ArrowException as error:
        rule = f"it cannot be read as CSV ({error})"
        raise DataError(path, "", rule, "write a header line and one line a step") from error
    return {name: _numbers(table[name]) for name in table.column_names}


def _numbers(column: pa.ChunkedArray) -> np.ndarray | None:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _npz_columns(path: Path) -> Columns:
    arrays = read_npz(path)
    lengths = {name: len(values) for name, values in arrays.items() if values.ndim == 1}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(path, "", f"the arrays differ in length ({listed})", "store one value a step in every array")
    return {name: values if name in lengths and values.dtype.kind in "iuf" else None for name, values in arrays.items()}


def _scales(series: Series, first_held_out: int) -> np.ndarray:
    """Mean and standard deviation of each channel of the training part, float64 [C, 2]; a constant has deviation 1."""
    training = series.values[:first_held_out].astype(np.float64)
    unknown = np.flatnonzero(np.isnan(training).all(axis=0))
    if len(unknown):
        rule = f"channel {unknown[0]} has no value before the held-out part"
        raise DataError(series.file, "", rule, "leave it out, or lower data.held_out_fraction")
    std = np.nanstd(training, axis=0)
    return np.stack([np.nanmean(training, axis=0), np.where(std > 0, std, 1.0)], axis=1)


def _last_known(values: np.ndarray) -> np.ndarray:
    """Each value, or where it is missing the last one before it; NaN before the first."""
    steps = np.arange(len(values))[:, None]
    known = np.maximum.accumulate(np.where(np.isnan(values), -1, steps), axis=0)
    return np.where(known < 0, np.float32(np.nan), np.take_along_axis(values, np.maximum(known, 0), axis=0))


def _starts(series: Series, filled: np.ndarray, data: WindowedSeries, split: Split, first_held_out: int) -> np.ndarray:
    """The first step of each window of a split, int64."""
    length = data.past + data.horizon
    if split == "train":
        first, end = 0, first_held_out - length
    else:
        first, end = max(first_held_out - data.past, 0), len(filled) - length
    starts = np.arange(first, end + 1)
    is_lacking = np.isnan(series.values[:, : series.num_targets]).any(axis=1)
    lacking = np.concatenate([[0], np.cumsum(is_lacking)])
    is_whole = lacking[starts + length] == lacking[starts + data.past]
    starts = starts[is_whole & np.isfinite(filled[starts]).all(axis=1)] if len(starts) else starts
    if not len(starts):
        part = split.replace("_", "-")
        num_steps = first_held_out if split == "train" else len(filled) - first_held_out
        rule = f"the {part} part, {num_steps} steps, has no whole window of {data.past} + {data.horizon} steps"
        raise DataError(series.file, "", rule, "lower data.past or data.horizon, or change data.held_out_fraction")
    return starts


def with_clock(values: np.ndarray, hours: np.ndarray) -> np.ndarray:
    """Adds the time of day to channels: as a point on a circle, so that midnight is beside eleven at night.

    Args:
        values: [N, C].
        hours: Of the day, [N].

    Returns:
        Float32 [N, C + 2].
    """
    angle = 2 * np.pi * np.asarray(hours) / 24
    return np.column_stack([values, np.cos(angle), np.sin(angle)]).astype(np.float32)


def on_a_grid(times: np.ndarray, values: Sequence[float] | np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Values at the times of a grid, float32; NaN where there is none.

    Args:
        times: Of the values; each lies on the grid.
        values: One a time.
        grid: All times, sorted.
    """
    placed = np.full(len(grid), np.nan, np.float32)
    placed[np.searchsorted(grid, times)] = values
    return placed
