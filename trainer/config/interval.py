"""Intervals with units: every 500 steps ("500st"), every 30 seconds ("30s"), every epoch ("1ep")."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import (
    AfterValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

Unit = Literal["st", "s", "ep"]

_PATTERN = r"^[0-9]+(\.[0-9]+)?(st|s|ep)$"


@dataclass(frozen=True)
class Interval:
    """How often, or for how long, something happens.

    Examples:
        >>> Interval.parse("500st")
        Interval(value=500.0, unit='st')
        >>> str(Interval(0.5, "ep"))
        '0.5ep'

    Attributes:
        value: the amount, above zero; whole for steps.
        unit: `st` optimizer steps, `s` seconds of wall time, `ep` epochs of the training data.

    Raises:
        ValueError: the value is not above zero, or not whole although it counts steps.
    """

    value: float
    unit: Unit

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise ValueError(f"must have the unit st (steps), s (seconds) or ep (epochs), not {self.unit!r}")
        if not 0 < self.value < float("inf"):
            raise ValueError('must be above zero, as in "500st", "30s" or "1ep"')
        if self.unit == "st" and self.value != int(self.value):
            raise ValueError('must be a whole number of steps, as in "500st"')

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Read an interval as it is written in a config.

        Raises:
            ValueError: the text is not a number followed by one of the units.
        """
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*", text)
        if match is None:
            raise ValueError('must be a number and a unit, as in "500st" (steps), "30s" (seconds) or "1ep" (epochs)')
        return cls(float(match[1]), cast(Unit, match[2]))

    def __str__(self) -> str:
        # Decimal, because repr would write a large or a small number with an exponent.
        digits = format(Decimal(repr(self.value)), "f")
        return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}{self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": _PATTERN, "examples": ["500st", "30s", "1ep"]}


def _validate(value: object) -> Interval:
    if isinstance(value, Interval):
        return value
    if isinstance(value, str):
        return Interval.parse(value)
    raise ValueError('must be text with a unit, as in "500st" (steps), "30s" (seconds) or "1ep" (epochs)')


def _validate_or_auto(value: object) -> Interval | Literal["auto"]:
    if value == "auto":
        return "auto"
    try:
        return _validate(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


IntervalOrAuto = Annotated[
    Interval | Literal["auto"],
    PlainValidator(_validate_or_auto),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"{_PATTERN}|^auto$", "examples": ["auto", "500st", "30s"]}),
]
"""An interval, or that the run chooses it."""


def _in_steps_or_epochs(interval: Interval) -> Interval:
    if interval.unit == "s":
        raise ValueError('must be in steps or epochs, as in "200st" or "1ep": a clock differs from run to run')
    return interval


IntervalOfSteps = Annotated[Interval, AfterValidator(_in_steps_or_epochs)]
"""An interval that no clock decides, so that it ends at the same step in every process."""
