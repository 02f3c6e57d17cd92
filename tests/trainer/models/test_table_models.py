import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.models.example_data import COLUMNS
from trainer.config.table_models import DcnModel, WideAndDeepModel
from trainer.config.task import ClassificationTask
from trainer.data.source import Feature, Schema
from trainer.models.registry import build_model
from trainer.models.wide_and_deep import Crossing
from trainer.parameter_server.tables import tables_of
from trainer.tasks.registry import build_task

TASK = ClassificationTask()
CROSSED = WideAndDeepModel(hidden=(), dropout=0.0, embedding=1, crosses=(("a", "b"),))


def accuracy_after_training(config, features: dict[str, Feature], columns: dict[str, np.ndarray], labels) -> float:
    """On the samples that it was trained on: whether the model can express what they have in common."""
    schema = Schema({**features, "label": Feature((), "int32")}, "label", len(labels), 2)
    model = build_model(config, schema, build_task(TASK, schema), seed=0)
    inputs = {name: tf.constant(values) for name, values in columns.items()}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(0.05)
    optimizer.build(model.trainable_variables)

    @tf.function
    def train(steps: tf.Tensor) -> None:
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                value = loss(labels, model(inputs, training=True))
            optimizer.apply_gradients(
                zip(tape.gradient(value, model.trainable_variables), model.trainable_variables, strict=True)
            )

    train(tf.constant(150))
    return float(np.mean(np.argmax(model(inputs), -1) == labels))


@pytest.mark.parametrize("most", [64, 20], ids=["a weight each", "shared weights"])
def test_crossings_remember_what_columns_alone_do_not_say(most):
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 8, (2, 2000)).astype("int32")
    labels = rng.integers(0, 2, (8, 8))[a, b]
    features = {name: Feature((), "int32", num_values=8) for name in "ab"}
    config = CROSSED.model_copy(update={"cross_buckets": most})
    crossed = accuracy_after_training(config, features, {"a": a, "b": b}, labels)
    alone = accuracy_after_training(config.model_copy(update={"crosses": ()}), features, {"a": a, "b": b}, labels)
    assert crossed == 1.0 if most == 64 else alone + 0.05 < crossed < 1.0
    assert alone < 0.75


@pytest.mark.parametrize("options", [{}, {"structure": "parallel"}, {"low_rank": 1, "cross_layers": 3}], ids=str)
def test_cross_layers_multiply_columns(options):
    x, y, z, w = np.random.default_rng(0).normal(size=(4, 1000)).astype("float32")
    labels = (x * y > 0).astype("int32")
    features = {name: Feature((), "float32", mean=0.0, std=1.0) for name in "wxyz"}
    config = DcnModel(hidden=(), dropout=0.0, **options)
    assert accuracy_after_training(config, features, {"x": x, "y": y, "z": z, "w": w}, labels) > 0.95


def test_a_crossing_has_its_place_for_each_combination_and_shares_few_of_too_many():
    a, b = (values.ravel().astype("int32") for values in np.meshgrid(np.arange(300), np.arange(200)))
    exact = Crossing([300, 200], 60_000)([a, b]).numpy()
    assert exact.min() == 0 and exact.max() == 59_999 and len(np.unique(exact)) == 60_000
    layer = Crossing([300, 200], 1000)
    counts = np.bincount(layer([a, b]).numpy(), minlength=1000)
    # 60 in each on average; a hash that is as good as chance spreads with a deviation of about 8.
    assert len(counts) == 1000 and counts.std() < 12
    compiled = tf.function(lambda a, b: layer([a, b]), jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.constant(a), tf.constant(b)), layer([a, b]))


@pytest.mark.parametrize(
    ("config", "tables"),
    [(WideAndDeepModel(crosses=(("carrier", "month"),)), 5), (DcnModel(), 2)],
    ids=["wide_and_deep", "dcn"],
)
def test_of_each_table_the_rows_of_a_batch_can_travel_alone(config, tables):
    model = build_model(config, COLUMNS, build_task(TASK, COLUMNS))
    assert len(tables_of(model, lambda _: True)) == tables


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (WideAndDeepModel(crosses=(("carrier", "year"),)), r"'year', which is no category .* \(carrier, month\)"),
        (DcnModel(low_rank=8), r"model\.low_rank=8 must be below half of 13, .* null for full matrices"),
    ],
)
def test_columns_that_do_not_fit_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_model(config, COLUMNS, build_task(TASK, COLUMNS))


@pytest.mark.parametrize(
    ("crosses", "message"),
    [
        ([["a"]], r"model\.crosses has \['a'\], and a crossing is one of at least two"),
        ([["a", "b"], ["b", "a"]], r"model\.crosses has the same columns twice"),
    ],
)
def test_crossings_are_of_different_columns(crosses, message):
    with pytest.raises(ValueError, match=message):
        WideAndDeepModel.model_validate({"crosses": crosses})
