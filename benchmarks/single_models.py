"""The trainings that benchmarks/single.py measures: configs for Phalanx, and their data and models for the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.config.training import TrainingConfig

# The steps of one call: enough that the call itself costs nothing, few enough that a turn is many calls.
STEPS_PER_CALL = {"mlp": 50, "cnn": 10, "transformer_lm": 5}
MODELS = tuple(STEPS_PER_CALL)

_SETTINGS: dict[str, dict[str, Any]] = {
    "mlp": {
        "model": {"name": "mlp", "hidden": [128], "dropout": 0.2},
        "data": {"name": "mnist_sample", "batch_size": 32},
        "train": {"xla": True, "xla_scope": "loop"},
    },
    "cnn": {
        "model": {"name": "cnn", "filters": [32, 64], "dense": 128, "dropout": 0.25},
        "data": {"name": "synthetic", "num_samples": 4096, "shape": [28, 28, 1], "num_classes": 10, "batch_size": 64},
        "train": {"xla": True},
    },
    "transformer_lm": {
        "model": {"name": "transformer_lm", "layers": 2, "width": 128, "heads": 4, "dropout": 0.1},
        "data": {
            "name": "synthetic",
            "kind": "tokens",
            "num_samples": 4096,
            "shape": [65],
            "num_classes": 512,
            "batch_size": 16,
        },
        "task": {"name": "language_modelling"},
        "train": {"xla": True},
    },
}


def training_config(model: str, run_dir: str, checkpoint_every: str | None) -> TrainingConfig:
    """Phalanx's config of a model, without an end; `checkpoint_every` None: only at the end."""
    settings = {**_SETTINGS[model], "run": {"name": model, "dir": run_dir}, "evaluate": {"every": None}}
    steps = STEPS_PER_CALL[model]
    settings["train"] = {**settings["train"], "steps": 10**9, "steps_per_loop": steps, "log_every": 50}
    settings["checkpoint"] = {"every": checkpoint_every or "1000000000st"}
    return TrainingConfig.model_validate(settings)


def batch_size(model: str) -> int:
    """Samples of a step."""
    return _SETTINGS[model]["data"]["batch_size"]


def arrays(model: str) -> tuple[np.ndarray, np.ndarray]:
    """The training data in memory: inputs and targets."""
    import tensorflow as tf

    from trainer.data.registry import open_source

    source = open_source(training_config(model, "unused", None).data, "train")
    samples = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    if model == "transformer_lm":
        tokens = samples["tokens"].numpy()
        return tokens[:, :-1], tokens[:, 1:]
    (name,) = source.schema.inputs
    return samples[name].numpy(), samples[source.schema.target or ""].numpy()


def keras_model(model: str) -> Any:
    """The same network as Phalanx trains, a plain keras.Model."""
    from trainer.data.registry import open_source
    from trainer.models.registry import build_model
    from trainer.tasks.registry import build_task

    config = training_config(model, "unused", None)
    schema = open_source(config.data, "train").schema
    return build_model(config.model, schema, build_task(config.task, schema))


def tf_keras_model(model: str) -> Any:
    """The same layers in tf-keras.

    Raises:
        KeyError: The model is not written for tf-keras.
    """
    import tf_keras as k

    shape = arrays(model)[0].shape[1:]
    layers = k.layers
    hidden = {
        "mlp": lambda: [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.2)],
        "cnn": lambda: [
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.25),
        ],
    }[model]()
    return k.Sequential([k.Input(shape), *hidden, layers.Dense(10)])
