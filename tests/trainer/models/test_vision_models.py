import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.models.example_data import IMAGES, PHOTOGRAPHS, SMALL_IMAGES, batch_of
from trainer.config.task import ClassificationTask
from trainer.config.vision_models import ConvNextModel, EfficientNetV2Model, MobileNetV3Model, VitModel
from trainer.data.source import Feature, Schema
from trainer.models.building import building
from trainer.models.registry import build_model
from trainer.models.vit import Patches
from trainer.tasks.registry import build_task

CLASSES = ClassificationTask()
LABEL = Feature((), "int32")
IMAGENET = Schema({"image": Feature((224, 224, 3), "float32"), "label": LABEL}, "label", 1, 1000)
SMALL_VIT = VitModel(patch=4, layers=2, width=16, heads=2)
NETWORKS = {
    "mobilenet_v3": MobileNetV3Model(),
    "efficientnet_v2": EfficientNetV2Model(),
    "convnext": ConvNextModel(variant="atto", drop_path=0.5),
}


def built(config, schema, **keys):
    task = build_task(CLASSES, schema)
    return build_model(config, schema, task, **keys), task


@pytest.mark.parametrize(
    ("config", "published"),
    [
        # Of torchvision, and of timm for B0: trainable weights with 1,000 classes.
        (MobileNetV3Model(variant="small"), 2_542_856),
        (MobileNetV3Model(variant="large"), 5_483_032),
        (EfficientNetV2Model(variant="b0"), 7_139_704),
        (ConvNextModel(variant="tiny"), 28_589_128),
        (VitModel(patch=16, layers=12, width=768, heads=12), 86_567_656),
    ],
)
def test_the_number_of_parameters_is_the_published_one(config, published):
    model, _ = built(config, IMAGENET)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == published


@pytest.fixture(scope="module")
def grey_networks():
    """On images of one channel and two classes, where the published ones have three and a thousand."""
    schema = Schema({"image": Feature((28, 28, 1), "float32"), "label": LABEL}, "label", 10, 2)
    return {
        name: (*built(config.model_copy(update={"input_size": 32}), schema), schema)
        for name, config in NETWORKS.items()
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_take_any_channels_and_classes_and_every_weight_has_a_gradient(grey_networks, name):
    model, task, schema = grey_networks[name]
    batch = batch_of(schema)
    trainable = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(trainable)
        non_trainable = [v.value for v in model.non_trainable_variables]
        outputs = model.stateless_call(trainable, non_trainable, task.inputs(batch), training=True)[0]
        loss = tf.reduce_sum(task.loss(outputs, batch)[0])
    assert outputs.shape == (4, 2) and outputs.dtype == tf.float32
    gradients = tape.gradient(loss, trainable)
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_layers_that_are_left_out_at_random_train_in_16_bits(precision):
    schema = Schema({"image": Feature((32, 32, 3), "float32"), "label": LABEL}, "label", 10, 2)
    model, task = built(NETWORKS["convnext"], schema, precision=precision)
    outputs = model(task.inputs(batch_of(schema)), training=True)
    assert outputs.dtype == tf.float32 and np.isfinite(outputs).all()
    assert {"bfloat16", "float16"} & {layer.compute_dtype for layer in model.layers}


@pytest.mark.parametrize("name", NETWORKS)
def test_names_do_not_depend_on_what_was_built_before(grey_networks, name):
    model, _, schema = grey_networks[name]
    keras.Sequential([keras.layers.Dense(3), keras.layers.LayerNormalization(), keras.layers.BatchNormalization()])
    again, _ = built(NETWORKS[name].model_copy(update={"input_size": 32}), schema)
    paths = [v.path for v in model.variables]
    assert paths == [v.path for v in again.variables] and len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    ("config", "publisher"),
    [
        (MobileNetV3Model(), keras.applications.MobileNetV3Small),
        (EfficientNetV2Model(), keras.applications.EfficientNetV2B0),
        (ConvNextModel(variant="tiny"), keras.applications.ConvNeXtTiny),
    ],
)
def test_weights_of_keras_applications_give_the_same_features(config, publisher):
    # What a warm start from a published .keras file relies on: names, shapes and the scale of the images.
    model, _ = built(config, PHOTOGRAPHS)
    with building("float32", None):  # names that do not depend on what other tests have built
        published = publisher(include_top=False, weights=None, input_shape=(40, 32, 3), pooling="avg")
    ours = {v.path: v for v in model.variables}
    rng = np.random.default_rng(0)
    loaded = 0
    for variable in published.variables:
        if variable.path in ours:
            values = np.abs(variable.numpy() + rng.normal(0, 0.01, variable.shape))
            variable.assign(values)
            ours[variable.path].assign(values)
            loaded += 1
    assert len(published.variables) - loaded <= 4  # constants of its own scaling
    images = rng.random((2, 40, 32, 3)).astype("float32")
    pooled = next(layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D))
    theirs = next(layer for layer in published.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D))
    features = keras.Model(model.inputs[0], pooled.output)(images, training=False)
    expected = keras.Model(published.inputs[0], theirs.output)(images * 255, training=False)
    np.testing.assert_allclose(features, expected, rtol=1e-2, atol=1e-4)


