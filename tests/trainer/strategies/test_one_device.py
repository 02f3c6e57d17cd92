import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import losses, small_session

COMPILERS = {
    "none": {},
    "step": {"xla": True},
    "loop": {"xla": True, "xla_scope": "loop"},
    "update": {"xla": True, "xla_scope": "update"},
}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_step_does_not_change_a_state_that_somebody_holds(compiler):
    """A snapshot is copied from the state's tensors while the next steps run, and XLA changes variables in place."""
    session = small_session(train=COMPILERS[compiler])
    losses(session, 4, steps_per_call=4)
    held = session.state.tensors()
    before = {name: np.array(value) for name, value in held.items()}
    losses(session, 4, steps_per_call=4)
    for name, value in held.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert session.state.step == 8 and held["step"].numpy() == 4


@pytest.mark.parametrize(
    ("compiler", "clip_norm"), [*((name, None) for name in COMPILERS), ("update", 1.0), ("none", 1.0)]
)
def test_a_step_that_is_not_finite_leaves_the_state_as_it_was(compiler, clip_norm):
    optimizer = {"name": "adam", "learning_rate": 0.001, "clip_norm": clip_norm}
    session = small_session(train=COMPILERS[compiler], optimizer=optimizer)
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


def test_a_loop_that_is_one_program_serves_every_place_in_a_block():
    """A slice would make the first index a constant of the program: hundreds of milliseconds of compiling for each."""
    session = small_session(train={"xla": True, "xla_scope": "loop", "steps": 12})
    loop = session.strategy.train_loop(session.step, session.state)
    block = session.blocks(0, 12).take(12).block

    def program(first: int, num_steps: int) -> str:
        arguments = (block, tf.constant(first), tf.constant(num_steps), tf.constant(True))
        return loop.experimental_get_compiler_ir(*arguments)(stage="hlo")

    assert program(0, 1) == program(3, 2)
