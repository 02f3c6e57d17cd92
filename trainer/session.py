"""Everything that a training consists of, built from its config: data, task, model, strategy, step and state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import keras
import numpy as np
import tensorflow as tf

from trainer.best_metric import check_best_metric
from trainer.config.combinations import batch_norm_problems, batch_problems, profile_problems, round_problem
from trainer.config.strategy import StrategyConfig
from trainer.config.training import TrainingConfig
from trainer.data.block_reader import BlockReader
from trainer.data.mixture import sample_order
from trainer.data.order import SampleOrder
from trainer.data.pipeline import SHORTEST_BLOCK, BatchPipeline, steps_of_block, train_batches
from trainer.data.registry import open_source
from trainer.data.service import BlockAnswers, BlockService, served_blocks
from trainer.data.shard import Shard
from trainer.data.source import Schema, Source
from trainer.evaluate import Evaluator
from trainer.group import Group, check_group
from trainer.membership import Membership
from trainer.models.registry import build_model
from trainer.optimizers.build import build_optimizer
from trainer.state import TrainState
from trainer.step.build import Step, build_step, collects, metric_layout
from trainer.step.evaluation import EvaluationStep
from trainer.step.freezing import freeze_layers
from trainer.step.window import MetricLayout
from trainer.strategies.build import build_strategy
from trainer.strategies.choice import Choice, choose_strategy, with_suggestion
from trainer.strategies.elastic import Elastic
from trainer.strategies.strategy import Strategy
from trainer.strategies.tpu_preflight import config_problems, shape_problems
from trainer.tasks.registry import build_task
from trainer.tasks.task import Task


@dataclass
class Session:
    """The parts of one training in this process.

    Attributes:
        config: With the strategy that was chosen.
        choice: Says why.
        total_steps: Where the training ends.
        evaluator: None where nothing is held out or `evaluate.every` is null.
        service: Other processes that read its batches; None: it reads them itself.
        is_warm: Whether the inner loop has been traced and compiled; see `warm_up`.
    """

    config: TrainingConfig
    choice: Choice
    source: Source
    order: SampleOrder
    task: Task
    model: keras.Model
    strategy: Strategy
    step: Step
    state: TrainState
    evaluator: Evaluator | None
    total_steps: int
    service: BlockService | None = None
    is_warm: bool = False

    @property
    def schema(self) -> Schema:
        """Of the training data."""
        return self.source.schema

    @property
    def sources(self) -> list[Source]:
        """The data that is learned from and, where there is any, the held-out data."""
        return [self.source, *([self.evaluator.source] if self.evaluator else [])]

    @cached_property
    def _pipeline(self) -> BatchPipeline:
        return BatchPipeline(self.source, self.order, augment=self.config.data.augment, seed=self.config.train.seed)

    def batches(self, first_data_step: int, num_steps: int) -> tf.data.Dataset:
        """The global batches of `num_steps` steps from a data step on."""
        return self._pipeline.batches(first_data_step, num_steps)

    def blocks(self, first_data_step: int, num_steps: int, shard: Shard | None = None) -> BlockReader:
        """This process's slices of them, or another's, stacked for the inner loop: as many batches at once as
        `train.steps_per_loop` and memory allow.

        Blocks begin at multiples of their length, whatever the first step: calls of the inner loop end where blocks do,
        and members of a group that began at different steps must end theirs at the same ones.
        """
        shard = self.strategy.shard if shard is None else shard
        block_steps = steps_of_block(self.source, self.order, self._steps_of_block)
        first = first_data_step % block_steps
        first_data_step, num_steps = first_data_step - first, num_steps + first
        if self.service is not None:
            served = served_blocks(
                self.service,
                BlockAnswers(self.source, self.order, self.config.data.augment, self.config.train.seed),
                first_step=first_data_step,
                num_steps=num_steps,
                block_steps=block_steps,
                shard=shard,
                source=self.source,
            )
            return BlockReader(served, block_steps, first)
        # Tracing and iterators are what a group that is formed anew would wait for; else tf.data reads small samples at
        # up to twice the pace.
        opened = self._pipeline.dataset if self.strategy.regrouping is None else self._pipeline.blocks
        blocks = opened(first_data_step, num_steps, block_steps, shard)
        return BlockReader(blocks, block_steps, first)

    @property
    def _steps_of_block(self) -> int:
        """At most so many. The length of a block is a constant of a loop that is one program, and XLA compiles a block
        of one step to other arithmetic: a call then takes one step of a block of two, so that no bit depends on it."""
        is_program = self.step.xla == "loop" or self.config.strategy.name == "tpu"
        return max(SHORTEST_BLOCK if is_program else 1, self.config.train.steps_per_loop)

    def warm_up(self, num_workers: int) -> None:
        """Traces and runs everything that a step needs, for a worker that is to step in at once; the state stays.

        Args:
            num_workers: Of the group that it will step into, which decides how many parts it reads.
        """
        strategy = self.strategy
        assert strategy.regrouping is not None, "others are traced with their group"
        strategy.train_loop(self.step, self.state)
        fewest, rest = divmod(strategy.num_replicas, num_workers)
        for num_parts in (fewest + 1, fewest) if rest and fewest else (max(1, fewest),):
            reader = self.blocks(0, 1, Shard(0, num_parts, strategy.num_replicas))
            block = reader.take(1).block
            reader.close()
        strategy.regrouping.warm_up(block)
        self.is_warm = True

    def examples(self, steps: int) -> int:
        """Samples seen in so many steps, padding not counted."""
        epochs, steps_in_epoch = divmod(steps, self.order.steps_per_epoch)
        batch = self.order.batch_size
        in_epoch = self.order.steps_per_epoch * batch if self.order.remainder == "drop" else self.order.num_samples
        return epochs * in_epoch + min(steps_in_epoch * batch, in_epoch)


def build_session(
    config: TrainingConfig,
    group: Group | None = None,
    on_group: Callable[[], object] = lambda: None,
    new_strategy: Callable[[StrategyConfig, Group | None], Strategy] = build_strategy,
    *,
    choice: Choice | None = None,
    membership: Membership | None = None,
) -> Session:
    """Builds a training; nothing is written and no step is taken.

    Args:
        config: What to train.
        group: The workers that train together, all of which call this; TensorFlow must not have started its devices
            yet. None for a process alone.
        on_group: Called when the group is there, before data and model.
        new_strategy: Makes the adapter of a config and a group.
        choice: Of the strategy, where somebody has made it before.
        membership: How this process becomes a member of a group later, for strategy.name=elastic.

    Raises:
        DataError: The data is missing or damaged.
        ValueError: Model, task and data do not fit together, or the strategy and the group.
        NotEnoughDevices: The strategy asks for more devices than there are.
    """
    if choice is None:
        choice = choose_strategy(config, group.size if group else None, len(tf.config.list_physical_devices("GPU")))
    config = config.model_copy(update={"strategy": choice.config})
    check_group(config, group, membership is not None)
    if problems := batch_norm_problems(config):
        raise ValueError("\n".join(problems))
    _prepare_tensorflow(config)
    if membership is not None:
        strategy: Strategy = Elastic(membership, config.train.virtual_workers or 1)
    else:
        strategy = new_strategy(config.strategy, group)
    on_group()
    if config.strategy.name == "tpu":
        problems = config_problems(config, strategy.num_replicas)
    else:
        problems = batch_problems(config, strategy.num_replicas, "the number of replicas") if group is not None else []
    if problems:
        raise ValueError("\n".join(problems))
    source = open_source(config.data, "train")
    order = sample_order(config.data, source, config.train.seed)
    if config.strategy.name == "tpu":
        batch = train_batches(source, order, first_step=0, num_steps=1, augment=config.data.augment).element_spec
        if problems := shape_problems(batch):  # type: ignore[arg-type]
            raise ValueError("\n".join(problems))
    if isinstance(strategy, Elastic):
        strategy.set_options(config.elastic, order.steps_per_epoch)
    total_steps = config.train.steps or math.ceil((config.train.epochs or 0) * order.steps_per_epoch)
    if problem := round_problem(config.elastic, total_steps, f"the {total_steps} steps of this training"):
        raise ValueError(problem)
    length = f"train.epochs={config.train.epochs or 0:g} of {order.steps_per_epoch} steps"
    if problems := profile_problems(config, total_steps, length):
        raise ValueError("\n".join(problems))
    task = build_task(config.task, source.schema)
    with strategy.scope():
        model = build_model(config.model, source.schema, task, precision=config.precision, seed=config.train.seed)
        thawing = freeze_layers(model, config.freeze, order.steps_per_epoch)
        new_optimizer = partial(build_optimizer, config.optimizer, total_steps, order.steps_per_epoch)
        optimizer = new_optimizer(model.trainable_variables)
        metrics = metric_layout(model, task, source.schema)
        step = build_step(config, model, task, optimizer, metrics, strategy.num_replicas, new_optimizer, thawing)
        state = TrainState(
            model,
            optimizer,
            ema=config.train.ema is not None,
            scaled=config.precision == "mixed_float16",
            window_size=step.window.size,
            outer=config.elastic.outer_every is not None,
        )
    evaluator = None
    if config.evaluate.every is not None:
        evaluation = EvaluationStep(model, task, metrics, step.compiles_gradients, config.evaluate.ema)
        evaluator = Evaluator(
            strategy.evaluation_loop(evaluation, state),
            evaluation,
            open_source(config.data, "held_out"),
            _evaluation_batch(config, strategy.num_replicas),
            config.data.held_out,
            strategy.shard,
        )
        _check_best_metric(config.checkpoint.best_metric, model, task, metrics, source.schema)
    choice = with_suggestion(choice, *embedding_bytes(model))
    return Session(config, choice, source, order, task, model, strategy, step, state, evaluator, total_steps)


def embedding_bytes(model: keras.Model) -> tuple[int, int]:
    """Of the tables of embeddings, and of all trainable weights."""
    tables = {id(layer._embeddings) for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)}
    sizes = [(id(v) in tables, 4 * math.prod(v.shape)) for v in model.trainable_variables]
    return sum(size for is_table, size in sizes if is_table), sum(size for _, size in sizes)


def _check_best_metric(
    wanted: str | None, model: keras.Model, task: Task, layout: MetricLayout, schema: Schema
) -> None:
    """Refuses a name that no evaluation will have; what only samples can tell is found out by the first evaluation.

    Raises:
        ValueError: There is no such metric.
    """
    # A task of the user's own need not be able to say anything about no samples.
    if wanted is None or not type(task).__module__.startswith("trainer."):
        return
    known = ["loss", *task.metrics(layout.unpack(np.zeros(layout.size)))]
    if wanted not in known and not collects(model, task, schema):
        check_best_metric(wanted, known)


def _evaluation_batch(config: TrainingConfig, num_replicas: int) -> int:
    """At least what the config says; it changes no metric, and only replicas on several workers cut it evenly."""
    wanted = config.evaluate.batch_size or config.data.batch_size
    return -(-wanted // num_replicas) * num_replicas


def _prepare_tensorflow(config: TrainingConfig) -> None:
    keras.utils.clear_session()  # layer names, hence checkpoint names, must not depend on models built before
    keras.utils.set_random_seed(config.train.seed)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if gpus and config.train.deterministic:
        # On a CPU the kernels of a step are deterministic as they are, and the flag would forbid the clock that
        # measures the waiting for data.
        tf.config.experimental.enable_op_determinism()
