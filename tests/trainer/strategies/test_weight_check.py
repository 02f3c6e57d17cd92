import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from trainer.strategies.weight_check import WeightCheck, WeightsDiffer, digest


class Members:
    """Threads of this process that hand each other tensors."""

    def __init__(self, size):
        self.barrier, self.given, self.left = threading.Barrier(size, timeout=20), [("", None)] * size, []

    def of(self, rank):
        def exchange(tensor, name):
            self.given[rank] = (name, tensor)
            self.barrier.wait()
            given = list(self.given)
            self.barrier.wait()
            assert {other for other, _ in given} == {name}, "all ask for the same"
            return [tensor for _, tensor in given]

        return SimpleNamespace(
            gather=lambda tensor, name: tf.stack(exchange(tensor, name)),
            from_chief=lambda tensor, name: exchange(tensor, name)[0],
            leave=lambda: self.left.append(rank),
        )


class State:
    step = 5

    def __init__(self, *values):
        self.variables = {f"model/w{i}": tf.Variable(value) for i, value in enumerate(values)}

    def tensors(self):
        return {name: variable.read_value() for name, variable in self.variables.items()}


def together(states, act):
    members, errors = Members(len(states)), []

    def run(rank):
        try:
            act(WeightCheck(members.of(rank)), states[rank])
        except WeightsDiffer as error:
            errors.append(str(error))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(states))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return errors


def test_all_begin_with_the_chiefs_state():
    states = [State([1.0, 2.0], 3), State([1.0, 2.5], 3), State([0.0, 2.0], 4)]
    assert together(states, lambda check, state: check.begin(state)) == []
    for state in states:
        np.testing.assert_array_equal(state.variables["model/w0"], [1.0, 2.0])
        assert int(state.variables["model/w1"].numpy()) == 3


def test_one_bit_of_difference_is_found_by_all_and_named():
    states = [State([1.0]), State([np.nextafter(np.float32(1), np.float32(2))]), State([1.0])]
    errors = together(states, lambda check, state: check.check(state))
    assert len(errors) == 3
    assert all("after step 5 workers 1 hold other weights than the chief" in error for error in errors)


def test_equal_states_pass():
    assert together([State([1.0], 2), State([1.0], 2)], lambda check, state: check.check(state)) == []


@pytest.mark.parametrize(
    "other", [{"b": tf.constant([1.0])}, {"a": tf.constant([1.0, 0.0])}, {"a": tf.constant([-1.0])}]
)
def test_the_digest_tells_names_and_values_apart(other):
    assert digest({"a": tf.constant([1.0])}) == digest({"a": tf.constant([1.0])}) != digest(other)
