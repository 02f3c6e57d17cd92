import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.models.example_data import (
    COLUMNS,
    IMAGES,
    PEOPLE_AND_ITEMS,
    PHOTOGRAPHS,
    SMALL_IMAGES,
    TEXT,
    batch_of,
)
from trainer.config.model import CnnModel, MlpModel, ResnetModel, TabularModel, TransformerLmModel
from trainer.config.recommendation import DlrmModel, RetrievalTask, TwoTowerModel
from trainer.config.table_models import DcnModel, WideAndDeepModel
from trainer.config.task import ClassificationTask, LanguageModellingTask, RegressionTask
from trainer.data.source import Feature, Schema
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

CLASSES, TOKENS = ClassificationTask(), LanguageModellingTask()
CASES = {
    "mlp": (MlpModel(), IMAGES, CLASSES),
    "cnn": (CnnModel(), IMAGES, CLASSES),
    "cnn_without_channel": (CnnModel(), SMALL_IMAGES, CLASSES),
    "resnet18": (ResnetModel(depth=18), PHOTOGRAPHS, CLASSES),
    "resnet50": (ResnetModel(depth=50), PHOTOGRAPHS, CLASSES),
    "tabular": (TabularModel(), COLUMNS, CLASSES),
    "wide_and_deep": (WideAndDeepModel(crosses=(("carrier", "month"),)), COLUMNS, CLASSES),
    "dcn": (DcnModel(low_rank=2), COLUMNS, CLASSES),
    "two_tower": (TwoTowerModel(), PEOPLE_AND_ITEMS, RetrievalTask(width=8)),
    "dlrm": (DlrmModel(), COLUMNS, CLASSES),
    "transformer_lm": (TransformerLmModel(layers=2, width=32, heads=2), TEXT, TOKENS),
    "transformer_lm_rotary": (
        TransformerLmModel(layers=2, width=32, heads=2, positions="rotary", tie_embedding=False),
        TEXT,
        TOKENS,
    ),
    "transformer_lm_grouped": (TransformerLmModel(layers=1, width=32, heads=4, kv_heads=2), TEXT, TOKENS),
}
# By hand: weights and biases of each layer, without the seeds of the dropout layers.
PARAMETERS = {
    "mlp": (784 + 1) * 128 + (128 + 1) * 10,
    "cnn": 10 * 32 + (9 * 32 + 1) * 64 + (7 * 7 * 64 + 1) * 128 + 129 * 10,
    "cnn_without_channel": 10 * 32 + (9 * 32 + 1) * 64 + (2 * 2 * 64 + 1) * 128 + 129 * 10,
    "tabular": 4 * 3 + 13 * 8 + (3 + 8 + 2 + 1) * 128 + 129 * 64 + 65 * 2,
    "wide_and_deep": 2 * (4 + 13 + 4 * 13 + 2) + 4 * 3 + 13 * 8 + (3 + 8 + 2 + 1) * 128 + 129 * 64 + 65 * 2,
    "dcn": 4 * 3 + 13 * 8 + 2 * (13 * 2 + 2 * 13 + 13) + (13 + 1) * 128 + 129 * 64 + 65 * 2,
    "two_tower": 4 * 3 + (3 + 1 + 1) * 64 + 65 * 8 + 9 * 8 + (8 + 1) * 64 + 65 * 8,
    "dlrm": (4 + 13) * 16 + 3 * 32 + 33 * 16 + (16 + 3 + 1) * 64 + 65 * 32 + 33 * 2,
    "transformer_lm": (64 + 16) * 32 + 2 * (2 * 64 + 33 * 96 + 33 * 32 + 33 * 128 + 129 * 32) + 64,
    "transformer_lm_rotary": 2 * 64 * 32 + 2 * (2 * 64 + 33 * 96 + 33 * 32 + 33 * 128 + 129 * 32) + 64,
    "transformer_lm_grouped": (64 + 16) * 32 + 2 * 64 + 33 * 64 + 33 * 32 + 33 * 128 + 129 * 32 + 64,
}


def built(case: str, **keys):
    config, schema, task_config = CASES[case]
    task = build_task(task_config, schema)
    return build_model(config, schema, task, **keys), task, batch_of(schema)


def trainable_parameters(model: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize("case", PARAMETERS)
def test_number_of_parameters(case):
    model, *_ = built(case)
    assert trainable_parameters(model) == PARAMETERS[case]


@pytest.mark.parametrize(
    ("depth", "published"),
    # Of torchvision (18, 34) and of keras.applications (50), for 1,000 classes, without moving statistics.
    [(18, 11_689_512), (34, 21_797_672), (50, 25_636_712 - 53_120)],
)
def test_resnets_have_the_published_number_of_parameters(depth, published):
    features = {"image": Feature((224, 224, 3), "float32"), "label": Feature((), "int32")}
    schema = Schema(features, "label", 1, 1000)
    model = build_model(ResnetModel(depth=depth), schema, build_task(CLASSES, schema))
    assert trainable_parameters(model) == published


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("resnet")])
def test_forward_and_backward_compile(case, precision):
    model, task, batch = built(case, precision=precision)
    trainable = [v.value for v in model.trainable_variables]

    @tf.function(jit_compile=True)
    def gradients(trainable, non_trainable, batch):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            outputs = model.stateless_call(trainable, non_trainable, task.inputs(batch), training=True)[0]
            loss = tf.reduce_sum(task.loss(outputs, batch)[0])
        return (
            outputs,
            [tf.convert_to_tensor(g) for g in tape.gradient(loss, trainable)],
            task.metric_sums(outputs, batch),
        )

    outputs, found, _ = gradients(trainable, [v.value for v in model.non_trainable_variables], batch)
    assert outputs.dtype == tf.float32 and outputs.shape == (4, *task.output_shape)
    assert all(np.isfinite(g).all() for g in found)
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert sum(np.any(g) for g in found) >= len(found) - 1  # an embedding of one number may have gradient 0


