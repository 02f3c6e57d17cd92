"""From a config to the program that a TPU would run, on a machine without one.

Nothing here computes a step: the program is traced and handed to TensorFlow's bridge to XLA, for whatever device.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from trainer.config.training import TrainingConfig
from trainer.data.pipeline import SHORTEST_BLOCK, steps_that_fit, train_batches
from trainer.data.shard import WHOLE, Shard
from trainer.session import Session, build_session
from trainer.state import TrainState
from trainer.step.build import Step, build_step
from trainer.step.evaluation import EvaluationStep
from trainer.strategies.arrivals import ArrivalCount
from trainer.strategies.choice import Choice
from trainer.strategies.strategy import Agreement, EvaluationLoop, Regrouping, Replication, TrainLoop
from trainer.strategies.tpu_program import replica_program


class Unplaced:
    """Stands for `trainer.strategies.tpu.Tpu` on a machine without one: its variables are here, and it runs nothing.

    Args:
        num_replicas: of the slice that it stands for.
    """

    shard: Shard = WHOLE
    agreement: Agreement | None = None
    arrivals: Callable[[], ArrivalCount] | None = None
    regrouping: Regrouping | None = None
    replication: Replication | None = None

    def __init__(self, num_replicas: int) -> None:
        self.num_replicas = num_replicas

    def scope(self) -> contextlib.AbstractContextManager:
        """The CPU, where the variables lie whose shapes count."""
        return tf.device("CPU:0")

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """There is none."""
        raise NotImplementedError("a program that is only compiled does not run")

    def evaluation_loop(self, step: EvaluationStep, state: TrainState) -> EvaluationLoop:
        """There is none."""
        raise NotImplementedError("a program that is only compiled does not run")


class TpuLowering:
    """The training of a config as the program of one replica, for any size of batch.

    Args:
        config: any strategy; its step is the one of `strategy.name=tpu`.
        num_replicas: of the slice.

    Attributes:
        session: the training, with data opened and model built.

    Raises:
        DataError: the data is missing or damaged.
        ValueError: model, task and data do not fit together, or the config cannot be had on a TPU.
    """

    def __init__(self, config: TrainingConfig, num_replicas: int) -> None:
        strategy = config.strategy.model_copy(update={"name": "tpu", "devices": None})
        evaluate = config.evaluate.model_copy(update={"every": None})
        best = config.checkpoint.model_copy(update={"best_metric": None})
        config = config.model_copy(update={"strategy": strategy, "evaluate": evaluate, "checkpoint": best})
        choice = Choice(strategy, "strategy tpu, because it is to be compiled for one", False)
        self.session: Session = build_session(config, new_strategy=lambda *_: Unplaced(num_replicas), choice=choice)
        self._num_replicas = num_replicas
        batches = train_batches(
            self.session.source, self.session.order, first_step=0, num_steps=1, augment=config.data.augment
        )
        self._features: dict[str, tf.TensorSpec] = batches.element_spec  # type: ignore[assignment]

    @property
    def state_bytes(self) -> int:
        """Of weights, optimizer and whatever else a replica keeps."""
        sizes = (v.dtype.size * (v.shape.num_elements() or 0) for v in self.session.state.variables.values())
        return sum(sizes)

    @property
    def layers(self) -> list[str]:
        """Names of the model's layers, however deep."""
        return [layer.name for layer in self.session.model._flatten_layers(include_self=False)]

    def batch_bytes(self, batch_size: int) -> int:
        """Of the samples that a replica reads in a step."""
        block = self._block(batch_size).values()
        return sum(spec.dtype.size * (spec.shape[1:].num_elements() or 0) for spec in block)

    @property
    def batch_unit(self) -> int:
        """What the global batch must be a multiple of."""
        train = self.session.config.train
        return (train.virtual_workers or self._num_replicas) * train.accumulate

    def program(self, batch_size: int) -> bytes:
        """The serialized HLO module of one replica.

        Args:
            batch_size: of the global batch, a multiple of `batch_unit`.

        Raises:
            Exception: whatever tracing the user's model raises, and `tf.errors.OpError` where XLA has no translation.
        """
        return self._translated(batch_size)(stage="hlo_serialized", platform_name="CPU")

    def node_with(self, batch_size: int, kind: str) -> str:
        """The name of the first node in a program whose value is of a type, such as "c128"; empty: none is."""
        text = self._translated(batch_size)(stage="hlo", platform_name="CPU")
        lines = (line for line in text.splitlines() if re.search(rf"= \(?{kind}\[", line))
        names = (re.search(r'op_name="([^"]+)"', line) for line in lines)
        return next((match[1] for match in names if match and "/" in match[1]), "")

    def _translated(self, batch_size: int) -> Callable[..., Any]:
        function, specs = self.function(batch_size)
        return function.experimental_get_compiler_ir(*specs)

    def function(self, batch_size: int) -> tuple[Any, list[tf.TensorSpec]]:
        """The program as a function of its own arguments, of which each is one tensor, and their shapes.

        Args:
            batch_size: of the global batch, a multiple of `batch_unit`.
        """
        session = self.session
        config = session.config.model_copy(
            update={"data": session.config.data.model_copy(update={"batch_size": batch_size})}
        )
        old = session.step
        step = build_step(
            config,
            session.model,
            session.task,
            old.apply.optimizer,
            old.window.metrics,
            self._num_replicas,
            old.new_optimizer,
        )
        program = replica_program(step, session.state, self._sum, gen_xla_ops.xla_replica_id)
        scalar, block = tf.TensorSpec([], tf.int32), self._block(batch_size)

        # One argument a tensor, because the compiler's view of a function does not look into a dict.
        @tf.function(jit_compile=True, autograph=step.converts)
        def flat(first, num_steps, empty_window, *features):
            return program(dict(zip(block, features, strict=True)), first, num_steps, empty_window)

        return flat, [scalar, scalar, tf.TensorSpec([], tf.bool), *block.values()]

    def _block(self, batch_size: int) -> Mapping[str, tf.TensorSpec]:
        config = self.session.config
        steps = steps_that_fit(self.session.schema, batch_size, max(SHORTEST_BLOCK, config.train.steps_per_loop))
        rows = batch_size // self._num_replicas
        return {
            name: tf.TensorSpec([steps, rows, *spec.shape[1:]], spec.dtype) for name, spec in self._features.items()
        }

    def _sum(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        if self._num_replicas == 1:
            return values
        group = [list(range(self._num_replicas))]
        return [gen_xla_ops.xla_all_reduce(value, group, reduce_op="Add", mode="CrossReplica") for value in values]
