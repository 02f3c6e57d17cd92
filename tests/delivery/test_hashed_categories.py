from pathlib import Path

import numpy as np
import tensorflow as tf

from delivery.saved_model import export_saved_model
from trainer.config.table_models import WideAndDeepModel
from trainer.config.task import ClassificationTask
from trainer.data.hashing import hashed
from trainer.data.source import Feature, Schema
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

FEATURES = {
    "country": Feature((), "int32", vocabulary=("DE", "FR"), num_values=3),
    "amount": Feature((), "float32", mean=50.0, std=20.0),
    "label": Feature((), "int32"),
}


def test_an_exported_model_hashes_names_as_training_does(tmp_path: Path):
    names = [f"shop {i}" for i in range(40)] + [""]
    numbers = hashed(tf.constant(names), 30).numpy().astype(np.int32)
    # Training has seen half of the names: for the other numbers the check of the export makes some up.
    seen = {int(number): name for number, name in zip(numbers[20:-1], names[20:-1], strict=True)}
    merchant = Feature((), "int32", num_values=31, hash_buckets=30, bucket_names=seen)
    schema = Schema({"merchant": merchant, **FEATURES}, "label", 100, 2, ("fraud", "honest"))
    task = build_task(ClassificationTask(), schema)
    config = WideAndDeepModel(hidden=(8,), crosses=(("merchant", "country"),), cross_buckets=50)
    model = build_model(config, schema, task, seed=0)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:  # the tables of the wide part are 0 at first
        variable.assign(rng.normal(size=variable.shape))
    count = len(names)
    batch = {
        "merchant": numbers,
        "country": rng.integers(0, 3, count).astype(np.int32),
        "amount": rng.normal(50, 20, count).astype(np.float32),
    }
    result = export_saved_model(model, task, schema, tmp_path / "export", batch=batch)
    served = tf.saved_model.load(str(result.path)).signatures["classify"]
    answers = served(
        merchant=tf.constant(names),
        country=tf.constant(np.array(["", "DE", "FR"])[batch["country"]]),
        amount=tf.constant(batch["amount"]),
    )
    expected = model(batch, training=False)
    assert len(np.unique(np.round(expected[:, 0], 3))) > 35
    np.testing.assert_allclose(answers["logits"], expected, rtol=1e-4, atol=1e-4)
