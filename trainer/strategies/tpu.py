"""A replica on each TensorCore of a Cloud TPU slice (`tf.distribute.TPUStrategy`).

One process drives the slice, also one of several hosts. What a replica does in a call of the inner loop is one XLA
program; see `trainer.strategies.tpu_program`.

It has never run on hardware. What can be proved without one is: `phalanx check --tpu` compiles the same program with
the compiler of TPUs, and its arithmetic runs on a CPU in the tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import tensorflow as tf

from trainer.config.strategy import StrategyConfig
from trainer.data.shard import WHOLE, Shard
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.step.gradients import Batch
from trainer.strategies.arrivals import ArrivalCount
from trainer.strategies.inner_loop import evaluation_totals
from trainer.strategies.strategy import Agreement, Block, EvaluationLoop, LoopResult, Regrouping, Replication, TrainLoop
from trainer.strategies.tpu_preflight import check_tensorflow
from trainer.strategies.tpu_program import replica_program


class TpuUnreachable(RuntimeError):
    """The TPU that the config names is not there or does not answer."""


class Tpu:
    """Data parallelism over the TensorCores of a slice.

    Args:
        strategy: Made by `connect`.
    """

    shard: Shard = WHOLE
    agreement: Agreement | None = None
    arrivals: Callable[[], ArrivalCount] | None = None
    regrouping: Regrouping | None = None
    replication: Replication | None = None

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.num_replicas = strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager:
        """Variables made within it have a copy on every TensorCore."""
        return self._strategy.scope()

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """A loop that runs on the device from the first step of a call to the last."""
        program = replica_program(step, state, _sum_over_replicas, _replica)
        here = self._strategy.experimental_local_results

        @tf.function(autograph=step.converts)
        def loop(block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
            result = self._strategy.run(program, args=(self._dealt(block, axis=1), first, num_steps, empty_window))
            return LoopResult(here(result.window)[0], here(result.status)[0])

        return loop  # type: ignore[return-value]

    def evaluation_loop(self, step: EvaluationStep, state: TrainState) -> EvaluationLoop:
        """All batches, each spread over the replicas; the host adds up, because a TPU has no float64."""
        here = self._strategy.experimental_local_results

        def replica_sums(batch: Batch) -> EvaluationSums:
            trainable = [v.read_value() for v in state.evaluation_weights(step.ema)]
            return step(trainable, list(state.read().non_trainable), batch)

        def evaluate(batch: Batch) -> EvaluationSums:
            sums, collected = self._strategy.run(replica_sums, args=(self._dealt(batch, axis=0),))
            joined = {name: tf.concat(here(values), 0) for name, values in collected.items()}
            return EvaluationSums(tf.add_n(here(sums)), joined)

        @tf.function
        def loop(iterator, num_batches: tf.Tensor) -> EvaluationSums:
            return evaluation_totals(iterator, num_batches, step.metrics.size, evaluate)

        return loop

    def _dealt(self, features: Block, axis: int) -> Block:
        """Each replica's rows, as the per-replica values that `run` takes."""

        def part(context: tf.distribute.experimental.ValueContext) -> Block:
            replica, total = context.replica_id_in_sync_group, context.num_replicas_in_sync
            return {name: rows_of(value, axis, int(replica), total) for name, value in features.items()}

        return self._strategy.experimental_distribute_values_from_function(part)


def rows_of(value: tf.Tensor, axis: int, replica: int, num_replicas: int) -> tf.Tensor:
    """A replica's part of a tensor that is cut along an axis into consecutive equal ones."""
    size = value.shape[axis]
    assert size is not None and size % num_replicas == 0, "refused before: the batch is cut into equal parts"
    begin = replica * (size // num_replicas)
    return value[(slice(None),) * axis + (slice(begin, begin + size // num_replicas),)]


def connect(config: StrategyConfig) -> Tpu:
    """Connects to the TPU that a config names and clears it.

    Args:
        config: `tpu` is "local" for the chips of this machine; any other name is looked up with the Cloud TPU API, and
            may be a slice of several hosts (a pod).

    Raises:
        TpuNotUsable: This TensorFlow cannot drive a TPU.
        TpuUnreachable: There is no such TPU, or it does not answer.
    """
    check_tensorflow()
    try:
        resolver = resolver_of(config)
        if config.tpu != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        first = next(iter(str(error).splitlines()), "no message")
        raise TpuUnreachable(
            f"strategy.tpu={config.tpu} must be a TPU that is ready, and TensorFlow says: {first}: look at it with "
            "phalanx tpu describe, or set strategy.tpu=local on the TPU host itself"
        ) from error
    return Tpu(tf.distribute.TPUStrategy(resolver))


def resolver_of(config: StrategyConfig) -> tf.distribute.cluster_resolver.TPUClusterResolver:
    """What knows the addresses of the TPU's hosts: this machine's chips, or those of a named slice."""
    if config.tpu == "local":
        return tf.distribute.cluster_resolver.TPUClusterResolver("local")
    return tf.distribute.cluster_resolver.TPUClusterResolver(
        config.tpu, zone=config.tpu_zone, project=config.tpu_project
    )


def _sum_over_replicas(values: list[tf.Tensor]) -> list[tf.Tensor]:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def _replica() -> tf.Tensor:
    return tf.convert_to_tensor(tf.distribute.get_replica_context().replica_id_in_sync_group)
