"""One device in each of several workers, whose gradients Horovod adds up (one process a device).

Between the two halves of a step everything travels in one all-reduce for each type of number: gradients, changes of
statistics, sums of losses and metrics, and the votes. Weights are equal because every worker begins with the chief's
and applies the same sums; Horovod itself would not notice if they were not, so that is checked. A worker that dies ends
the group: the processes end, and a new generation begins in new ones.

Sources: Sergeev and Del Balso, "Horovod: fast and easy distributed deep learning in TensorFlow" (2018).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import tensorflow as tf

from trainer.config.strategy import StrategyConfig
from trainer.data.shard import Shard
from trainer.group import Group
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.step.gradients import Batch
from trainer.step.state_tensors import StateTensors
from trainer.strategies.arrivals import ArrivalCount, Arrivals
from trainer.strategies.horovod_group import HorovodGroup, NotTogether, import_horovod
from trainer.strategies.inner_loop import batch_of, evaluation_totals, in_sample_order, packed_status
from trainer.strategies.packed_contribution import PackedContribution
from trainer.strategies.strategy import (
    NUM_VOTES,
    Agreement,
    Block,
    EvaluationLoop,
    LoopResult,
    Regrouping,
    Replication,
    TrainLoop,
)
from trainer.strategies.variable_update import variable_update
from trainer.strategies.votes import Votes
from trainer.strategies.weight_check import WeightCheck


class TooManyGpus(ValueError):
    """A worker sees more GPUs than the one that it uses."""


class Horovod:
    """Data parallelism over processes with one device each: the GPU if there is one (never run), else the CPU.

    It waits until all workers are there, for a limited time.

    Args:
        group: The workers. The chief's port may be held by a socket with SO_REUSEPORT that does not listen.
        config: How gradients travel.
        rehearsed: Whether this process acts as if the others were there: everything is built and runs as in a group,
            and nothing is sent.

    Raises:
        HorovodNotUsable: Horovod is not installed, or does not fit TensorFlow.
        NotTogether: The workers have not found each other in time.
        TooManyGpus: This process sees several.
    """

    def __init__(self, group: Group, config: StrategyConfig, *, rehearsed: bool = False) -> None:
        gpus = len(tf.config.list_physical_devices("GPU"))
        if gpus > 1 and not rehearsed:
            raise TooManyGpus(
                f"strategy.name=horovod uses one GPU in each worker, and this one sees {gpus}: set "
                f"cluster.workers to the number of all GPUs, or strategy.name=multi_worker_mirrored"
            )
        self._members = None if rehearsed or group.size == 1 else HorovodGroup(group)
        if rehearsed:
            import_horovod()  # whose library somebody would wait for later
        self._rank = group.rank
        self._sent_as = tf.float16 if config.compression == "float16" else None
        self.num_replicas = group.size
        self.shard = Shard(group.rank, group.rank + 1, group.size)
        self._votes = HorovodAgreement(self._members)
        self.agreement: Agreement | None = self._votes
        self._arrivals = Arrivals()
        self.arrivals: Callable[[], ArrivalCount] | None = self._arrivals.count
        self.regrouping: Regrouping | None = None
        self.replication: Replication | None = WeightCheck(self._members) if self._members else None

    def scope(self) -> contextlib.AbstractContextManager:
        """Nothing to place: TensorFlow's default device is the one."""
        return contextlib.nullcontext()

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """A loop that takes steps in time with the other workers.

        Calling it raises NotTogether when one of them is gone.
        """
        packed, votes = PackedContribution(self._sent_as), self._votes
        update_variables = variable_update(step, state)

        def packed_gradients(values: StateTensors, batch: Batch, first_sample: tf.Tensor, own: tf.Tensor):
            return packed.pack(step.gradients(values, batch, first_sample), own)

        def update(sums: list[tf.Tensor]) -> tf.Tensor:
            return update_variables(packed.unpack(sums))

        # Never one XLA program over both: Horovod's reduction between them has no XLA kernel.
        gradients = tf.function(packed_gradients, jit_compile=step.compiles_gradients or None, autograph=step.converts)
        if step.compiles_update:
            update = tf.function(update, jit_compile=True, autograph=step.converts)

        def advance(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
            values = state.read()
            first_sample = tf.constant(self._rank * _num_samples(batch), tf.int64)
            own = gradients(values, batch, first_sample, votes.own.read_value())
            self._arrivals.arrive(own)
            sums = (
                own
                if self._members is None
                else [self._members.sum(vector, f"step.{vector.dtype.name}") for vector in own]
            )
            self._arrivals.end(sums)
            # The sums are those of all workers, so that all of them decide alike.
            finite = step.apply.accepts(values.loss_scale, packed.verdict(sums))
            # Outside of what is compiled, as on one device: XLA then changes the variables in place.
            return tf.cond(finite, lambda: update(sums), lambda: finite), packed.votes(sums)

        @tf.function(autograph=step.converts)
        def loop(block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
            window = state.variables["window"]
            window.assign(tf.where(empty_window, tf.zeros_like(window), window))
            _, finite, counted = tf.while_loop(
                lambda done, finite, _: tf.logical_and(done < num_steps, finite),
                lambda done, *_: (done + 1, *advance(batch_of(block, first + done))),
                (tf.constant(0), tf.constant(True), tf.zeros([NUM_VOTES])),
            )
            votes.sums.assign(counted)
            return LoopResult(window.read_value(), packed_status(state.variables["step"].read_value(), finite))

        return _Loop(loop)  # type: ignore[return-value]

    def evaluation_loop(self, step: EvaluationStep, state: TrainState) -> EvaluationLoop:
        """All batches, of each of which every worker measures its slice; every worker gets the same totals."""
        compute = tf.function(step, jit_compile=True) if step.xla else step

        @tf.function
        def loop(iterator, num_batches: tf.Tensor) -> EvaluationSums:
            trainable = [v.read_value() for v in state.evaluation_weights(step.ema)]
            non_trainable = list(state.read().non_trainable)
            sums, collected = evaluation_totals(
                iterator, num_batches, step.metrics.size, lambda batch: compute(trainable, non_trainable, batch)
            )
            if self._members is None:
                return EvaluationSums(sums, collected)
            every = {name: self._members.gather(values, f"collected.{name}") for name, values in collected.items()}
            in_order = {name: in_sample_order(values, num_batches) for name, values in every.items()}
            return EvaluationSums(tf.reduce_sum(self._members.gather(sums, "evaluated"), 0), in_order)

        return loop


class HorovodAgreement(Votes):
    """`Agreement` of the members of Horovod's group.

    Args:
        members: Of the group; None for a process alone.
    """

    def __init__(self, members: HorovodGroup | None) -> None:
        super().__init__()
        self._members = members

    def from_chief(self, number: int) -> int:
        """The chief's number, on every worker."""
        if self._members is None:
            return number
        return int(self._members.from_chief(tf.constant(number, tf.int64), "agreement").numpy())


class _Loop:
    """A traced loop whose failure says what it means, which Horovod's own account of a lost worker does not."""

    def __init__(self, loop: tf.types.experimental.PolymorphicFunction) -> None:
        self._loop = loop
        self.get_concrete_function = loop.get_concrete_function

    def __call__(self, *arguments: object) -> LoopResult:
        try:
            return self._loop(*arguments)
        except tf.errors.OpError as error:
            if "Horovod" in str(error):
                raise NotTogether("a peer is gone, and Horovod's group with it") from None
            raise


def _num_samples(batch: Batch) -> int:
    num_samples = next(iter(batch.values())).shape[0]
    assert num_samples is not None, "the config refuses replicas for batches whose size differs"
    return num_samples
