"""Looks at the samples of a source once: what each feature holds, how the labels are balanced, what occurs twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.data.source import Schema, SkippedRecord, Source
from trainer.inspection.broken_rule import parse_rule
from trainer.inspection.reading import chosen_positions, read_batches
from trainer.inspection.rules import Rules, infer_rules
from trainer.inspection.sketches import Fingerprints, Moments, Reservoir, ValueCounts
from trainer.inspection.values import Kind, flat_values, kind_of, naming

MOST_FREQUENT = 20
"""Values of a feature that are listed with their counts."""

MOST_EXAMPLES = 20
"""Records that are listed, of those that the source left out and of duplicates."""

NUM_BINS = 40

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_TAIL = 0.005  # of the values, at either end, that may lie beyond a histogram where they would flatten the rest
_FAR = 3  # times as wide as the bulk: from there on the tails are cut off


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Histogram(_Part):
    """Shares of values in bins of one width.

    Attributes:
        edges: Of the bins, one more than there are bins.
        counts: Values in each bin, of those that were drawn.
        below: Drawn values left of the first bin.
        above: Drawn values right of the last one.
        is_exact: Whether all values were drawn.
    """

    edges: list[float]
    counts: list[int]
    below: int = 0
    above: int = 0
    is_exact: bool = True


class FeatureValues(_Part):
    """What one feature holds.

    Attributes:
        kind: What its values mean.
        dtype: As the source gives them.
        shape: Of one sample.
        count: Values that were looked at.
        min: Of the finite values, as `max`, `mean` and `std`; None for names and where there is none.
        missing: Share of its values that are NaN, infinite, or a missing or unknown category; a sample that the source
            left out because of this feature counts as one such value.
        distinct: Different values that were counted; None for numbers.
        is_distinct_exact: Whether there are no more than those.
        frequent: The most frequent values by name with their counts, the most frequent first.
        quantiles: By their share, of numbers and integers.
        histogram: Of numbers and integers.
    """

    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    count: int
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    missing: float = 0.0
    distinct: int | None = None
    is_distinct_exact: bool = True
    frequent: list[tuple[str, int]] = []
    quantiles: dict[str, float] = {}
    histogram: Histogram | None = None


class LeftOut(_Part):
    """A record that the source left out, and the rule that it broke."""

    file: str
    record: str
    rule: str


class Duplicates(_Part):
    """Samples that equal an earlier one in every feature.

    Attributes:
        count: All of them.
        examples: Of the first: the record, and the record that it repeats.
    """

    count: int = 0
    examples: list[tuple[str, str]] = []


class Inspection(_Part):
    """What was found; `data_inspection.json` holds it.

    Attributes:
        format: Of the file.
        source: `data.name`.
        total: Samples in the source.
        read: Samples that were looked at, evenly spread by position.
        target: The feature to predict.
        features: By name, in the order of the source.
        balance: Samples by class, where the target is one of several classes.
        duplicates: Among the samples that were read.
        left_out: Records that the source left out because they break its own rules.
        left_out_examples: The first of them.
        rules: What `phalanx data validate` asks of later data; to be edited.
    """

    format: Literal[1] = 1
    source: str
    total: int
    read: int
    target: str | None
    features: dict[str, FeatureValues]
    balance: dict[str, int] = Field(default={})
    duplicates: Duplicates = Duplicates()
    left_out: int = 0
    left_out_examples: list[LeftOut] = []
    rules: Rules

    @property
    def is_complete(self) -> bool:
        """Whether all samples were looked at."""
        return self.read + self.left_out >= self.total


def inspect_source(source: Source, name: str, most: int | None = None) -> Inspection:
    """Looks at the samples of a source in one pass.

    Args:
        source: What to read.
        name: `data.name`.
        most: Samples to read; without it, as `chosen_positions` says.

    Raises:
        DataError: The source cannot be read on.
    """
    schema = source.schema
    tallies = {feature: _Tally(feature, schema) for feature in schema.features}
    prints, num_read = Fingerprints(), 0
    positions = chosen_positions(schema, most)
    for part, batch in read_batches(source, positions):
        num_read += len(part)
        prints.add(batch, part)
        for feature, tally in tallies.items():
            tally.add(batch[feature])
    skipped = source.skipped.records()
    features = {feature: tally.conclude(skipped) for feature, tally in tallies.items()}
    pairs = prints.duplicates()
    examples = [(source.locate(later), source.locate(first)) for later, first in pairs[:MOST_EXAMPLES]]
    # A source in memory leaves bad records out when it is opened, any other one while it is read.
    total = schema.num_samples + (0 if source.may_skip else len(skipped))
    is_complete = len(positions) == schema.num_samples
    ranges = {feature: (values.min, values.max) for feature, values in features.items()}
    missing = {feature: values.missing > 0 for feature, values in features.items()}
    return Inspection(
        source=name,
        total=total,
        read=num_read,
        target=schema.target,
        features=features,
        balance=_balance(tallies, schema),
        duplicates=Duplicates(count=len(pairs), examples=examples),
        left_out=len(skipped),
        left_out_examples=[LeftOut(**one._asdict()) for one in skipped[:MOST_EXAMPLES]],
        rules=infer_rules(schema, ranges, missing, len(pairs) / max(num_read, 1), is_complete),
    )


def read_inspection(path: Path) -> Inspection:
    """What `data_inspection.json` holds.

    Raises:
        ValueError: There is no such file, or it holds something else.
    """
    try:
        return Inspection.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: write it with phalanx data inspect CONFIG") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): write it anew with phalanx data inspect CONFIG") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{path} does not hold an inspection ({place or 'the whole'}: {first['msg']}): correct it, or write it "
            "anew with phalanx data inspect CONFIG"
        ) from None


class _Tally:
    """Everything that is counted about one feature."""

    def __init__(self, name: str, schema: Schema) -> None:
        self.name, self.feature = name, schema.features[name]
        self.kind: Kind = kind_of(name, schema)
        self.naming = naming(name, schema)
        self.moments, self.counts, self.drawn = Moments(), ValueCounts(), Reservoir()
        self.num_values = 0

    def add(self, values: np.ndarray) -> None:
        flat = flat_values(values, self.kind)
        self.num_values += flat.size
        if self.kind != "number":
            self.counts.add(flat)
        if self.kind in ("number", "integer"):
            numbers = flat.astype(np.float64, copy=False)
            self.moments.add(numbers)
            self.drawn.add(numbers)

    def conclude(self, skipped: list[SkippedRecord]) -> FeatureValues:
        broken = [parse_rule(one.rule) for one in skipped]
        left_out = sum(one.is_missing and one.feature == self.name for one in broken)
        missing = self.moments.not_finite + (self.counts.counts.get(0, 0) if self.kind == "category" else 0)
        frequent = [] if self.kind == "number" else self.counts.most_frequent(MOST_FREQUENT)
        drawn, moments = self.drawn.values, self.moments
        has_numbers = moments.count > 0
        return FeatureValues(
            kind=self.kind,
            dtype=self.feature.dtype,
            shape=self.feature.shape,
            count=self.num_values,
            min=moments.low if has_numbers else None,
            max=moments.high if has_numbers else None,
            mean=moments.mean if has_numbers else None,
            std=moments.std if has_numbers else None,
            missing=(missing + left_out) / max(self.num_values + left_out, 1),
            distinct=None if self.kind == "number" else len(self.counts.counts.keys() - self._missing_code()),
            is_distinct_exact=self.counts.is_exact,
            frequent=[(self.naming(value), count) for value, count in frequent],
            quantiles={f"{share:g}": float(np.quantile(drawn, share)) for share in _QUANTILES} if drawn.size else {},
            histogram=_histogram(drawn, moments, self.kind == "integer") if drawn.size else None,
        )

    def _missing_code(self) -> set[int | str]:
        return {0} if self.kind == "category" else set()


def _histogram(drawn: np.ndarray, moments: Moments, is_integer: bool) -> Histogram:
    """Bins over the whole range, or, where few values lie far out, over the bulk.

    Args:
        drawn: Sorted.
        moments: Of all values.
        is_integer: Bins are then some integers wide, and their edges lie between integers.
    """
    low, high = moments.low, moments.high
    inner_low, inner_high = np.quantile(drawn, [_TAIL, 1 - _TAIL]).tolist()
    if high - low > _FAR * (inner_high - inner_low) > 0:
        low, high = inner_low, inner_high
    if is_integer:
        width = -(-(int(high) - int(low) + 1) // NUM_BINS)
        num_bins = -(-(int(high) - int(low) + 1) // width)
        edges = int(low) - 0.5 + width * np.arange(num_bins + 1)
    elif low == high:
        edges = np.array([low, np.nextafter(high, np.inf)])
    else:
        edges = np.linspace(low, high, NUM_BINS + 1)
    counts, _ = np.histogram(drawn, edges)
    below, above = int((drawn < edges[0]).sum()), int((drawn > edges[-1]).sum())
    return Histogram(
        edges=edges.tolist(), counts=counts.tolist(), below=below, above=above, is_exact=len(drawn) == moments.count
    )


def _balance(tallies: Mapping[str, _Tally], schema: Schema) -> dict[str, int]:
    """Samples of each class by name, in the order of the classes; a class without samples has 0."""
    target = tallies.get(schema.target) if schema.target else None
    if target is None or target.kind != "class":
        return {}
    return {target.naming(label): target.counts.counts.get(label, 0) for label in range(schema.num_classes or 0)}
