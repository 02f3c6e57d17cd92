"""What a standby does before its part comes: it builds the whole training once, takes a step with it, and forgets it.

The first time that a process builds a model, traces a step and runs it, most of the time goes into what every later
time has for nothing: modules that are imported when they are first used, pages of TensorFlow's libraries that come from
the disk, kernels and optimisers that are registered, caches of Keras. A rehearsal pays for that while nobody waits.
"""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable

import keras
import tensorflow as tf
from tensorflow.python.eager import context

from trainer.config.strategy import StrategyConfig
from trainer.config.training import TrainingConfig
from trainer.group import Group
from trainer.session import build_session
from trainer.strategies.choice import choose_strategy
from trainer.strategies.horovod import Horovod
from trainer.strategies.multi_worker_mirrored import MultiWorkerMirrored
from trainer.strategies.strategy import Strategy

_REHEARSED = {"multi_worker_mirrored": MultiWorkerMirrored, "horovod": Horovod}
# A step holds the state as it was, as it becomes, and gradients and activations between the two.
_STATES_OF_A_STEP = 4


class Interrupted(Exception):
    """What is left of the rehearsal is not worth its price. The message says why."""


def can_rehearse(config: TrainingConfig, num_workers: int) -> bool:
    """Whether a config's strategy is one whose processes begin with everything again after a failure."""
    return choose_strategy(config, num_workers, 0).config.name in _REHEARSED


def rehearse(
    config: TrainingConfig,
    num_workers: int,
    is_wanted: Callable[[], bool] = lambda: False,
    memory_bytes: int | None = None,
) -> None:
    """Builds the training of a config, takes a step with it on the CPU, and frees it.

    TensorFlow is then as before its devices were started, so that a strategy of several workers can be built.

    Args:
        config: Of the run; `can_rehearse` says yes.
        num_workers: That will share a batch.
        is_wanted: Whether the process has something better to do by now; asked between the parts of the rehearsal.
        memory_bytes: That it may use; None: as much as it takes.

    Raises:
        Interrupted: There is something better to do, or not enough memory.
        Exception: Whatever the user's model, data and task raise.
    """

    def go_on() -> None:
        if is_wanted():
            raise Interrupted("the standby's part has come")

    has_gpus = bool(tf.config.list_physical_devices("GPU"))
    try:
        if has_gpus:  # they belong to the members
            tf.config.set_visible_devices([], "GPU")
        _take_a_step(config, Group(0, ("",) * num_workers), go_on, memory_bytes, runs=not has_gpus)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # which hold what has been built so far
        raise
    finally:
        _forget()


def _take_a_step(
    config: TrainingConfig, group: Group, go_on: Callable[[], None], memory_bytes: int | None, runs: bool
) -> None:
    session = build_session(config, group, go_on, _alone)
    go_on()
    state_bytes = sum(v.dtype.size * (v.shape.num_elements() or 0) for v in session.state.variables.values())
    if memory_bytes is not None and _STATES_OF_A_STEP * state_bytes > memory_bytes:
        raise Interrupted(f"a step of a state of {state_bytes} bytes needs more memory than is free")
    loop = session.strategy.train_loop(session.step, session.state)
    with contextlib.closing(session.blocks(0, session.total_steps)) as blocks:
        taken = blocks.take(1)
        arguments = (taken.block, tf.constant(taken.first), tf.constant(taken.num_steps), tf.constant(True))
        loop.get_concrete_function(*arguments)
        go_on()
        if not runs:  # the kernels of a CPU tell nothing about those of a GPU
            return
        loop(*arguments).status.numpy()
    go_on()
    if session.strategy.agreement is not None:
        session.strategy.agreement.from_chief(0)
    session.state.restore({name: tensor.numpy() for name, tensor in session.state.tensors().items()})


def _alone(config: StrategyConfig, group: Group | None) -> Strategy:
    assert group is not None
    return _REHEARSED[config.name](group, config, rehearsed=True)


def _forget() -> None:
    keras.utils.clear_session()
    # TensorFlow has no public way to end its devices; without their end no strategy of several workers can be built.
    context._reset_context()
    # What is there by now stays: a collection, of which Keras asks for one at every start, need not look at it again.
    gc.collect()
    gc.freeze()
