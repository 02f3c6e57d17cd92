"""One step function, any strategy: the curve is the same within rounding, dropout included."""

import keras
import numpy as np
import pytest

from tests.trainer.sessions import losses, merged, small_session, weights

STEPS = 12
# Sums in another order differ in the last bits of float32; twelve steps of Adam make that 1e-5 at most.
TOLERANCE = 2e-5

WAYS = {
    "xla": {"train": {"xla": True}},
    "xla loop": {"train": {"xla": True, "xla_scope": "loop"}},
    "xla update": {"train": {"xla": True, "xla_scope": "update"}},
    "accumulate": {"train": {"accumulate": 4}},
    "virtual workers": {"train": {"virtual_workers": 4}},
    "virtual workers, accumulate, xla": {"train": {"virtual_workers": 2, "accumulate": 2, "xla": True}},
    "mirrored 2": {"strategy": {"name": "mirrored", "devices": 2}},
    "mirrored 4": {"strategy": {"name": "mirrored", "devices": 4}},
    "mirrored 2, xla, accumulate": {
        "strategy": {"name": "mirrored", "devices": 2},
        "train": {"xla": True, "accumulate": 2},
    },
}
SETTINGS = {
    "plain": {},
    "global norm clipping": {"optimizer": {"name": "adam", "clip_norm": 0.1}},
    "value clipping, decay": {"optimizer": {"name": "adamw", "clip_value": 0.01, "weight_decay": 0.1}},
    "padded batches": {"data": {"num_samples": 90}},
}


@pytest.fixture(scope="module")
def references():
    found = {}
    for name, settings in SETTINGS.items():
        session = small_session(**settings)
        found[name] = (losses(session, STEPS), weights(session))
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_curve_is_that_of_one_device(references, way, setting):
    if way not in ("mirrored 2", "accumulate") and setting != "plain":
        return  # every setting on two ways, every way on one setting: the rest would only take time
    change = {**SETTINGS[setting]}
    for section, values in WAYS[way].items():
        change[section] = {**change.get(section, {}), **values}
    session = small_session(**change)
    curve, expected = losses(session, STEPS), references[setting]
    np.testing.assert_allclose(curve, expected[0], rtol=TOLERANCE)
    for name, value in weights(session).items():
        np.testing.assert_allclose(value, expected[1][name], rtol=1e-3, atol=TOLERANCE, err_msg=name)


def test_clipping_is_of_the_reduced_gradient(references):
    """Keras's own `global_clipnorm` clips each replica's gradient; then this curve would be another."""
    assert references["global norm clipping"][0] != references["plain"][0]


def test_replicas_stay_equal_to_the_bit():
    session = small_session(strategy={"name": "mirrored", "devices": 4})
    losses(session, STEPS)
    for name, variable in session.state.variables.items():
        copies = [copy.numpy() for copy in variable.values]
        for other in copies[1:]:
            np.testing.assert_array_equal(copies[0], other, err_msg=name)


@pytest.mark.parametrize(
    ("strategy", "devices", "compiler"),
    [
        ("one_device", None, {}),
        ("one_device", None, {"xla": True}),
        ("one_device", None, {"xla": True, "xla_scope": "loop"}),
        ("one_device", None, {"xla": True, "xla_scope": "update"}),
        ("mirrored", 2, {}),
        ("mirrored", 2, {"xla": True}),
    ],
)
def test_steps_per_loop_does_not_change_a_bit(strategy, devices, compiler):
    change = {"strategy": {"name": strategy, "devices": devices}, "train": {**compiler, "ema": 0.9}}
    one = small_session(**merged(change, {"train": {"steps_per_loop": 1}}))
    many = small_session(**merged(change, {"train": {"steps_per_loop": 4}}))
    by_one = losses(one, STEPS)
    by_four = losses(many, STEPS, steps_per_call=4)
    assert by_four == pytest.approx(np.mean(np.reshape(by_one, (-1, 4)), axis=1), rel=1e-6)
    for name, variable in one.state.variables.items():
        if name != "window":
            np.testing.assert_array_equal(variable.numpy(), many.state.variables[name].numpy(), err_msg=name)


def test_one_step_a_block_does_not_change_a_bit_of_a_loop_that_is_one_program():
    """At the sizes of configs/mnist.yaml XLA compiles a block of one step to other arithmetic."""
    change = {
        "model": {"name": "mlp", "hidden": [128], "activation": "relu", "dropout": 0.2},
        "data": {"name": "synthetic", "num_samples": 640, "batch_size": 32, "shape": [28, 28], "num_classes": 10},
        "optimizer": {"name": "adam", "learning_rate": 0.002},
        "train": {"xla": True, "xla_scope": "loop"},
    }
    one = small_session(**merged(change, {"train": {"steps_per_loop": 1}}))
    many = small_session(**merged(change, {"train": {"steps_per_loop": 20}}))
    losses(one, 20)
    losses(many, 20, steps_per_call=20)
    for name, variable in one.state.variables.items():
        if name != "window":
            np.testing.assert_array_equal(variable.numpy(), many.state.variables[name].numpy(), err_msg=name)


@keras.saving.register_keras_serializable("tests")
def normalised_model(schema) -> keras.Model:
    """Batch normalisation, and a Normalization layer whose constants no step may touch."""
    inputs = keras.Input((12,))
    fixed = keras.layers.Normalization(mean=[0.1] * 12, variance=[0.9] * 12)
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Dense(8)(fixed(inputs)))
    return keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(keras.activations.gelu(x)))


def test_batch_statistics_are_reduced():
    """Keras alone leaves each replica its own moving averages; a slice of a batch is normalised by itself, whether
    two replicas or two micro-batches made the slices."""
    model = {"name": "tests.trainer.strategies.test_equal_curves:normalised_model"}
    halves = small_session(model=model, train={"accumulate": 2})
    replicas = small_session(model=model, strategy={"name": "mirrored", "devices": 2})
    np.testing.assert_allclose(losses(replicas, STEPS), losses(halves, STEPS), rtol=TOLERANCE)
    moving = {name: value for name, value in weights(replicas).items() if "moving" in name}
    assert len(moving) == 2
    for name, value in moving.items():
        np.testing.assert_allclose(value, weights(halves)[name], rtol=1e-4)
        copies = [copy.numpy() for copy in replicas.state.variables[name].values]
        np.testing.assert_array_equal(copies[0], copies[1])
        assert (value != (1.0 if "variance" in name else 0.0)).any()
