import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.models.example_data import COLUMNS, PEOPLE_AND_ITEMS
from tests.trainer.models.test_table_models import accuracy_after_training
from trainer.config.recommendation import DlrmModel, RetrievalTask, TwoTowerModel
from trainer.config.task import ClassificationTask
from trainer.data.source import Feature, Schema
from trainer.models.dlrm import PairProducts
from trainer.models.registry import build_model
from trainer.parameter_server.tables import tables_of
from trainer.tasks.registry import build_task


def test_the_products_are_those_of_every_pair_once():
    vectors = np.random.default_rng(0).normal(size=(5, 4, 3)).astype("float32")
    found = PairProducts()(vectors).numpy()
    expected = [[one[i] @ one[j] for i in range(4) for j in range(i)] for one in vectors]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_products_of_embeddings_say_who_likes_what():
    rng = np.random.default_rng(0)
    user, item = rng.integers(1, 12, (2, 2000)).astype("int32")
    taste = rng.normal(size=(2, 12, 2))
    labels = ((taste[0][user] * taste[1][item]).sum(-1) > 0).astype("int32")
    features = {name: Feature((), "int32", num_values=12) for name in ("user", "item")}
    config = DlrmModel(top=(), embedding=4, dropout=0.0)
    assert accuracy_after_training(config, features, {"user": user, "item": item}, labels) > 0.95


@pytest.mark.parametrize(
    ("config", "task", "schema", "tables"),
    [
        (TwoTowerModel(), RetrievalTask(), PEOPLE_AND_ITEMS, 2),
        (DlrmModel(), ClassificationTask(), COLUMNS, 2),
    ],
    ids=["two_tower", "dlrm"],
)
def test_of_each_table_the_rows_of_a_batch_can_travel_alone(config, task, schema, tables):
    model = build_model(config, schema, build_task(task, schema))
    assert len(tables_of(model, lambda _: True)) == tables


def test_a_vector_depends_on_its_own_side_alone_and_has_length_1():
    task = build_task(RetrievalTask(width=8), PEOPLE_AND_ITEMS)
    model = build_model(TwoTowerModel(dropout=0.0), PEOPLE_AND_ITEMS, task, seed=0)
    inputs = {"user_id": tf.constant([1, 1]), "user_age": tf.constant([30.0, 30.0]), "item_id": tf.constant([2, 3])}
    vectors = model(inputs).numpy()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors[0, 0], vectors[1, 0])
    assert np.abs(vectors[0, 1] - vectors[1, 1]).max() > 1e-3


ONE = Schema({"x": Feature((), "float32"), "label": Feature((), "int32")}, "label", 10, 2)
LONELY = Schema(
    {
        "user_id": Feature((), "int32", num_values=3),
        "item_id": Feature((), "int32", num_values=3),
        "price": Feature((), "float32"),
        "log_share": Feature((), "float32"),
        "to_find": Feature((), "int32"),
    },
    "to_find",
    10,
)


@pytest.mark.parametrize(
    ("config", "task", "schema", "message"),
    [
        (DlrmModel(), ClassificationTask(), ONE, r"0 categories and 1 numbers, which make 1 vector: set model\.name"),
        (TwoTowerModel(), ClassificationTask(), COLUMNS, r"output has shape \[2\]: set task\.name=retrieval"),
        (TwoTowerModel(), RetrievalTask(), LONELY, r"has no place for 'price': let its name begin with user_ or item_"),
    ],
)
def test_data_that_does_not_fit_is_refused(config, task, schema, message):
    with pytest.raises(ValueError, match=message):
        build_model(config, schema, build_task(task, schema))
