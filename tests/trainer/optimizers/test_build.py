import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from launch.config import load_config
from trainer.config.optimizer import OptimizerConfig
from trainer.optimizers.build import build_optimizer
from trainer.optimizers.functional import apply_update

STEPS = 6
RULES = ["adam", "adamw", "sgd", "adagrad", "lamb", "adafactor"]


def optimizer_config(**keys):
    return TypeAdapter(OptimizerConfig).validate_python(keys)


def new_variables() -> list[keras.Variable]:
    rng = np.random.default_rng(0)
    with keras.name_scope("layer"):
        kernel = keras.Variable(rng.normal(size=(4, 3)).astype("float32"), name="kernel")
        bias = keras.Variable(rng.normal(size=(3,)).astype("float32"), name="bias")
    return [kernel, bias]


def gradients_of_step(step: int) -> list[np.ndarray]:
    rng = np.random.default_rng(step + 1)
    return [rng.normal(size=(4, 3)).astype("float32"), rng.normal(size=(3,)).astype("float32")]


def functional_run(config, jit: bool) -> list[np.ndarray]:
    """The weights after STEPS compiled, functional updates; the optimizer's own variables must stay as they were."""
    variables = new_variables()
    optimizer = build_optimizer(config, STEPS, 3, variables)

    @tf.function(jit_compile=jit)
    def update(values, slots, gradients):
        return apply_update(optimizer, variables, values, slots, gradients)

    values = tuple(tf.identity(v.value) for v in variables)
    slots = tuple(tf.identity(v.value) for v in optimizer.variables)
    before = [v.numpy() for v in optimizer.variables]
    for step in range(STEPS):
        values, slots, _ = update(values, slots, tuple(map(tf.constant, gradients_of_step(step))))
    assert slots[0].dtype == tf.int64 and int(slots[0]) == STEPS
    for variable, value in zip(optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    return [value.numpy() for value in values]


def keras_run(optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    variables = new_variables()
    for step in range(STEPS):
        optimizer.apply(list(map(tf.constant, gradients_of_step(step))), variables)
    return [v.numpy() for v in variables]


def adam_in_numpy(rate: float, decay: float, decayed: list[bool]) -> list[np.ndarray]:
    weights = [v.numpy().astype(np.float64) for v in new_variables()]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step in range(STEPS):
        for i, gradient in enumerate(gradients_of_step(step)):
            gradient = gradient.astype(np.float64)
            if decayed[i]:
                weights[i] -= rate * decay * weights[i]
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            correction = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            weights[i] -= rate * correction * first[i] / (np.sqrt(second[i]) + 1e-7)
    return weights


def assert_close(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_functional_update_is_keras_own(rule, jit):
    decay = 0.05
    reference = {
        "adam": lambda: keras.optimizers.Adam(0.01, weight_decay=decay),
        "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=decay),
        "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=decay),
        "adagrad": lambda: keras.optimizers.Adagrad(0.01, weight_decay=decay),
        "lamb": lambda: keras.optimizers.Lamb(0.01, epsilon=1e-6, weight_decay=decay),
        "adafactor": lambda: keras.optimizers.Adafactor(0.01, relative_step=False, weight_decay=decay),
    }[rule]()
    reference.exclude_from_weight_decay(var_names=["bias"])
    keys = {"nesterov": True} if rule == "sgd" else {}
    config = optimizer_config(name=rule, learning_rate=0.01, weight_decay=decay, **keys)
    assert_close(functional_run(config, jit), keras_run(reference))


@pytest.mark.parametrize("rule", ["adam", "adamw"])
def test_adam_is_the_published_rule(rule):
    config = optimizer_config(name=rule, learning_rate=0.02, weight_decay=0.1)
    assert_close(functional_run(config, jit=True), adam_in_numpy(0.02, 0.1, [True, False]))


def test_without_decay_adamw_is_adam():
    config = optimizer_config(name="adamw", learning_rate=0.02, weight_decay=None)
    assert_close(functional_run(config, jit=True), adam_in_numpy(0.02, 0.0, [False, False]))


def test_schedule_reaches_the_update():
    config = optimizer_config(
        name="sgd", learning_rate=0.1, momentum=0, schedule={"name": "step", "boundaries": ["4st"], "factor": 0.5}
    )
    expected = [v.numpy() for v in new_variables()]
    for step in range(STEPS):
        rate = 0.1 if step < 4 else 0.05
        expected = [w - rate * g for w, g in zip(expected, gradients_of_step(step), strict=True)]
    assert_close(functional_run(config, jit=True), expected)


@pytest.mark.parametrize("rule", RULES)
def test_variables_have_names_of_their_own_in_every_process(rule):
    variables = [*new_variables(), keras.Variable(np.zeros((5, 2), "float32"), name="kernel")]
    config = optimizer_config(name=rule)
    paths = [v.path for v in build_optimizer(config, STEPS, 3, variables).variables]
    again = [v.path for v in build_optimizer(config, STEPS, 3, variables).variables]
    assert len(set(paths)) == len(paths)
    assert paths == again and paths[0] == f"{rule}/iteration"


def test_clipping_averaging_and_accumulation_are_left_to_the_step():
    optimizer = build_optimizer(optimizer_config(name="adam", clip_norm=1.0), STEPS, 3, new_variables())
    assert optimizer.clipnorm is optimizer.clipvalue is optimizer.global_clipnorm is None
    assert not optimizer.use_ema and optimizer.gradient_accumulation_steps is None


def test_weights_of_resnet50_decay_as_fast_as_in_the_published_recipe():
    published = load_config("configs/resnet50.yaml").optimizer
    assert published.name == "sgd" and published.nesterov
    rate, momentum, penalty = 0.1, published.momentum, 0.0001  # Goyal et al. 2017: part of the gradient
    config = optimizer_config(name="sgd", learning_rate=rate, momentum=momentum, weight_decay=published.weight_decay)
    variable = keras.Variable([1.0], name="kernel")
    optimizer = build_optimizer(config, 200, 100, [variable])
    theirs, velocity, values = 1.0, 0.0, (tf.constant([1.0]),)
    slots = tuple(tf.identity(v.value) for v in optimizer.variables)
    for _ in range(200):
        velocity = momentum * velocity + penalty * theirs
        theirs -= rate * (penalty * theirs + momentum * velocity)
        values, slots, _ = apply_update(optimizer, [variable], values, slots, (tf.zeros([1]),))
    assert 1 - float(values[0][0]) == pytest.approx(1 - theirs, rel=0.1)
