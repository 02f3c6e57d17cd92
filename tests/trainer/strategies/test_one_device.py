from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import losses, small_session
from trainer.session import Session
from trainer.step import compilation

COMPILERS = {
    "none": {},
    "step": {"xla": True},
    "loop": {"xla": True, "xla_scope": "loop"},
    "update": {"xla": True, "xla_scope": "update"},
    "kernels": {"xla": True},  # with convolutions, on a processor that has fast ones
}
CONVOLUTIONS = {"name": "cnn", "filters": [4], "dense": 8, "dropout": 0.5}
IMAGES = {"name": "synthetic", "num_samples": 96, "batch_size": 16, "shape": [8, 8, 1], "num_classes": 3}


def new_session(
    monkeypatch: pytest.MonkeyPatch, compiler: str, train: dict[str, Any] | None = None, **settings: Any
) -> Session:
    train = COMPILERS[compiler] | (train or {})
    if compiler != "kernels":
        return small_session(train=train, **settings)
    monkeypatch.setattr(compilation, "_processor_flags", lambda: ["avx512f"])
    session = small_session(train=train, model=CONVOLUTIONS, data=IMAGES, **settings)
    assert session.step.compilation.kernels
    return session


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_step_does_not_change_a_state_that_somebody_holds(compiler, monkeypatch):
    """A snapshot is copied from the state's tensors while the next steps run, and XLA changes variables in place."""
    session = new_session(monkeypatch, compiler)
    losses(session, 4, steps_per_call=4)
    held = session.state.tensors()
    before = {name: np.array(value) for name, value in held.items()}
    losses(session, 4, steps_per_call=4)
    for name, value in held.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert session.state.step == 8 and held["step"].numpy() == 4


@pytest.mark.parametrize(
    ("compiler", "clip_norm"),
    [*((name, None) for name in COMPILERS), ("update", 1.0), ("none", 1.0), ("kernels", 1.0)],
)
def test_a_step_that_is_not_finite_leaves_the_state_as_it_was(compiler, clip_norm, monkeypatch):
    optimizer = {"name": "adam", "learning_rate": 0.001, "clip_norm": clip_norm}
    session = new_session(monkeypatch, compiler, optimizer=optimizer)
    loop = session.strategy.train_loop(session.step, session.state)
    block = session.blocks(0, 3).take(3).block
    (image,) = session.schema.inputs
    bad = np.array(block[image])
    bad[1] = np.nan
    nan_second = {**block, image: tf.constant(bad)}

    def take(first: int, num_steps: int) -> list[int]:
        return loop(nan_second, tf.constant(first), tf.constant(num_steps), tf.constant(True)).status.numpy().tolist()

    assert take(0, 1) == [1, 0]
    before = {name: variable.numpy() for name, variable in session.state.variables.items() if name != "window"}
    assert take(1, 2) == [1, 1]  # the third step is not taken either
    for name, value in before.items():
        np.testing.assert_array_equal(session.state.variables[name].numpy(), value, err_msg=name)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "adam", "clip_norm": 0.1},
        {"name": "adamw", "weight_decay": 0.1, "schedule": {"name": "cosine", "warmup": "3st"}},
        {"name": "sgd", "learning_rate": 0.1},
        {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9},
        {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ],
    ids=str,
)
def test_the_update_kernels_do_what_the_rules_of_keras_say(optimizer, monkeypatch):
    settings = {"optimizer": optimizer}
    by_rule = new_session(monkeypatch, "none", model=CONVOLUTIONS, data=IMAGES, train={"ema": 0.9}, **settings)
    by_kernel = new_session(monkeypatch, "kernels", train={"ema": 0.9}, **settings)
    expected = losses(by_rule, 12)
    np.testing.assert_allclose(losses(by_kernel, 12), expected, rtol=1e-5)
    assert abs(expected[-1] - expected[0]) > 1e-2
    for name, variable in by_rule.state.variables.items():
        found = by_kernel.state.variables[name].numpy()
        np.testing.assert_allclose(found, variable.numpy(), rtol=1e-3, atol=1e-5, err_msg=name)


def test_replicas_change_their_copies_by_kernels(monkeypatch):
    alone = new_session(monkeypatch, "kernels", train={"ema": 0.9})
    replicas = new_session(monkeypatch, "kernels", {"ema": 0.9}, strategy={"name": "mirrored", "devices": 2})
    np.testing.assert_allclose(losses(replicas, 12), losses(alone, 12), rtol=2e-5)
    for name, variable in replicas.state.variables.items():
        first, second = (copy.numpy() for copy in variable.values)
        np.testing.assert_array_equal(first, second, err_msg=name)
        np.testing.assert_allclose(first, alone.state.variables[name].numpy(), rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {"name": "lamb"}},
        {"precision": "mixed_float16"},
        {"freeze": [{"layers": ["hidden*"], "until": "2st"}]},
    ],
    ids=str,
)
def test_what_the_update_kernels_cannot_do_is_compiled(change, monkeypatch):
    monkeypatch.setattr(compilation, "_processor_flags", lambda: ["avx512f"])
    session = small_session(train={"xla": True}, model=CONVOLUTIONS, data=IMAGES, **change)
    assert session.step.compilation == compilation.Compilation("update")


def test_a_loop_that_is_one_program_serves_every_place_in_a_block():
    """A slice would make the first index a constant of the program: hundreds of milliseconds of compiling for each."""
    session = small_session(train={"xla": True, "xla_scope": "loop", "steps": 12})
    loop = session.strategy.train_loop(session.step, session.state)
    block = session.blocks(0, 12).take(12).block

    def program(first: int, num_steps: int) -> str:
        arguments = (block, tf.constant(first), tf.constant(num_steps), tf.constant(True))
        return loop.experimental_get_compiler_ir(*arguments)(stage="hlo")

    assert program(0, 1) == program(3, 2)
