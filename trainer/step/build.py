"""Builds the one train step from model, task, optimizer and config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from trainer.config.model import CustomModel
from trainer.config.task import CustomTask
from trainer.config.training import TrainingConfig
from trainer.data.source import Schema
from trainer.optimizers.kernels import has_kernels
from trainer.step.apply import Applied, Apply
from trainer.step.compilation import Compilation, Scope, choose_compilation
from trainer.step.freezing import Thawing
from trainer.step.global_statistics import has_batch_normalisation
from trainer.step.gradients import Gradients
from trainer.step.state_tensors import Contribution, StateTensors
from trainer.step.tying import tie_variables
from trainer.step.window import MetricLayout, WindowLayout
from trainer.tasks.task import Task

# Their second half changes variables of one device, outside of what is compiled with the first.
_UPDATES_BY_KERNELS = ("one_device", "mirrored", "multi_worker_mirrored", "elastic")


@dataclass
class Step:
    """A training step in two pure halves; a strategy reduces between them.

    Attributes:
        gradients: (state, slice of the batch, first position) -> contribution.
        window: Layout of `StateTensors.window`.
        compilation: What the adapter compiles, and whether it uses TensorFlow's update kernels.
        new_optimizer: Builds the step's optimizer again, on other variables.
        converts: Whether `if` and `while` over tensors must work, as in a task or a model of the user's. Looking for
            them in all that is called takes most of the time of tracing, and our own code has none.
    """

    gradients: Gradients
    apply: Apply
    window: WindowLayout
    compilation: Compilation
    new_optimizer: Callable[[Sequence[keras.Variable]], keras.optimizers.Optimizer]
    converts: bool = True

    @property
    def xla(self) -> Scope | None:
        """What is compiled: what can be of a "step", a whole "loop" of them, or the "update" after the gradients."""
        return self.compilation.scope

    @property
    def compiles_gradients(self) -> bool:
        """Whether the first half, and the evaluation, is compiled with XLA."""
        return self.xla in ("step", "loop")

    @property
    def compiles_update(self) -> bool:
        """Whether the second half is."""
        return self.xla is not None

    def finish(self, state: StateTensors, total: Contribution) -> Applied:
        """The second half, given the contributions of all replicas together."""
        return self.apply(state, total, self.gradients.changed)


def metric_layout(model: keras.Model, task: Task, schema: Schema) -> MetricLayout:
    """Names and lengths of the task's sums, from tracing them once on unknown samples."""
    traced = tf.function(lambda batch: task.metric_sums(model(task.inputs(batch), training=False), batch))
    sums = traced.get_concrete_function(_two_samples(schema)).structured_outputs
    return MetricLayout({name: int(tf.TensorShape(s.shape).num_elements() or 1) for name, s in sums.items()})


def collects(model: keras.Model, task: Task, schema: Schema) -> bool:
    """Whether an evaluation keeps something of every sample, for metrics that no sum can give."""
    traced = tf.function(lambda batch: task.collect(model(task.inputs(batch), training=False), batch))
    return bool(traced.get_concrete_function(_two_samples(schema)).structured_outputs)


def _two_samples(schema: Schema) -> dict[str, tf.TensorSpec]:
    return {name: tf.TensorSpec([2, *feature.shape], feature.dtype, name) for name, feature in schema.features.items()}


def build_step(
    config: TrainingConfig,
    model: keras.Model,
    task: Task,
    optimizer: keras.optimizers.Optimizer,
    metrics: MetricLayout,
    num_replicas: int,
    new_optimizer: Callable[[Sequence[keras.Variable]], keras.optimizers.Optimizer],
    thawing: Thawing | None = None,
) -> Step:
    """The step of a config.

    Args:
        config: Its train, data and optimizer sections are read.
        model: Built.
        task: What a batch means.
        optimizer: Functional and built.
        metrics: Layout of the task's sums.
        num_replicas: Slices that the strategy cuts the global batch into.
        new_optimizer: Has built `optimizer` on the model's trainable variables.
        thawing: The layers that are frozen at first.

    Raises:
        ValueError: Statistics of batches are to be synchronised, and the model has none.
    """
    synchronizes = config.train.synchronize_batch_norm
    if synchronizes and not has_batch_normalisation(model):
        raise ValueError(
            f"train.synchronize_batch_norm=true must have layers of batch normalisation, and model.name="
            f"{config.model.name} has none: remove it"
        )
    # A device that has several parts computes them at once where they have statistics in common.
    tree_parts = 1 if synchronizes else max(1, (config.train.virtual_workers or 1) // num_replicas)
    is_synchronized = synchronizes and num_replicas > 1
    num_contributions = num_replicas * tree_parts * config.train.accumulate
    window = WindowLayout(metrics)
    gradients = Gradients(
        model=model,
        task=task,
        metrics=metrics,
        seed=config.train.seed,
        batch_size=config.data.batch_size,
        tree_parts=tree_parts,
        accumulate=config.train.accumulate,
        whole=num_contributions == 1,
        thawing=thawing,
        is_synchronized=is_synchronized,
    )
    apply = Apply(
        model=model,
        optimizer=optimizer,
        window=window,
        batch_size=config.data.batch_size,
        num_contributions=num_contributions,
        whole=num_contributions == 1,
        clip_norm=config.optimizer.clip_norm,
        clip_value=config.optimizer.clip_value,
        ema_decay=config.train.ema,
        thaws=thawing.thaws(model.trainable_variables) if thawing else (),
        tying=tie_variables(model.trainable_variables, config.tied),
    )
    is_users = isinstance(config.task, CustomTask) or isinstance(config.model, CustomModel)
    # The kernels write to the variables themselves: no choice between two states, no rows that stay as they are.
    may_use_kernels = (
        config.strategy.name in _UPDATES_BY_KERNELS
        and config.precision != "mixed_float16"
        and thawing is None
        and config.tied is None
        # Second halves of their own.
        and not config.elastic.shard_optimizer
        and config.elastic.outer_every is None
        and has_kernels(optimizer)
    )
    # A sum that begins early, or, but on a TPU, an exchange in the middle.
    begins_early = config.strategy.name == "elastic" and config.elastic.overlap == "always"
    comes_apart = begins_early or (is_synchronized and config.strategy.name != "tpu")
    compilation = choose_compilation(config.train, model, may_use_kernels, comes_apart)
    return Step(gradients, apply, window, compilation, new_optimizer, converts=is_users)