def test_momentum_reaches_every_batch_normalisation():
    model, _ = built(MobileNetV3Model(momentum=0.5), PHOTOGRAPHS)
    found = [layer.momentum for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(found) > 20 and set(found) == {0.5}


def test_patches_are_cut_row_by_row():
    image = np.arange(4 * 6 * 2, dtype=np.float32).reshape(1, 4, 6, 2)
    patches = Patches(2)(image).numpy()
    assert patches.shape == (1, 6, 8)
    assert patches[0, 0].tolist() == image[0, :2, :2].reshape(-1).tolist()
    assert patches[0, 4].tolist() == image[0, 2:, 2:4].reshape(-1).tolist()


@pytest.mark.parametrize(("pooling", "precision"), [("token", "float32"), ("mean", "mixed_bfloat16")])
def test_the_transformer_compiles_forward_and_backward(pooling, precision):
    model, task = built(SMALL_VIT.model_copy(update={"pooling": pooling, "layers": 1}), IMAGES, precision=precision)
    batch = batch_of(IMAGES)

    @tf.function(jit_compile=True)
    def gradients(trainable, non_trainable, batch):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            outputs = model.stateless_call(trainable, non_trainable, task.inputs(batch), training=True)[0]
            loss = tf.reduce_sum(task.loss(outputs, batch)[0])
        return outputs, tape.gradient(loss, trainable)

    values = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
    outputs, found = gradients(*values, batch)
    assert outputs.shape == (4, 10) and outputs.dtype == tf.float32
    assert all(np.isfinite(g).all() for g in found)


def test_the_transformer_knows_where_its_patches_are():
    model, _ = built(SMALL_VIT, IMAGES, seed=0)
    positions = next(v for v in model.variables if v.path.startswith("position_embedding"))
    images = np.random.default_rng(0).random((1, 28, 28, 1)).astype("float32")
    shuffled = images.reshape(1, 7, 4, 28, 1)[:, ::-1].reshape(1, 28, 28, 1)
    assert not np.allclose(model(images), model(shuffled), atol=1e-6)
    positions.assign(np.zeros(positions.shape))
    np.testing.assert_allclose(model(images), model(shuffled), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "schema", "message"),
    [
        (MobileNetV3Model(), SMALL_IMAGES, r"mobilenet_v3 halves .* has 8 x 8: set model\.input_size=32"),
        (EfficientNetV2Model(), IMAGES, r"efficientnet_v2 halves .* has 28 x 28: set model\.input_size=32"),
        (ConvNextModel(), IMAGES, r"convnext halves .* has 28 x 28: set model\.input_size=32"),
        (VitModel(), IMAGES, r"model\.patch=16 must divide .* 28 x 28: .* set model\.input_size=32"),
    ],
)
def test_images_that_do_not_fit_are_refused(config, schema, message):
    with pytest.raises(ValueError, match=message):
        built(config, schema)


def test_heads_that_do_not_share_the_width_are_refused():
    with pytest.raises(ValueError, match=r"model\.width=30 must be a multiple of model\.heads=4: set model\.width=32"):
        VitModel(width=30, heads=4)
