"""The trainings that benchmarks/strategies.py measures, for every way of spreading a step over two workers."""

from __future__ import annotations

from typing import Any

from trainer.config.training import TrainingConfig

NUM_WORKERS = 2
BY_HAND = "by_hand"  # no strategy of ours: benchmarks/mirrored_loop.py
WARM_UP_STEPS = {"mlp": 200, "cnn": 20, "transformer": 6}
MODELS = tuple(WARM_UP_STEPS)

_SETTINGS: dict[str, dict[str, Any]] = {
    "mlp": {
        "model": {"name": "mlp", "hidden": [128, 64], "dropout": 0.0},
        "data": {"name": "digits", "batch_size": 64},
        "train": {"steps_per_loop": 50},
    },
    "cnn": {
        "model": {"name": "cnn", "filters": [32, 64], "dense": 1152, "dropout": 0.0},  # 4.8 million parameters
        "data": {"name": "synthetic", "num_samples": 1024, "shape": [32, 32, 3], "num_classes": 10, "batch_size": 64},
        "train": {"steps_per_loop": 10},
    },
    "transformer": {
        # 25.5 million parameters, all of them in layers: the time of a step is that of arithmetic.
        "model": {"name": "transformer_lm", "layers": 8, "width": 512, "heads": 8, "dropout": 0.0},
        "data": {
            "name": "synthetic",
            "kind": "tokens",
            "num_samples": 256,
            "shape": [64],
            "num_classes": 512,
            "batch_size": 8,
        },
        "task": {"name": "language_modelling"},
        "train": {"steps_per_loop": 2},
    },
}


def batch_size(model: str) -> int:
    """Samples of a step, of all workers together."""
    return _SETTINGS[model]["data"]["batch_size"]


def training_config(model: str, strategy: str, run_dir: str) -> TrainingConfig:
    """A training without an end.

    Args:
        model: One of `MODELS`.
        strategy: `strategy.name`; with one_device the batch is what a worker computes of the whole one.
        run_dir: Where the run folder comes to lie.
    """
    own = _SETTINGS[model]
    batch = batch_size(model) // (NUM_WORKERS if strategy == "one_device" else 1)
    return TrainingConfig.model_validate(
        {
            "run": {"name": "run", "dir": run_dir},
            "model": own["model"],
            "data": {**own["data"], "batch_size": batch},
            "task": own.get("task", {"name": "classification"}),
            "train": {
                "xla": True,
                "steps": 10**9,
                "log_every": 50,
                "virtual_workers": NUM_WORKERS if strategy == "elastic" else None,
                **own["train"],
            },
            "optimizer": {"name": "adam", "learning_rate": 0.001},
            "evaluate": {"every": None},
            "checkpoint": {"every": "1000000000st"},
            "strategy": {"name": strategy},
            "observe": {"tensorboard": False},
            "export": {"enabled": False},
        }
    )
