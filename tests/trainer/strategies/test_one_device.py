import tensorflow as tf

from tests.trainer.sessions import small_session


def test_a_loop_that_is_one_program_serves_every_place_in_a_block():
    """A slice would make the first index a constant of the program: hundreds of milliseconds of compiling for each."""
    session = small_session(train={"xla": True, "xla_scope": "loop", "steps": 12})
    loop = session.strategy.train_loop(session.step, session.state)
    block = session.blocks(0, 12).take(12).block

    def program(first: int, num_steps: int) -> str:
        arguments = (block, tf.constant(first), tf.constant(num_steps), tf.constant(True))
        return loop.experimental_get_compiler_ir(*arguments)(stage="hlo")

    assert program(0, 1) == program(3, 2)
