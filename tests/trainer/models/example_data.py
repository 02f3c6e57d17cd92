"""Schemas and batches that the models are tested on."""

import numpy as np
import tensorflow as tf

from trainer.data.source import Feature, Schema

LABEL = Feature((), "int32")
IMAGES = Schema({"image": Feature((28, 28, 1), "float32"), "label": LABEL}, "label", 100, 10)
SMALL_IMAGES = Schema({"image": Feature((8, 8), "float32"), "label": LABEL}, "label", 100, 10)
PHOTOGRAPHS = Schema({"image": Feature((40, 32, 3), "float32"), "label": LABEL}, "label", 100, 5)
COLUMNS = Schema(
    {
        "carrier": Feature((), "int32", vocabulary=("AA", "DL", "UA")),
        "month": Feature((), "int32", num_values=13),
        "year": Feature((), "float32", mean=2013.0, std=0.5),
        "distance": Feature((), "float32", mean=1000.0, std=700.0),
        "label": LABEL,
    },
    "label",
    100,
    2,
)
PEOPLE_AND_ITEMS = Schema(
    {
        "user_id": Feature((), "int32", vocabulary=("a", "b", "c"), num_values=4),
        "user_age": Feature((), "float32", mean=40.0, std=10.0),
        "item_id": Feature((), "int32", num_values=9),
        "log_share": Feature((), "float32", mean=-2.0, std=1.0),
        "to_find": Feature((), "int32", num_values=2),
    },
    "to_find",
    100,
)
TEXT = Schema({"tokens": Feature((17,), "int32", num_values=64)}, None, 100, 64)


def batch_of(schema: Schema, size: int = 4) -> dict[str, tf.Tensor]:
    """Random samples that keep the rules of the schema."""
    rng = np.random.default_rng(0)
    batch = {}
    for name, feature in schema.features.items():
        limit = len(feature.vocabulary) + 1 if feature.vocabulary else feature.num_values or schema.num_classes
        if feature.dtype == "int32":
            values = rng.integers(0, limit or 2, (size, *feature.shape))
        else:
            values = rng.normal(feature.mean or 0.0, feature.std or 1.0, (size, *feature.shape))
        batch[name] = tf.constant(values, feature.dtype)
    return batch
