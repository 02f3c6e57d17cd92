"""What a checkpoint holds is enough: the restored run goes on to the bit."""

import numpy as np
import pytest

from tests.trainer.sessions import losses, small_session

EVERYTHING = {
    "train": {"ema": 0.9, "steps": 12},
    "precision": "mixed_float16",
    "optimizer": {"name": "adamw", "weight_decay": 0.01, "schedule": {"name": "cosine", "warmup": "3st"}},
}


@pytest.mark.parametrize("resumed_at", [1, 7])
def test_a_restored_state_goes_on_to_the_bit(resumed_at):
    undisturbed = small_session(**EVERYTHING)
    curve = losses(undisturbed, 12)

    first = small_session(**EVERYTHING)
    head = losses(first, resumed_at)
    saved = {name: variable.numpy().copy() for name, variable in first.state.variables.items()}
    second = small_session(**EVERYTHING)
    second.state.restore(saved)
    tail = losses(second, 12 - resumed_at)
    assert head + tail == curve
    for name, variable in undisturbed.state.variables.items():
        np.testing.assert_array_equal(variable.numpy(), second.state.variables[name].numpy(), err_msg=name)


def test_a_checkpoint_crosses_strategies():
    first = small_session()
    losses(first, 4)
    saved = {name: variable.numpy().copy() for name, variable in first.state.variables.items()}
    tail = losses(first, 4)
    second = small_session(strategy={"name": "mirrored", "devices": 2})
    second.state.restore(saved)
    np.testing.assert_allclose(losses(second, 4), tail, rtol=2e-5)


def test_an_array_too_few_or_of_another_shape_is_refused_and_nothing_is_changed():
    session = small_session()
    saved = {name: variable.numpy().copy() for name, variable in session.state.variables.items()}
    kernel = next(name for name in saved if name.endswith("kernel"))
    for damaged, rule in [
        ({**saved, kernel: saved[kernel][:-1], "step": np.int64(9)}, "has shape"),
        ({name: value for name, value in saved.items() if name != kernel}, "lacks model/"),
        ({**saved, "model/other": saved[kernel]}, "has model/other"),
    ]:
        with pytest.raises(ValueError, match=rule):
            session.state.restore(damaged)
        assert session.state.step == 0
