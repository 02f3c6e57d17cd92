"""The source `mixture`: several sources of one schema, one after the other; `MixtureOrder` says which share of each.

Shape legend: B batch, S sources.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.config.data import DataConfig
from trainer.config.mixture import MixtureData
from trainer.data.checks import DataError
from trainer.data.held_out import Split
from trainer.data.mixture_order import MixtureOrder
from trainer.data.order import SampleOrder
from trainer.data.source import SAMPLE_WEIGHT, Feature, Redrawn, Schema, SkippedRecord, SkippedRecords, Source


class JoinedRecords(SkippedRecords):
    """The records that several sources left out, each with a bound of its own."""

    def __init__(self, parts: Sequence[SkippedRecords]):
        super().__init__(sum(part.limit for part in parts))
        self._parts = tuple(parts)

    def records(self) -> list[SkippedRecord]:
        """What was skipped so far, sorted."""
        return sorted({record for part in self._parts for record in part.records()})

    def __len__(self) -> int:
        return sum(map(len, self._parts))


class MixtureSource:
    """Sources one after the other: the samples of the second one begin where those of the first one end.

    Args:
        sources: With equal schemas but for their lengths and scales.
        names: Of the sources, for messages.
        shares: Of each source in what is learned from, for the mean and the deviation of numbers.

    Raises:
        DataError: The schemas differ.
        ValueError: A source draws something of each sample anew.
    """

    def __init__(self, sources: Sequence[Source], names: Sequence[str], shares: Sequence[float]):
        for number, source in enumerate(sources):
            if isinstance(source, Redrawn):
                raise ValueError(
                    f"data.sources[{number}] ({names[number]}) draws something of each sample anew, which a mixture "
                    "cannot pass on: train on it alone"
                )
        self.sources, self._names = tuple(sources), tuple(names)
        self.schema = joined_schema([source.schema for source in sources], names, shares)
        self.skipped = JoinedRecords([source.skipped for source in sources])
        self.in_memory = all(source.in_memory for source in sources)
        self.may_skip = any(source.may_skip for source in sources)
        self._ends = np.cumsum([source.schema.num_samples for source in sources])

    @property
    def lengths(self) -> tuple[int, ...]:
        """Samples in each source."""
        return tuple(source.schema.num_samples for source in self.sources)

    def progress(self, drawn: Sequence[int]) -> str:
        """How many samples were drawn from each source, and how often that is all that it has, for people."""
        parts = (
            f"{count:,} of {name} ({count / length:.2f} times all of it)"
            for count, name, length in zip(drawn, self._names, self.lengths, strict=True)
        )
        return f"samples of the mixture: {'; '.join(parts)}"

    @property
    def failure(self) -> DataError | None:
        """The error that ended a read of one of the sources."""
        return next((source.failure for source in self.sources if source.failure is not None), None)

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads the samples at `index`, int64 [B]: of each source its own, put together in the order of `index`."""
        which = tf.searchsorted(tf.constant(self._ends, tf.int64), index, side="right")
        rows = [tf.cast(tf.where(which == number)[:, 0], tf.int32) for number in range(len(self.sources))]
        parts = []
        for source, end, own in zip(self.sources, self._ends.tolist(), rows, strict=True):
            parts.append(self._read_one(source, tf.gather(index, own) - (end - source.schema.num_samples)))
        batch = {}
        for name, values in parts[0].items():
            stitched = tf.dynamic_stitch(rows, [part[name] for part in parts])
            batch[name] = tf.ensure_shape(stitched, [index.shape[0], *values.shape[1:]])
        return batch

    def locate(self, index: int) -> str:
        """Names the place of a sample for a message."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        source = self.sources[number]
        return source.locate(index - (int(self._ends[number]) - source.schema.num_samples))

    def _read_one(self, source: Source, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads from one source, which is not asked where nothing is wanted: not every source reads nothing."""

        def read() -> dict[str, tf.Tensor]:
            batch = dict(source.read(index))
            if self.may_skip:
                batch.setdefault(SAMPLE_WEIGHT, tf.ones(tf.shape(index)))
            return {name: tf.ensure_shape(batch[name], [None, *shape]) for name, (shape, _) in layout.items()}

        def nothing() -> dict[str, tf.Tensor]:
            return {name: tf.zeros([0, *shape], dtype) for name, (shape, dtype) in layout.items()}

        layout = {name: (feature.shape, feature.dtype) for name, feature in self.schema.features.items()}
        if self.may_skip:
            layout[SAMPLE_WEIGHT] = ((), "float32")
        return read() if source.in_memory else tf.cond(tf.size(index) > 0, read, nothing)


