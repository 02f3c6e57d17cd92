"""A replica on each device of several workers, with equal weights (`tf.distribute.MultiWorkerMirroredStrategy`).

Each worker reads its slice of the global batch; all contributions are summed in one packed all-reduce a step, and
every replica applies the same sum. A worker that dies takes TensorFlow's group with it: the processes end, and a new
generation begins in new ones.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from trainer.config.strategy import StrategyConfig
from trainer.data.shard import Shard
from trainer.group import Group
from trainer.parameter_server.presence import listens
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.step.gradients import Batch
from trainer.step.state_tensors import Contribution, StateTensors
from trainer.strategies.arrivals import ArrivalCount, Arrivals
from trainer.strategies.inner_loop import batch_of, evaluation_totals, in_sample_order, packed_status
from trainer.strategies.replicas import first_position, global_replica, own_copy, own_slice
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
from trainer.strategies.variable_update import compiled_update
from trainer.strategies.votes import Votes

_SERVER_S = 60.0
_LOOK_S = 0.005


class MultiWorkerMirrored:
    """Data parallelism over the devices of several processes.

    It waits until all workers are there; the caller sets a deadline, TensorFlow has none.

    Args:
        group: The workers. This worker's port may be held by a socket with SO_REUSEPORT that does not listen.
        config: How gradients travel.
        rehearsed: Whether this process acts as if the others were there, on its own and on its CPU: everything is built
            and runs as in a group, and nothing is sent.
    """

    def __init__(self, group: Group, config: StrategyConfig, *, rehearsed: bool = False) -> None:
        # Whoever chose the port keeps it bound until this server listens, so that nobody else takes it in between.
        os.environ["TF_GRPC_REUSE_PORT"] = "1"
        implementation = tf.distribute.experimental.CommunicationImplementation[config.communication.upper()]
        options = tf.distribute.experimental.CommunicationOptions(config.bytes_per_pack, implementation=implementation)
        cluster = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({} if rehearsed else {"worker": list(group.addresses)}),
            task_type="worker",
            task_id=group.rank,
            num_accelerators={"GPU": 0 if rehearsed else len(tf.config.list_physical_devices("GPU"))},
            rpc_layer="grpc",
        )
        if not group.is_chief and not rehearsed:
            _wait_for_server(group.addresses[0])
        with _signal_kept(signal.SIGTERM):
            self._strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster, options)
        self._half_floats = config.compression == "bfloat16"
        self.num_replicas = group.size if rehearsed else self._strategy.num_replicas_in_sync
        self._local_replicas = self.num_replicas // group.size
        self.shard = Shard(group.rank, group.rank + 1, group.size)
        self._votes = WorkerAgreement(self._strategy, group.is_chief)
        self.agreement: Agreement | None = self._votes
        self._arrivals = Arrivals()
        self.arrivals: Callable[[], ArrivalCount] | None = self._arrivals.count
        self.regrouping: Regrouping | None = None
        self.replication: Replication | None = None

    def scope(self) -> contextlib.AbstractContextManager:
        """Variables made within it have a copy on every device of every worker; the chief's initial values count."""
        return self._strategy.scope()

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """A loop that runs the replicas of this worker step by step, in time with the other workers."""
        # Never one XLA program over both: the collectives between them have no XLA kernel on a CPU.
        gradients = step.gradients
        if gradients.is_synchronized:
            gradients.exchange = self._exchanged
        if step.compiles_gradients:
            gradients = tf.function(gradients, jit_compile=True, autograph=step.converts)
        local, votes = self._local_replicas, self._votes

        def replica_step(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
            values = state.read(own_copy)
            contribution = gradients(values, own_slice(batch, local), first_position(batch, local))
            total, counted = self._sum_over_replicas(contribution, votes.own.read_value())
            self._count(contribution, total)
            # The total is that of all replicas of all workers, so that all of them decide alike. Outside of what is
            # compiled, as on one device: XLA then changes the variables in place.
            finite = step.apply.accepts(values.loss_scale, total)
            update = compiled_update(step, state, own_copy)
            return tf.cond(finite, lambda: update(total), lambda: finite), counted

        @tf.function(autograph=step.converts)
        def loop(block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
            window = state.variables["window"]
            window.assign(tf.where(empty_window, tf.zeros_like(window), window))

            def body(done, *_):
                finite, counted = self._strategy.run(replica_step, args=(batch_of(block, first + done),))
                here = self._strategy.experimental_local_results
                return done + 1, here(finite)[0], here(counted)[0]

            _, finite, counted = tf.while_loop(
                lambda done, finite, _: tf.logical_and(done < num_steps, finite),
                body,
                (tf.constant(0), tf.constant(True), tf.zeros([NUM_VOTES])),
            )
            votes.sums.assign(counted)
            end: StateTensors = state.read()
            return LoopResult(end.window, packed_status(end.step, finite))

        return loop  # type: ignore[return-value]

    def evaluation_loop(self, step: EvaluationStep, state: TrainState) -> EvaluationLoop:
        """All batches, of each of which every worker measures its slice; every worker gets the same totals."""
        compute = tf.function(step, jit_compile=True) if step.xla else step
        here = self._strategy.experimental_local_results

        def replica_sums(batch: Batch) -> EvaluationSums:
            trainable = [own_copy(v).read_value() for v in state.evaluation_weights(step.ema)]
            own = own_slice(batch, self._local_replicas)
            return compute(trainable, list(state.read(own_copy).non_trainable), own)

        def evaluate(batch: Batch) -> EvaluationSums:
            sums, collected = self._strategy.run(replica_sums, args=(batch,))
            joined = {name: tf.concat(here(values), 0) for name, values in collected.items()}
            return EvaluationSums(tf.add_n(here(sums)), joined)

        @tf.function
        def loop(iterator, num_batches: tf.Tensor) -> EvaluationSums:
            own = evaluation_totals(iterator, num_batches, step.metrics.size, evaluate)
            sums, collected = here(self._strategy.run(self._gather_over_workers, args=(own,)))[0]
            in_order = {name: in_sample_order(values, num_batches) for name, values in collected.items()}
            return EvaluationSums(tf.reduce_sum(sums, 0), in_order)

        return loop

    def _exchanged(self, sums: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        """Statistics of a batch, of all replicas; counted as a contribution is, because the others wait for it."""
        total = _all_reduced(sums)
        self._count(sums, total)
        return total

    def _count(self, own: object, total: object) -> None:
        if global_replica() % self._local_replicas == 0:
            self._arrivals.arrive(tf.nest.flatten(own))
            self._arrivals.end(tf.nest.flatten(total))

    def _sum_over_replicas(self, contribution: Contribution, votes: tf.Tensor) -> tuple[Contribution, tf.Tensor]:
        """The sums of all tensors over all replicas, the votes packed in with them."""
        gradients = contribution.gradients
        if self._half_floats:
            gradients = tuple(tf.cast(g, tf.bfloat16) if g.dtype == tf.float32 else g for g in gradients)
        reduced, counted = _all_reduced((contribution._replace(gradients=gradients), votes))
        whole = zip(reduced.gradients, contribution.gradients, strict=True)
        return reduced._replace(gradients=tuple(tf.cast(new, old.dtype) for new, old in whole)), counted

    def _gather_over_workers(self, own: EvaluationSums) -> EvaluationSums:
        """Each tensor of every worker, [W, ...]."""
        context = tf.distribute.get_replica_context()
        every = self._local_replicas  # each replica of a worker gives the same: one of them counts
        return tf.nest.map_structure(lambda value: context.all_gather(value[None], 0)[::every], own)


class WorkerAgreement(Votes):
    """`Agreement` of the workers of a strategy."""

    def __init__(self, strategy: tf.distribute.Strategy, is_chief: bool) -> None:
        super().__init__()
        self._strategy, self._is_chief = strategy, is_chief

    def from_chief(self, number: int) -> int:
        """The chief's number, on every worker."""

        @tf.function(autograph=False)  # whose conversion costs more than the rest, at every start
        def everywhere(own: tf.Tensor) -> tf.Tensor:
            total = self._strategy.run(
                lambda: _all_reduced(tf.identity(own) if global_replica() == 0 else tf.zeros_like(own))
            )
            return self._strategy.experimental_local_results(total)[0]

        return int(everywhere(tf.constant(number if self._is_chief else 0, tf.int64)).numpy())


def _wait_for_server(address: str) -> None:
    """Waits until a server listens. TensorFlow's own connection, refused once, tries again only after a second."""
    deadline = time.monotonic() + _SERVER_S
    while not listens(address) and time.monotonic() < deadline:  # then TensorFlow says what is wrong
        time.sleep(_LOOK_S)


@contextlib.contextmanager
def _signal_kept(number: signal.Signals) -> Iterator[None]:
    """Undoes what TensorFlow does to a signal: its coordination service takes SIGTERM for itself, and tells nobody."""
    handler = signal.getsignal(number)
    yield
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


def _all_reduced(values):
    """The sum of each tensor over all replicas; those of one type are packed."""
    flat = tf.nest.flatten(values)
    context = tf.distribute.get_replica_context()
    reduced: dict[int, tf.Tensor] = {}
    for dtype in dict.fromkeys(value.dtype for value in flat):
        places = [i for i, value in enumerate(flat) if value.dtype == dtype]
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [flat[i] for i in places])
        reduced |= zip(places, sums, strict=True)
    return tf.nest.pack_sequence_as(values, [reduced[i] for i in range(len(flat))])