@pytest.mark.parametrize("case", ["resnet18", "resnet50"])
def test_resnets_have_a_gradient_that_xla_accepts(case):
    # Lowered but not compiled to machine code, which takes half a minute.
    model, task, batch = built(case)
    trainable = [v.value for v in model.trainable_variables]

    @tf.function(jit_compile=True)
    def gradients(trainable, non_trainable, batch):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            outputs = model.stateless_call(trainable, non_trainable, task.inputs(batch), training=True)[0]
            loss = tf.reduce_sum(task.loss(outputs, batch)[0])
        return tape.gradient(loss, trainable)

    values = [tf.identity(v) for v in trainable], [tf.identity(v.value) for v in model.non_trainable_variables]
    lowered = gradients.experimental_get_compiler_ir(*values, batch)(stage="hlo")
    assert "convolution(" in lowered


@pytest.mark.parametrize("case", ["mlp", "cnn", "tabular", "transformer_lm"])
def test_mixed_precision_computes_in_16_bits_and_leaves_no_trace(case):
    model, task, batch = built(case, precision="mixed_bfloat16", seed=1)
    plain, *_ = built(case, precision="float32", seed=1)
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in model.layers if layer.weights} == {"bfloat16"}
    outputs, exact = (m(task.inputs(batch), training=False).numpy() for m in (model, plain))
    assert outputs.dtype == np.float32 and not np.array_equal(outputs, exact)
    np.testing.assert_allclose(outputs, exact, atol=0.03 * np.abs(exact).max())


def test_precision_is_put_back_after_an_error():
    with pytest.raises(ValueError, match=r"model\.name=cnn takes images"):
        build_model(CnnModel(), COLUMNS_OF_NUMBERS, build_task(CLASSES, COLUMNS_OF_NUMBERS), "mixed_float16")
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("case", CASES)
def test_names_do_not_depend_on_what_was_built_before(case):
    first, *_ = built(case)
    keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.1), keras.layers.BatchNormalization()])
    second, *_ = built(case)
    paths = [v.path for v in first.variables]
    assert paths == [v.path for v in second.variables] and len(set(paths)) == len(paths)


def test_building_leaves_the_names_of_other_layers_alone():
    before = keras.layers.Dense(3).name
    built("mlp")
    assert keras.layers.Dense(3).name != before


def test_seed_decides_the_weights():
    def weights(seed: int) -> list[np.ndarray]:
        return [v.numpy() for v in built("tabular", seed=seed)[0].trainable_variables]

    assert all(np.array_equal(a, b) for a, b in zip(weights(3), weights(3), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(weights(3), weights(4), strict=True))


# First outputs for the batch of example_data and seed 0: a change means that old runs cannot be repeated.
GOLDEN = {
    "mlp": [0.655139, -2.75843, 2.40578, 0.715365],
    "cnn": [0.20405, -0.229654, -0.114893, -0.56306],
    "tabular": [-0.0775204, -0.033826, -0.18106, -0.299106],
    "transformer_lm": [-0.00705512, 0.0301716, -0.142898, 0.12104],
    "transformer_lm_rotary": [0.209443, 0.0595539, -0.017293, -0.115369],
    "resnet18": [-1.13094, -0.730994, -0.423622, 0.184199],
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_outputs(case):
    model, task, batch = built(case, seed=0)
    outputs = model(task.inputs(batch), training=False).numpy()
    np.testing.assert_allclose(outputs.reshape(-1)[:4], GOLDEN[case], rtol=1e-4, atol=1e-6)


def test_regression_has_one_output_for_each_number():
    schema = Schema({"x": Feature((3,), "float32"), "y": Feature((2,), "float32")}, "y", 10)
    model = build_model(MlpModel(hidden=()), schema, build_task(RegressionTask(), schema))
    assert model.output_shape == (None, 2)


COLUMNS_OF_NUMBERS = Schema({"x": Feature((3,), "float32"), "label": Feature((), "int32")}, "label", 10, 2)


@pytest.mark.parametrize(
    ("config", "schema", "message"),
    [
        (MlpModel(), COLUMNS, r"takes one feature of numbers, but the data has 4 features: set model\.name=tabular"),
        (CnnModel(), COLUMNS_OF_NUMBERS, r"'x' has shape \[3\]: set model\.name=mlp"),
        (
            CnnModel(filters=(8, 8, 8, 8)),
            SMALL_IMAGES,
            r"halves the image 4 times, but its smaller side is 8 .* out 1 of",
        ),
        (ResnetModel(), SMALL_IMAGES, r"at least 32 pixels a side, but it has 8 x 8: set model\.input_size=32"),
        (TransformerLmModel(), IMAGES, r"'image' of shape \[28, 28, 1\]: set task\.name=language_modelling"),
    ],
)
def test_data_that_does_not_fit_is_refused(config, schema, message):
    with pytest.raises(ValueError, match=message):
        build_model(config, schema, build_task(CLASSES, schema))
