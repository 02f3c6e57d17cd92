from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from delivery.saved_model import export_saved_model
from delivery.shrink.reference import Reference
from trainer.config.recommendation import RetrievalTask, TwoTowerModel
from trainer.data.source import Feature, Schema
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

SCHEMA = Schema(
    {
        "user_id": Feature((), "int32", vocabulary=("ann", "bob", "cy"), num_values=4),
        "item_id": Feature((), "int32", vocabulary=("alien", "brazil"), num_values=3),
        "item_genres": Feature((3,), "float32"),
        "log_share": Feature((), "float32"),
        "to_find": Feature((), "int32", num_values=2),
    },
    "to_find",
    100,
)


def test_an_exported_pair_of_towers_answers_names_with_vectors(tmp_path: Path):
    task = build_task(RetrievalTask(width=4), SCHEMA)
    model = build_model(TwoTowerModel(hidden=(8,)), SCHEMA, task, seed=0)
    rng = np.random.default_rng(0)
    batch = {
        "user_id": rng.integers(0, 4, 12).astype(np.int32),
        "item_id": rng.integers(0, 3, 12).astype(np.int32),
        "item_genres": rng.integers(0, 2, (12, 3)).astype(np.float32),
        "log_share": np.zeros(12, np.float32),
        "to_find": np.ones(12, np.int32),
    }
    result = export_saved_model(model, task, SCHEMA, tmp_path / "export", batch=batch)
    served = tf.saved_model.load(str(result.path)).signatures["predict"]
    answers = served(
        user_id=tf.constant(np.array(["", "ann", "bob", "cy"])[batch["user_id"]]),
        item_id=tf.constant(np.array(["", "alien", "brazil"])[batch["item_id"]]),
        item_genres=tf.constant(batch["item_genres"]),
    )
    vectors = model({name: batch[name] for name in task.input_features}, training=False).numpy()
    np.testing.assert_allclose(answers["user"], vectors[:, 0], atol=1e-5)
    np.testing.assert_allclose(answers["item"], vectors[:, 1], atol=1e-5)
    np.testing.assert_allclose(answers["score"], (vectors[:, 0] * vectors[:, 1]).sum(-1), atol=1e-5)


def test_vectors_are_not_shrunk_because_no_one_figure_judges_them():
    reference = Reference.__new__(Reference)
    reference.task = build_task(RetrievalTask(width=4), SCHEMA)
    reference._batch = {"item_id": tf.constant([1, 2]), "log_share": tf.zeros(2)}
    with pytest.raises(ValueError, match=r"judged by one of accuracy, .* the run's task reports batch_accuracy"):
        reference.quality_of(np.ones((2, 2, 4), np.float32))
