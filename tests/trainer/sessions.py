"""Small trainings for tests: a config in a dict, built and stepped without a run folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config.training import TrainingConfig
from trainer.session import Session, build_session
from trainer.step.window import mean_loss

# gelu has no kink: with relu a rounding error near zero switches a unit's gradient on or off, and curves that should
# agree within rounding part for good.
SMALL = {
    "run": {"name": "small"},
    "model": {"name": "mlp", "hidden": [16], "activation": "gelu", "dropout": 0.3},
    "data": {"name": "synthetic", "num_samples": 96, "batch_size": 16, "shape": [12], "num_classes": 3},
    "train": {"steps": 12, "seed": 3},
    "evaluate": {"every": None},
}


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with the nested settings of `change`; a section with another name replaces the whole section."""
    if change.get("name", base.get("name")) != base.get("name") and "name" in base:
        return change
    out = dict(base)
    for key, value in change.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def small_config(**change: Any) -> TrainingConfig:
    """The small config with some settings changed."""
    return TrainingConfig.model_validate(merged(SMALL, change))


def small_session(**change: Any) -> Session:
    return build_session(small_config(**change))


def losses(session: Session, num_steps: int, steps_per_call: int = 1) -> list[float]:
    """The mean loss of each call of the inner loop."""
    loop = session.strategy.train_loop(session.step, session.state)
    blocks = session.blocks(session.state.step, num_steps)
    curve = []
    for _ in range(num_steps // steps_per_call):
        left, result = steps_per_call, None
        while left:
            block, first, taken = blocks.take(left)
            result = loop(block, tf.constant(first), tf.constant(taken), tf.constant(left == steps_per_call))
            left -= taken
        assert result is not None
        curve.append(mean_loss(result.window.numpy()))
    return curve


def weights(session: Session) -> dict[str, np.ndarray]:
    return {name: v.numpy() for name, v in session.state.variables.items() if name.startswith("model/")}
