"""The gates of a release, as a YAML file says them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, ValidationError

from trainer.config.section import Section
from trainer.config.training import AnyData

MetricName = Literal["accuracy", "log_loss", "squared_error", "absolute_error", "label_accuracy", "token_accuracy"]

_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_MOST_FILE = 1 << 20  # bytes


class GatesRefused(ValueError):
    """The gates cannot be used. The message is one sentence for the user, or one a problem."""


def _with_unit(units: Mapping[str, float], example: str) -> BeforeValidator:
    def parse(value: object) -> object:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]+)", str(value))
        if found is None or found[2] not in units:
            raise ValueError(f"must be a number with one of the units {', '.join(units)}, as {example}")
        return float(found[1]) * units[found[2]]

    return BeforeValidator(parse)


Bytes = Annotated[PositiveFloat, _with_unit(_BYTES, "10MB")]
Milliseconds = Annotated[PositiveFloat, _with_unit(_MILLISECONDS, "5ms")]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]


class ParityGate(Section):
    """The package answers here as it did where it was made, on its own training sample."""

    tolerance: PositiveFloat = Field(default=1e-3, description="largest difference, relative to answers above 1")


class SizeGate(Section):
    """The package is not too large."""

    at_most: Bytes = Field(description="of all its files together")


class LatencyGate(Section):
    """The model answers soon enough on this machine, called directly."""

    batch: PositiveInt = Field(default=1, description="samples a call")
    calls: Annotated[int, Field(ge=20)] = Field(default=200, description="that are measured")
    p50: Milliseconds | None = Field(default=None, description="half of the calls take at most this")
    p99: Milliseconds | None = Field(default=None, description="99 of 100 calls take at most this")
    of_current: PositiveFloat | None = Field(
        default=None, description="the median is at most so many times that of the version in use, in turns with it"
    )


class MetricsGate(Section):
    """The metric is not worse than that of the version in use, by a paired bootstrap over the held-out samples."""

    worst: float | None = Field(default=None, description="that the metric may be, whatever is in use")
    margin: Annotated[float, Field(ge=0)] = Field(default=0.0, description="by which it may be worse")
    confidence: Confidence = Field(default=0.95, description="with which it is not worse by more than that")


class SlicesGate(Section):
    """On no part of the samples is the metric worse by more than a margin, other than by chance."""

    by: list[str] = Field(min_length=1, description="features or target with whole numbers; each value is a slice")
    margin: Annotated[float, Field(ge=0)] = Field(default=0.05, description="by which a slice may be worse")
    confidence: Confidence = Field(default=0.95, description="over all slices together")
    min_samples: PositiveInt = Field(default=30, description="of a slice, to be looked at")
    worst: float | None = Field(default=None, description="that the metric of a slice may be")


class Gates(Section):
    """What a version must pass. Signature and operations are always looked at: nothing is loaded without."""

    data: AnyData = Field(description="whose held-out split is used, as in the config of a run")
    metric: MetricName = Field(description="of a sample, averaged")
    samples: Annotated[int, Field(ge=20)] = Field(
        default=2000, description="of the held-out split that are used at most"
    )
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(default=2000, description="of the bootstrap")
    parity: ParityGate = Field(default=ParityGate(), description="same answers here as where it was made")
    size: SizeGate | None = Field(default=None, description="a budget of bytes")
    latency: LatencyGate | None = Field(default=None, description="a budget of time")
    metrics: MetricsGate = Field(default=MetricsGate(), description="not worse than the version in use")
    slices: SlicesGate | None = Field(default=None, description="not worse on any part")


def read_gates(path: Path) -> Gates:
    """The gates in a file.

    Raises:
        GatesRefused: It is no YAML, or a key is unknown, missing or of the wrong type; all problems at once.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        text = file.read(_MOST_FILE)
    try:
        fields = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GatesRefused(f"{path} is no YAML ({reason}): correct it") from None
    if not isinstance(fields, dict):
        raise GatesRefused(f"{path} holds no gates: write data: and metric:, and the gates that are wanted")
    try:
        return Gates.model_validate(fields)
    except ValidationError as error:
        raise GatesRefused("\n".join(_sentence(path, problem) for problem in error.errors())) from None


def _sentence(path: Path, problem: Mapping[str, Any]) -> str:
    """One problem as the house says it."""
    place = ".".join(str(part) for part in problem["loc"]) or "the file"
    if problem["type"] == "extra_forbidden":
        return f"{path}: {place} is no setting of a gate: take it out, or correct its name"
    if problem["type"] == "missing":
        return f"{path}: {place} is missing: add it"
    message = str(problem["msg"]).removeprefix("Value error, ").partition("\n")[0]
    given = "" if isinstance(problem["input"], dict) else f"={problem['input']}"
    return f"{path}: {place}{given}: {message[:1].lower() + message[1:]}"