def open_mixture(data: MixtureData, split: Split) -> MixtureSource:
    """Opens a split of all sources; what is held out is that of all of them, one after the other.

    Raises:
        DataError: The data of a source are not what the config says, or the schemas differ.
        ValueError: A source cannot be mixed.
    """
    from trainer.data.registry import open_source

    names = [f"data.sources[{number}], {one.data.name}" for number, one in enumerate(data.sources)]
    sources = [open_source(one.data, split) for one in data.sources]
    return MixtureSource(sources, names, data.phases[0][1])


def sample_order(data: DataConfig, source: Source, seed: int) -> SampleOrder:
    """The order in which a training takes the samples of a source."""
    if isinstance(data, MixtureData) and isinstance(source, MixtureSource):
        return MixtureOrder(
            sum(source.lengths), data.batch_size, seed, data.shuffle, "drop", source.lengths, data.phases
        )
    return SampleOrder(source.schema.num_samples, data.batch_size, seed, data.shuffle, data.remainder)


def joined_schema(schemas: Sequence[Schema], names: Sequence[str], shares: Sequence[float]) -> Schema:
    """The schema of all sources together: that of the first, with all samples and the scale of the mixture.

    Raises:
        DataError: Another source has other features, types, shapes, vocabularies or classes.
    """
    first = schemas[0]
    for schema, name in zip(schemas[1:], names[1:], strict=True):
        if difference := _difference(first, schema):
            rule = f"it differs from {names[0]} in {difference}, and the sources of a mixture must have one schema"
            raise DataError(name, "", rule, "give all sources the same features, categories and classes")
    features = {}
    for name, feature in first.features.items():
        same = [schema.features[name] for schema in schemas]
        features[name] = dataclasses.replace(feature, num_values=_num_values(same), **_scale(same, shares))
    return dataclasses.replace(first, features=features, num_samples=sum(schema.num_samples for schema in schemas))


def _difference(one: Schema, other: Schema) -> str | None:
    """What two schemas do not share, in words; None where they can be mixed."""
    if one.features.keys() != other.features.keys():
        return f"its features ({', '.join(one.features)}; {', '.join(other.features)})"
    for name, feature in one.features.items():
        theirs = other.features[name]
        for part in ("shape", "dtype", "vocabulary", "hash_buckets", "separator", "continues"):
            if (a := getattr(feature, part)) != (b := getattr(theirs, part)):
                shown = "" if part == "vocabulary" else f" ({a}; {b})"
                return f"the {part.replace('_', ' ')} of {name!r}{shown}"
        if (feature.num_values is None) != (theirs.num_values is None):
            return f"the bounds of {name!r} ({feature.num_values}; {theirs.num_values})"
    for part in ("target", "num_classes", "class_names"):
        if (a := getattr(one, part)) != (b := getattr(other, part)):
            return f"{part.replace('_', ' ')} ({a}; {b})"
    return None


def _num_values(features: Sequence[Feature]) -> int | None:
    return max((feature.num_values for feature in features if feature.num_values is not None), default=None)


def _scale(features: Sequence[Feature], shares: Sequence[float]) -> dict[str, float | None]:
    """Mean and deviation of numbers that are drawn from several sources by their shares."""
    known = [(f.mean, f.std, share) for f, share in zip(features, shares, strict=True) if f.mean is not None and f.std]
    total = sum(share for _, _, share in known)
    if len(known) < len(features) or not total:
        return {"mean": features[0].mean, "std": features[0].std}
    mean = sum(mean * share for mean, _, share in known) / total
    variance = sum((std**2 + (own - mean) ** 2) * share for own, std, share in known) / total
    return {"mean": mean, "std": variance**0.5}
