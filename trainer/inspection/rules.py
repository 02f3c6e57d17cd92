"""What later data must keep: inferred once from what was seen, then edited by whoever knows better."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from trainer.data.source import Schema
from trainer.inspection.values import kind_of, known_names

UNSEEN_ROOM = 0.5
"""Where not all samples were looked at, those of the others may lie so many widths of the range outside of it."""


class FeatureRule(BaseModel):
    """What the values of one feature must be.

    Attributes:
        dtype: As the source gives them.
        shape: Of one sample.
        range: Lowest and highest number; None for any.
        names: Categories or classes; None for any.
        may_miss: Whether a category may be missing or unknown. A NaN never may be there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str
    shape: tuple[int, ...]
    range: tuple[float, float] | None = None
    names: list[str] | None = None
    may_miss: bool = False


class Rules(BaseModel):
    """What a source must be.

    Attributes:
        features: By name; a source has these and no others.
        duplicates: Largest share of samples that equal an earlier one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: dict[str, FeatureRule]
    duplicates: float = Field(default=0.0, ge=0, le=1)


def infer_rules(
    schema: Schema,
    ranges: Mapping[str, tuple[float | None, float | None]],
    missing: Mapping[str, bool],
    duplicates: float,
    is_complete: bool,
) -> Rules:
    """The rules that what was seen keeps.

    Args:
        schema: Of the source.
        ranges: Lowest and highest finite value by feature; None where there is none.
        missing: By feature, whether some of its values were missing.
        duplicates: Share of duplicates.
        is_complete: Whether all samples were looked at; otherwise ranges get room for the others.
    """
    features = {}
    for name, feature in schema.features.items():
        low, high = ranges[name]
        span = None if low is None or high is None else (low, high)
        if span is not None and not is_complete:
            room = UNSEEN_ROOM * (span[1] - span[0])
            span = span[0] - room, span[1] + room
        if kind_of(name, schema) == "integer" and feature.num_values is not None:
            # What the source itself says of all samples.
            span = (0, feature.num_values - 1)
        elif kind_of(name, schema) == "category" and feature.hash_buckets is not None:
            span = (0, feature.hash_buckets)
        features[name] = FeatureRule(
            dtype=feature.dtype,
            shape=feature.shape,
            range=span,
            names=known_names(name, schema),
            may_miss=kind_of(name, schema) == "category" and missing[name],
        )
    return Rules(features=features, duplicates=duplicates)
