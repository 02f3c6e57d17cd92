"""The two networks and their data that recovery and launch are measured on, for Phalanx and for its peers."""

from __future__ import annotations

from typing import Any

import numpy as np

NUM_WORKERS = 2
BATCH = 64  # of all workers together
# Steps between two snapshots, and for Ray Train between two checkpoints.
SAVE_EVERY = {"mlp": 20, "cnn": 5}
# Steps before the fault: enough to see the usual pace, few enough not to wait long for it.
STEPS_BEFORE = {"mlp": 400, "cnn": 25}
MODELS = tuple(SAVE_EVERY)

_SETTINGS: dict[str, dict[str, Any]] = {
    "mlp": {"model": {"name": "mlp", "hidden": [128, 64], "dropout": 0.0}, "data": {"name": "digits"}},
    "cnn": {
        "model": {"name": "cnn", "filters": [32, 64], "dense": 1152, "dropout": 0.0},  # 4.8 million parameters
        "data": {"name": "synthetic", "num_samples": 1024, "shape": [32, 32, 3], "num_classes": 10},
    },
}


def run_settings(model: str, folder: str, kind: str) -> dict[str, Any]:
    """Phalanx's config of a run without an end.

    Args:
        model: Which network.
        folder: Where its run folder comes to lie.
        kind: `cluster.kind`.
    """
    settings = _SETTINGS[model]
    return {
        "run": {"dir": folder, "name": "run"},
        "model": settings["model"],
        "data": {**settings["data"], "batch_size": BATCH},
        # A step a call, as the peers do it.
        "train": {"steps": 10**8, "steps_per_loop": 1, "log_every": 50},
        "optimizer": {"name": "adam", "learning_rate": 0.001},
        "evaluate": {"every": None},
        "checkpoint": {"every": "1000000st"},
        "export": {"enabled": False},
        "strategy": {"name": "multi_worker_mirrored"},
        "cluster": {"kind": kind, "workers": NUM_WORKERS, "snapshot_every": SAVE_EVERY[model]},
    }


def arrays(model: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets."""
    if model == "mlp":
        from sklearn.datasets import load_digits

        inputs, targets = load_digits(return_X_y=True)
        return (inputs.reshape(-1, 8, 8, 1) / 16).astype(np.float32), targets.astype(np.int32)
    random = np.random.default_rng(0)
    return random.random((1024, 32, 32, 3), np.float32), random.integers(0, 10, 1024).astype(np.int32)


def keras_model(model: str) -> Any:
    """The network as a user of Keras writes it."""
    import keras

    layers = keras.layers
    if model == "mlp":
        hidden = [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(64, activation="relu")]
        return keras.Sequential([layers.Input((8, 8, 1)), *hidden, layers.Dense(10)])
    return keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(1152, activation="relu"),
            layers.Dense(10),
        ]
    )
