"""From the `optimizer` section to an optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from trainer.config.optimizer import (
    AdafactorOptimizer,
    AdagradOptimizer,
    AdamOptimizer,
    AdamWOptimizer,
    LambOptimizer,
    OptimizerConfig,
    SgdOptimizer,
)
from trainer.optimizers.adafactor import Adafactor
from trainer.optimizers.functional import make_functional
from trainer.optimizers.schedules import Schedule
from trainer.optimizers.weight_decay import mask_weight_decay


def build_optimizer(
    config: OptimizerConfig, total_steps: int, steps_per_epoch: int, variables: Sequence[keras.Variable]
) -> keras.optimizers.Optimizer:
    """The optimizer of a config, functional and built.

    It only updates: clipping, averaging, accumulation and loss scale are the step's. Weight decay is decoupled for
    every rule: before its update a weight loses `weight_decay` times the learning rate of its value.

    Args:
        config: The `optimizer` section.
        total_steps: Length of the training, for the schedule.
        steps_per_epoch: For intervals in epochs.
        variables: The model's trainable variables.

    Raises:
        ValueError: The schedule does not fit the length of the training.
    """
    rate = Schedule(config.learning_rate, config.schedule, total_steps, steps_per_epoch)
    optimizer = make_functional(_update_rule(config, rate))
    if config.weight_decay is not None:
        mask_weight_decay(optimizer, variables, config.no_decay)
    optimizer.build(list(variables))
    return optimizer


def _update_rule(config: OptimizerConfig, rate: Schedule) -> keras.optimizers.Optimizer:
    # The name begins the paths of the slots, and Keras would number it by what the process built before.
    common: dict[str, Any] = {"learning_rate": rate, "weight_decay": config.weight_decay, "name": config.name}
    match config:
        case AdamOptimizer() | AdamWOptimizer():
            moments = {"beta_1": config.beta_1, "beta_2": config.beta_2, "epsilon": config.epsilon}
            return keras.optimizers.Adam(**moments, **common)
        case SgdOptimizer():
            return keras.optimizers.SGD(momentum=config.momentum, nesterov=config.nesterov, **common)
        case AdagradOptimizer():
            start = {"initial_accumulator_value": config.initial_accumulator, "epsilon": config.epsilon}
            return keras.optimizers.Adagrad(**start, **common)
        case LambOptimizer():
            moments = {"beta_1": config.beta_1, "beta_2": config.beta_2, "epsilon": config.epsilon}
            return keras.optimizers.Lamb(**moments, **common)
        case AdafactorOptimizer():
            return Adafactor(clip_threshold=config.clip_threshold, **common)
