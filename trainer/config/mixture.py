"""Options of the source `mixture`: batches that take a share of their samples from each of several sources."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config.choice import ChosenByName
from trainer.config.data import (
    ArraysData,
    CsvData,
    CustomData,
    DataConfig,
    DigitsData,
    FlightsData,
    MnistData,
    MnistSampleData,
    ParquetData,
    SyntheticData,
)
from trainer.config.data_streams import ArrayRecordData, ImagesData, TextData, TfdsData, TfrecordData
from trainer.config.prepared import PreparedData
from trainer.config.section import Section
from trainer.config.segmentation import LesionsData
from trainer.config.time_series import SeriesData, WeatherData
from trainer.config.verification import GlyphsData

MixableData = (
    MnistSampleData
    | MnistData
    | DigitsData
    | FlightsData
    | ArraysData
    | CsvData
    | ParquetData
    | TfrecordData
    | ArrayRecordData
    | PreparedData
    | ImagesData
    | TextData
    | WeatherData
    | SeriesData
    | LesionsData
    | GlyphsData
    | SyntheticData
    | TfdsData
    | CustomData
)
"""Sources that give each of their samples alike whenever they are asked."""

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

SMALLEST_SHARE = 1e-4
"""Shares are whole parts of 10,000 where they have no smaller common denominator."""


class MixtureSourceConfig(Section):
    """One of the sources that are mixed."""

    weight: Weight = Field(description="its share of the samples, relative to the other weights")
    data: Annotated[MixableData, ChosenByName()] = Field(description="the source, with its own options")


class MixtureWeights(Section):
    """Weights that hold from a step on."""

    step: PositiveInt = Field(description="the first step with these weights")
    weights: tuple[Weight, ...] = Field(description="one for each source, in their order")


class MixtureData(DataConfig):
    """Several sources of one schema, a share of the samples from each; their order depends on seed and step alone."""

    held_out: ClassVar[str] = "validation"
    name: Literal["mixture"] = "mixture"
    sources: tuple[MixtureSourceConfig, ...] = Field(
        description="what is mixed; each has its own skip_bad_records and cache"
    )
    schedule: tuple[MixtureWeights, ...] = Field(
        default=(), description="other weights from later steps on, the steps ascending"
    )

    @property
    def phases(self) -> tuple[tuple[int, tuple[float, ...]], ...]:
        """First step and weights of each stretch of steps, the first one from step 0 on."""
        first = (0, tuple(source.weight for source in self.sources))
        return first, *((later.step, later.weights) for later in self.schedule)

    @model_validator(mode="after")
    def _weights_fit_the_sources(self) -> "MixtureData":
        if len(self.sources) < 2:
            raise ValueError(f"data.sources has {len(self.sources)}, and a mixture must have two or more: add one")
        steps = [step for step, _ in self.phases]
        if steps != sorted(set(steps)):
            raise ValueError(f"data.schedule begins at steps {steps[1:]}, which must ascend: put them in order")
        for step, weights in self.phases:
            place = f"the weights {list(weights)} from step {step} on"
            if len(weights) != len(self.sources):
                raise ValueError(f"{place} must be {len(self.sources)}, one for each of data.sources: give as many")
            if not sum(weights):
                raise ValueError(f"{place} are all 0, so no sample could be drawn: raise one of them")
            small = [weight for weight in weights if 0 < weight < SMALLEST_SHARE * sum(weights)]
            if small:
                raise ValueError(
                    f"{place}: {small[0]:g} is less than {SMALLEST_SHARE:g} of all: raise it, or set it to 0"
                )
        return self

    @model_validator(mode="after")
    def _options_stand_where_they_count(self) -> "MixtureData":
        defaults = DataConfig.model_fields
        for name in ("batch_size", "shuffle", "remainder", "augment", "service"):
            for number, source in enumerate(self.sources):
                if getattr(source.data, name) != defaults[name].get_default():
                    raise ValueError(
                        f"data.sources[{number}].data.{name} says nothing, since batches are made of all sources: set "
                        f"data.{name} instead"
                    )
        for name in ("cache", "skip_bad_records"):
            if getattr(self, name) != defaults[name].get_default():
                raise ValueError(
                    f"data.{name}={getattr(self, name)} says nothing of a mixture: set it in data.sources, where each "
                    "source has its own"
                )
        if self.remainder != "pad":
            raise ValueError(
                f"data.remainder={self.remainder} says nothing of a mixture, whose batches are all full: leave it out"
            )
        return self
