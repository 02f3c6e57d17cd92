"""Finds the source that a config names."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from trainer.config.data import DataConfig
from trainer.data.cache import CachedSource
from trainer.data.checks import DataError
from trainer.data.held_out import Split
from trainer.data.source import SAMPLE_WEIGHT, Schema, Source

OPENERS = {
    "arrays": "trainer.data.arrays:open_arrays",
    "array_record": "trainer.data.tfrecord:open_records",
    "csv": "trainer.data.tables:open_table",
    "digits": "trainer.data.packaged:open_digits",
    "flights": "trainer.data.flights:open_flights",
    "glyphs": "trainer.data.glyphs:open_glyphs",
    "images": "trainer.data.images:open_images",
    "lesions": "trainer.data.lesions:open_lesions",
    "mixture": "trainer.data.mixture:open_mixture",
    "mnist": "trainer.data.packaged:open_mnist",
    "mnist_sample": "trainer.data.packaged:open_mnist_sample",
    "movielens": "trainer.data.movielens:open_movielens",
    "parquet": "trainer.data.tables:open_table",
    "prepared": "trainer.data.prepared:open_prepared",
    "series": "trainer.data.series:open_series",
    "synthetic": "trainer.data.synthetic:open_synthetic",
    "text": "trainer.data.text:open_text",
    "tfrecord": "trainer.data.tfrecord:open_records",
    "weather": "trainer.data.weather:open_weather",
}
"""The function that opens each source, as module:function: what a source needs is imported when it is asked for."""

TFDS = "trainer.data.tfds:open_tfds"
CUSTOM = "trainer.data.custom:open_custom"


def open_source(data: DataConfig, split: Split) -> Source:
    """Opens a split of the data that a config names, cached where it says so.

    Args:
        data: The options of one source.
        split: "train" or "held_out".

    Raises:
        DataError: The data are not what the config says.
        ValueError: A package that the source needs is not installed, or the options do not go together.
    """
    source = _opener(data.name)(data, split)
    _check_names(f"data.name={data.name}", source.schema)
    if data.cache == "none" or source.in_memory:
        return source
    return CachedSource(source, data.cache_limit, on_disk=data.cache == "disk")


def _check_names(source: str, schema: Schema) -> None:
    """Refuses names of features that mean something else further on.

    Raises:
        DataError: There is such a name.
    """
    if SAMPLE_WEIGHT in schema.features:
        rule = f"a feature is named {SAMPLE_WEIGHT!r}, as the weights of samples are that are left out"
        raise DataError(source, "", rule, "give it another name, such as 'weight'")
    for name in schema.inputs:
        if "/" in name or not name:
            rule = f"the feature {name!r} {'has a / in its name' if name else 'has no name'}, so it cannot be an input"
            raise DataError(source, "", rule, "rename it, or leave it out of the inputs")


def _opener(name: str) -> Callable[[DataConfig, Split], Source]:
    if name.startswith("tfds:"):
        target = TFDS
    elif ":" in name:
        target = CUSTOM
    else:
        target = OPENERS[name]
    module, _, function = target.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if (error.name or "trainer").split(".")[0] == "trainer":
            raise
        raise ValueError(f"data.name={name} needs the package {error.name}: install phalanx[samples]") from error
