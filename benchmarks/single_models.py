"""The trainings that benchmarks/single.py measures: configs for Phalanx, and their data and models for the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.config.training import TrainingConfig

# Of Phalanx's loop, of a call of `fit` at its best and of the hand-written loop: so many that the call itself costs
# next to nothing, so few that a turn can be short.
STEPS_PER_CALL = {"mlp": 50, "cnn": 25, "transformer_lm": 10}
WARM_UP_STEPS = {"mlp": 250, "cnn": 50, "transformer_lm": 50}  # whole epochs
# Between two looks at the clock in `fit` at its best: what `fit` does at the end of an epoch is next to nothing then.
STEPS_PER_EPOCH = {"mlp": 500, "cnn": 25, "transformer_lm": 10}
MODELS = tuple(WARM_UP_STEPS)

# An epoch of the data is a whole number of batches, so that all contenders see batches of one size.
_SETTINGS: dict[str, dict[str, Any]] = {
    "mlp": {
        "model": {"name": "mlp", "hidden": [128], "dropout": 0.2},
        "data": {"name": "mnist_sample", "batch_size": 32},
        "train": {"xla_scope": "loop"},
    },
    "cnn": {
        "model": {"name": "cnn", "filters": [32, 64], "dense": 128, "dropout": 0.25},
        "data": {"name": "synthetic", "num_samples": 3200, "shape": [28, 28, 1], "num_classes": 10, "batch_size": 64},
    },
    "transformer_lm": {
        "model": {"name": "transformer_lm", "layers": 2, "width": 128, "heads": 4, "dropout": 0.1},
        "data": {
            "name": "synthetic",
            "kind": "tokens",
            "num_samples": 800,
            "shape": [64],
            "num_classes": 512,
            "batch_size": 16,
        },
        "task": {"name": "language_modelling"},
    },
}


def training_config(model: str, run_dir: str = "unused", checkpoint_every: str | None = None) -> TrainingConfig:
    """Phalanx's config of a model, without an end; `checkpoint_every` None: only at the end."""
    settings = {**_SETTINGS[model], "run": {"name": model, "dir": run_dir}, "evaluate": {"every": None}}
    length = {"steps": 10**9, "steps_per_loop": STEPS_PER_CALL[model], "log_every": 50}
    settings["train"] = {"xla": True, **length, **settings.get("train", {})}
    settings["checkpoint"] = {"every": checkpoint_every or "1000000000st"}
    settings["optimizer"] = {"name": "adam", "learning_rate": 0.001}
    return TrainingConfig.model_validate(settings)


def batch_size(model: str) -> int:
    """Samples of a step."""
    return _SETTINGS[model]["data"]["batch_size"]


def arrays(model: str) -> tuple[np.ndarray, np.ndarray]:
    """The training data in memory: inputs and targets."""
    import tensorflow as tf

    from trainer.data.registry import open_source

    source = open_source(training_config(model).data, "train")
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

    config = training_config(model)
    schema = open_source(config.data, "train").schema
    return build_model(config.model, schema, build_task(config.task, schema), seed=0)


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
