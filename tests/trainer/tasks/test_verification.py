import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from delivery.saved_model import export_saved_model
from tests.trainer.sessions import losses, small_session
from trainer.config.model import CustomModel, MlpModel
from trainer.config.verification import VerificationTask
from trainer.data.source import Feature, Schema
from trainer.models.registry import build_model
from trainer.session import Session
from trainer.tasks.registry import build_task

SCHEMA = Schema({"image": Feature((12,), "float32"), "label": Feature((), "int32")}, "label", 100, 3)


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_the_margin_is_added_to_the_angle_of_the_own_class(margin: float):
    angles = np.array([[0.3, 1.2, 2.0], [1.4, 0.2, 1.1], [0.5, 0.6, 3.0], [0.1, 1.0, 2.0]])
    labels, weights = np.array([0, 1, 2, 5], "int32"), np.array([1, 2, 1, 1], "float32")
    task = build_task(VerificationTask(width=2, margin=margin, scale=10), SCHEMA)
    outputs = np.concatenate([np.zeros((4, 2)), np.cos(angles)], 1).astype("float32")
    found, found_weights = tf.function(task.loss, jit_compile=True)(
        tf.constant(outputs), {"label": tf.constant(labels), "sample_weight": tf.constant(weights)}
    )
    expected = []
    for row, label, weight in zip(angles[:3], labels, weights, strict=False):
        own = row[label] + margin
        logits = np.cos(row)
        # The third sample is so far away that the margin would lead it round.
        logits[label] = math.cos(own) if own < math.pi else math.cos(row[label]) - margin * math.sin(margin)
        expected.append(weight * (np.log(np.exp(10 * logits).sum()) - 10 * logits[label]))
    np.testing.assert_allclose(found, [*expected, 0.0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found_weights, [1, 2, 1, 0])


def test_the_nearest_centre_of_a_class_counts():
    task = build_task(VerificationTask(width=4, sub_centres=2), SCHEMA)
    model = build_model(MlpModel(hidden=(), dropout=0.0), SCHEMA, task)
    outputs = model(tf.random.normal([5, 12])).numpy()
    centres = model.get_layer("class_centres").centres.numpy()
    cosines = outputs[:, :4] @ (centres / np.linalg.norm(centres, axis=0))
    np.testing.assert_allclose(np.linalg.norm(outputs[:, :4], axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(outputs[:, 4:], cosines.reshape(5, 2, 3).max(1), rtol=1e-5, atol=1e-6)


def subclassed(schema: Schema) -> keras.Model:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return self.dense(inputs)

    return Own()


def test_a_model_of_the_users_own_gets_centres_too():
    task = build_task(VerificationTask(width=4), SCHEMA)
    model = build_model(CustomModel(name=f"{__name__}:subclassed"), SCHEMA, task)
    assert model.output_shape == (None, 7) and task.served(model).output_shape == (None, 4)


@pytest.fixture(scope="module")
def before_and_after() -> tuple[dict[str, float], Session]:
    session = small_session(
        model={"name": "mlp", "hidden": [64], "dropout": 0.0},
        task={"name": "verification", "width": 16, "margin": 0.2, "scale": 16},
        data={"name": "glyphs", "batch_size": 128, "held_out_fraction": 0.1},
        optimizer={"name": "adam", "learning_rate": 0.005},
        train={"steps": 120},
        evaluate={"every": "1ep", "batch_size": 50},
    )
    assert session.evaluator is not None
    before = session.evaluator.measure()
    losses(session, 120, 120)
    return before, session


@pytest.fixture(scope="module")
def trained(before_and_after: tuple[dict[str, float], Session]) -> Session:
    return before_and_after[1]


def test_letters_that_training_never_saw_are_told_apart(before_and_after: tuple[dict[str, float], Session]):
    before, session = before_and_after
    assert session.evaluator is not None
    found = session.evaluator.measure()
    assert found["auc"] > before["auc"] + 0.02 and found["tar_at_far_0.01"] > before["tar_at_far_0.01"] + 0.1, before
    assert not {"loss", "class_accuracy"} & found.keys()  # no centre was trained for them


def test_the_export_has_no_centres(trained: Session, tmp_path: Path):
    assert trained.evaluator is not None
    batch = trained.evaluator.source.read(tf.range(6, dtype=tf.int64))
    result = export_saved_model(trained.model, trained.task, trained.schema, tmp_path, batch=batch)
    assert set(result.signatures) == {"serving_default", "embed", "embed_tensors"}
    loaded = tf.saved_model.load(str(result.path))
    assert not any("centre" in variable.name for variable in loaded.trainable)
    answer = loaded.signatures["embed_tensors"](image=batch["image"])
    assert answer.keys() == {"embedding"}
    np.testing.assert_allclose(answer["embedding"], trained.model(batch["image"])[:, :16], atol=1e-5)


def test_data_without_classes_is_refused():
    schema = Schema({"x": Feature((3,), "float32"), "y": Feature((), "float32")}, "y", 10)
    with pytest.raises(ValueError, match=r"task\.name=verification needs one class for each sample"):
        build_task(VerificationTask(), schema)
