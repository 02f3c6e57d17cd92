"""Learning-rate schedules as functions of the step."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from trainer.config.interval import Interval
from trainer.config.optimizer import CosineSchedule, LinearSchedule, ScheduleConfig, StepSchedule


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of each step: a linear warm-up, and after it the shape that the config names.

    Step `s` is 0-based: the optimizer's `iterations` before its update. In a warm-up of `n` steps it gets
    (s + 1) / n of the full rate, so that no step is lost to a rate of 0. Cosine and linear fall from the full rate, at
    the end of the warm-up, to `end_factor` of it at the end of training, as `keras.optimizers.schedules.CosineDecay`
    and `PolynomialDecay` do; past the end the rate stays.

    A pure function of the step, in float32, without control flow: it compiles, and a resumed run needs nothing else.

    Args:
        learning_rate: The full rate.
        config: The `schedule` section.
        total_steps: Length of the training.
        steps_per_epoch: For intervals in epochs.

    Raises:
        ValueError: The warm-up leaves no step of the training, or the boundaries do not increase.
    """

    def __init__(self, learning_rate: float, config: ScheduleConfig, total_steps: int, steps_per_epoch: int):
        self._rate = learning_rate
        self._config = config
        self._total_steps = total_steps
        self._warmup = 0 if config.warmup is None else in_steps(config.warmup, steps_per_epoch)
        if self._warmup >= total_steps:
            raise ValueError(
                f"optimizer.schedule.warmup={config.warmup} is {self._warmup} steps, which must be fewer than the "
                f"training's {total_steps}: shorten the warm-up or train longer"
            )
        self._boundaries: list[int] = []
        if isinstance(config, StepSchedule):
            self._boundaries = [in_steps(boundary, steps_per_epoch) for boundary in config.boundaries]
            if any(a >= b for a, b in zip(self._boundaries, self._boundaries[1:], strict=False)):
                raise ValueError(
                    f"optimizer.schedule.boundaries={[str(b) for b in config.boundaries]} must increase, but they are "
                    f"the steps {self._boundaries}: put them in order"
                )

    def __call__(self, step: Any) -> tf.Tensor:
        """The learning rate of a step, float32 scalar."""
        step = tf.cast(tf.convert_to_tensor(step), tf.float32)
        factor = self._shape(step)
        if self._warmup:
            factor = tf.where(step < self._warmup, (step + 1.0) / self._warmup, factor)
        return factor * self._rate

    def _shape(self, step: tf.Tensor) -> tf.Tensor:
        config = self._config
        if isinstance(config, StepSchedule):
            num_passed = sum(tf.cast(step >= boundary, tf.float32) for boundary in self._boundaries)
            return tf.pow(tf.constant(config.factor), num_passed)
        if isinstance(config, (CosineSchedule, LinearSchedule)):
            done = tf.clip_by_value((step - self._warmup) / (self._total_steps - self._warmup), 0.0, 1.0)
            left = (1.0 + tf.cos(math.pi * done)) / 2.0 if isinstance(config, CosineSchedule) else 1.0 - done
            return config.end_factor + (1.0 - config.end_factor) * left
        return tf.constant(1.0)

    def get_config(self) -> dict[str, Any]:
        """What `build_optimizer` makes it from again."""
        return {"learning_rate": self._rate, "schedule": self._config.model_dump(mode="json")}


def in_steps(interval: Interval, steps_per_epoch: int) -> int:
    """An interval of steps or epochs as a number of steps, at least 1.

    >>> in_steps(Interval.parse("1.5ep"), steps_per_epoch=100)
    150
    """
    return max(1, round(interval.value * (steps_per_epoch if interval.unit == "ep" else 1)))
