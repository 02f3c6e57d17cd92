"""Weights on parameter servers, gradients by workers, and a coordinator that sends out the steps.

The coordinator alone runs the training's loop: it reads the data and sends each worker its slice. A worker reads the
weights it needs, computes, and leaves its contribution with the parameter servers; there it is applied, once, by the
coordinator's word. So a worker's death takes back nothing: its slice is computed again by another.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from trainer.config.strategy import StrategyConfig
from trainer.data.shard import WHOLE, Shard
from trainer.group import Group
from trainer.parameter_server.lanes import Lanes, ServerLost, connect
from trainer.parameter_server.packed_batch import Layout, layout_of, pack
from trainer.parameter_server.placement import Placement
from trainer.parameter_server.remote_state import HandedOver, RemoteState
from trainer.parameter_server.remote_step import RemoteEvaluation, RemoteStep, specs_of
from trainer.parameter_server.roles import COORDINATOR, Roles
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.step.gradients import Batch
from trainer.strategies.arrivals import ArrivalCount
from trainer.strategies.inner_loop import batch_of
from trainer.strategies.strategy import Agreement, Block, EvaluationLoop, LoopResult, Regrouping, Replication, TrainLoop

# Update rules that look at a whole weight at once: its pieces alone would be other weights.
_OF_WHOLE_WEIGHTS = ("Lamb", "Adafactor")
_BATCHES_PER_WORKER = 4
_HERE = f"{COORDINATOR}/device:CPU:0"


class ParameterServer:
    """Data parallelism over workers that share the weights of parameter servers.

    Synchronous: the global batch is cut into as many slices as there were workers, and a step begins when the one
    before is applied; the number of slices stays when a worker dies, and so does the curve. Asynchronous: each worker
    computes whole steps, on the weights as it finds them.

    Args:
        group: The members; this is its coordinator.
        config: How many parameter servers, and what they divide.

    Raises:
        ConnectionError: Not all members have come.
    """

    shard: Shard = WHOLE
    agreement: Agreement | None = None
    arrivals: Callable[[], ArrivalCount] | None = None
    regrouping: Regrouping | None = None
    replication: Replication | None = None

    def __init__(self, group: Group, config: StrategyConfig) -> None:
        self._config = config
        self._roles = Roles(group.size, config.parameter_servers)
        connect(group, self._roles)
        self._lanes = Lanes(group, self._roles)
        self.num_replicas = self._roles.workers if config.synchronous else 1
        self._state: RemoteState | None = None

    def scope(self) -> contextlib.AbstractContextManager:
        """Everything is built here, and moves to the servers with the first step."""
        return contextlib.nullcontext()

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """A loop that sends out the slices of each step; the state moves to the parameter servers."""
        rule = type(step.apply.optimizer).__name__
        placement = Placement(
            self._roles.parameter_servers, self._config.min_shard_bytes, divides=rule not in _OF_WHOLE_WEIGHTS
        )
        self._state = RemoteState(state, placement)
        loop = _SynchronousLoop if self._config.synchronous else _AsynchronousLoop
        return loop(RemoteStep(step, self._state), state, self._lanes, self.num_replicas)  # type: ignore[return-value]

    def evaluation_loop(self, step: EvaluationStep, state: TrainState) -> EvaluationLoop:
        """All batches, each on whichever worker is free; added up in their order."""
        made: list[RemoteEvaluation] = []

        def loop(iterator: Iterator[Batch], num_batches: tf.Tensor) -> EvaluationSums:
            assert self._state is not None, "an evaluation follows a step"
            if not made:
                made.append(RemoteEvaluation(step, self._state, state.evaluation_weights(step.ema)))  # type: ignore[arg-type]
            return self._evaluate(made[0], iterator, int(num_batches))

        return loop  # type: ignore[return-value]

    def _evaluate(self, evaluation: RemoteEvaluation, iterator: Iterator[Batch], num_batches: int) -> EvaluationSums:
        totals, collected = None, []
        at_once = _BATCHES_PER_WORKER * self._roles.workers
        for begin in range(0, num_batches, at_once):
            calls = []
            for _ in range(min(at_once, num_batches - begin)):
                batch = next(iterator)
                sums = evaluation.sums.get_concrete_function(batch)  # type: ignore[attr-defined]
                calls.append(lambda sums=sums, batch=batch: _here(sums(batch)))
            for sums, values in self._lanes.run(calls):
                totals = sums.astype(np.float64) if totals is None else totals + sums.astype(np.float64)
                collected.append(values)
        joined = {name: np.concatenate([values[name] for values in collected]) for name in collected[0]}
        return EvaluationSums(tf.constant(totals), {name: tf.constant(values) for name, values in joined.items()})  # type: ignore[arg-type]


class _Loop:
    """What both loops have in common.

    Args:
        step: Of the config, over a placed state.
        state: Placed.
        lanes: The workers.
        num_slices: Of a global batch.
    """

    def __init__(self, step: RemoteStep, state: TrainState, lanes: Lanes, num_slices: int) -> None:
        self._step, self._state, self._lanes, self._num_slices = step, state, lanes, num_slices
        self._finisher: tf.types.experimental.ConcreteFunction | None = None
        self._traced: dict[Layout, tf.types.experimental.ConcreteFunction] = {}

    def get_concrete_function(
        self, block: Block, first: tf.Tensor, *_: tf.Tensor
    ) -> tf.types.experimental.ConcreteFunction:
        """What runs on a worker."""
        return self._call(batch_of(block, first), 0, 0)[0]

    def _call(self, batch: Batch, number: int, step: int) -> tuple:
        """The traced function for a slice, and its arguments. Traced here, because a lane would trace it for itself."""
        size = next(iter(batch.values())).shape[0]
        if self._num_slices > 1:
            assert size is not None and size % self._num_slices == 0, "checked with the config"
            size //= self._num_slices
            batch = {name: value[number * size : (number + 1) * size] for name, value in batch.items()}
        layout = layout_of(batch)
        with tf.device(_HERE):
            arguments = pack(batch, (step, number * (size or 0)))
        if layout not in self._traced:
            self._traced[layout] = self._step.contribution(layout).get_concrete_function(*arguments)  # type: ignore[attr-defined]
        return self._traced[layout], arguments

    def _finish(self, contributions: list[HandedOver]) -> np.ndarray:
        """Applies contributions, once; returns the status of a `LoopResult`.

        Raises:
            ServerLost: A parameter server is gone. An update that may be half done is never tried again.
        """
        with self._on_servers():
            if self._finisher is None:
                self._finisher = self._step.finish.get_concrete_function(specs_of(contributions))  # type: ignore[attr-defined]
            return self._finisher(contributions).numpy()  # type: ignore[misc]

    @contextlib.contextmanager
    def _on_servers(self) -> Iterator[None]:
        try:
            with tf.device(COORDINATOR):
                yield
        except tf.errors.OpError as error:
            raise ServerLost(f"an update could not be applied ({type(error).__name__})") from error

    def _begin(self, empty_window: tf.Tensor) -> int:
        """Empties the window where that is asked for; the steps done."""
        with self._on_servers():
            if empty_window:
                self._step.empty_window()
            return self._state.step

    def _result(self, status: np.ndarray | list[int]) -> LoopResult:
        with self._on_servers():
            return LoopResult(self._step.window(), tf.constant(status, tf.int64))


class _SynchronousLoop(_Loop):
    """Every step begins with the weights that the one before has left."""

    def __call__(self, block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
        """Takes the steps; stops at one that is not finite."""
        begin, index, number = self._begin(empty_window), int(first), int(num_steps)
        calls, status = self._calls(block, index, begin), None
        for done in range(number):
            wait = self._lanes.begin(calls)
            if done + 1 < number:
                calls = self._calls(block, index + done + 1, begin + done + 1)  # beside the workers
            status = self._finish(wait())
            if status[1]:
                break
        assert status is not None, "a call takes at least one step"
        return self._result(status)

    def _calls(self, block: Block, index: int, step: int) -> list[Callable[[], HandedOver]]:
        batch = batch_of(block, index)
        return [_bound(*self._call(batch, number, step)) for number in range(self._num_slices)]


class _AsynchronousLoop(_Loop):
    """As many steps at a time as there are workers; applied as they come, each once, none while another is."""

    def __call__(self, block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
        """Takes the steps, and returns when all are applied. After one that is not finite no further one is begun."""
        begin, index, lock = self._begin(empty_window), int(first), threading.Lock()
        statuses: list[np.ndarray] = []
        not_finite: list[int] = []

        def one(number: int) -> Callable[[], None]:
            def call() -> None:
                if not_finite:
                    return
                step = begin + number
                with tf.device(_HERE):
                    batch = batch_of(block, index + number)
                function, arguments = self._call(batch, 0, step)
                contribution = function(*arguments)
                with lock:
                    statuses.append(self._finish([contribution]))
                    if statuses[-1][1]:
                        not_finite.append(step)

            return call

        self._call(batch_of(block, index), 0, begin)  # traces
        self._lanes.run([one(number) for number in range(int(num_steps))])
        # One that is not finite has the number of its batch, and not how many others have been applied meanwhile.
        return self._result([min(not_finite), 1] if not_finite else statuses[-1])


def _bound(function: Callable, arguments: tuple) -> Callable:
    return lambda: function(*arguments)


def _here(sums: EvaluationSums) -> EvaluationSums:
    return EvaluationSums(sums.sums.numpy(), {name: value.numpy() for name, value in sums.collected.items()})  # type: ignore[arg-type]
