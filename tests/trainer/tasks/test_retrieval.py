from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.data.ratings import write_ratings
from tests.trainer.sessions import losses, small_session
from trainer.config.recommendation import RetrievalTask
from trainer.data.source import Feature, Schema
from trainer.session import Session
from trainer.tasks.registry import build_task

SCHEMA = Schema(
    {
        "user_id": Feature((), "int32", num_values=9),
        "item_id": Feature((), "int32", num_values=9),
        "log_share": Feature((), "float32"),
        "to_find": Feature((), "int32", num_values=2),
    },
    "to_find",
    100,
)


def test_the_loss_is_a_corrected_softmax_over_the_other_items_of_the_batch():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 2, 4)).astype("float32")
    items = np.array([1, 2, 3, 1, 5, 6], "int32")
    shares = np.log(rng.uniform(0.05, 0.4, 9)).astype("float32")[items]
    weights = np.array([1, 1, 2, 1, 1, 0], "float32")
    expected = []
    for i in range(6):
        # Nobody is told that an item is wrong because somebody else has it too, nor to avoid padding.
        others = [j for j in range(6) if j == i or (items[j] != items[i] and weights[j] > 0)]
        logits = vectors[i, 0] @ vectors[others, 1].T / 0.5 - shares[others]
        expected.append(weights[i] * (np.log(np.exp(logits).sum()) - logits[others.index(i)]))
    batch = {"item_id": items, "log_share": shares, "sample_weight": weights}
    task = build_task(RetrievalTask(width=4, temperature=0.5), SCHEMA)
    compiled = tf.function(task.loss, jit_compile=True)
    found, loss_weights = compiled(tf.constant(vectors), {name: tf.constant(one) for name, one in batch.items()})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(loss_weights, weights)


def test_data_without_people_and_items_is_refused():
    schema = Schema({"x": Feature((), "float32"), "label": Feature((), "int32")}, "label", 10, 2)
    with pytest.raises(ValueError, match=r"task\.name=retrieval needs .* but the data lacks user_id"):
        build_task(RetrievalTask(), schema)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """On people who like either odd or even films."""
    folder: Path = write_ratings(tmp_path_factory.mktemp("ratings") / "small")
    session = small_session(
        model={"name": "two_tower", "hidden": [16], "embedding": 8, "dropout": 0.0},
        task={"name": "retrieval", "width": 8, "k": [5, 12]},
        data={"name": "movielens", "path": str(folder), "batch_size": 24},
        optimizer={"name": "adam", "learning_rate": 0.02},
        train={"steps": 100},
        evaluate={"every": "1ep", "batch_size": 37},
    )
    losses(session, 100, 100)
    return session


def test_who_likes_what_is_learned_from_who_watched_what(trained: Session):
    assert trained.evaluator is not None
    found = trained.evaluator.measure()
    # Of the 20 films of somebody's group, 8 are known. Who knows the groups lists the other 12 first.
    assert found["recall_12"] > 0.8 > found["popular_recall_12"] + 0.3
    assert {"batch_accuracy", "ndcg_5"} < found.keys()


def test_metrics_are_those_of_all_items_without_what_is_known(trained: Session):
    assert trained.evaluator is not None
    batch = trained.evaluator.source.read(tf.range(trained.evaluator.source.schema.num_samples, dtype=tf.int64))
    vectors = trained.model({name: batch[name] for name in trained.task.input_features}, training=False).numpy()
    user, item, wanted = (batch[name].numpy() for name in ("user_id", "item_id", "to_find"))
    of_item = {int(number): vectors[row, 1] for row, number in enumerate(item)}
    recalls = []
    for person in sorted(set(user) - {0}):
        to_find = set(item[(user == person) & (wanted == 1)])
        known = set(item[(user == person) & (wanted == 0)])
        vector = vectors[np.flatnonzero(user == person)[0], 0]
        allowed = sorted((number for number in of_item if number not in known), key=lambda n: -vector @ of_item[n])
        recalls.append(len(to_find & set(allowed[:5])) / len(to_find))
    assert trained.evaluator.measure()["recall_5"] == pytest.approx(np.mean(recalls))
