"""Small trained models with their tasks, schemas and held-out samples, and a run that was exported as a package."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclass
class Trained:
    """What an export needs."""

    model: object
    task: object
    schema: object
    batch: dict[str, np.ndarray]


def _stirred(model) -> None:
    """Gives every variable a value that no initializer gives: an export that loses one is found out."""
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if np.issubdtype(np.dtype(variable.dtype), np.floating):
            noise = rng.uniform(0.05, 0.3, variable.shape)
            variable.assign(variable.numpy() + noise if "variance" not in variable.path else 1 + noise)


@pytest.fixture
def image_classifier() -> Callable[..., Trained]:
    """A convolutional net with batch normalisation and dropout on 8x8 images in [0, 1]; three named classes."""

    def make(precision: str = "float32", scale: float = 1.0) -> Trained:
        import keras

        from trainer.config.task import ClassificationTask
        from trainer.data.source import Feature, Schema
        from trainer.models.building import building
        from trainer.tasks.registry import build_task

        features = {"image": Feature((8, 8, 1), "float32"), "label": Feature((), "int32")}
        schema = Schema(features, "label", 100, 3, ("cat", "dog", "owl"))
        with building(precision, 0):
            inputs = keras.Input((8, 8, 1), name="image")
            x = keras.layers.Conv2D(4, 3)(inputs)
            x = keras.layers.BatchNormalization()(x)
            x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
            x = keras.layers.Dense(3, dtype="float32")(x)
            model = keras.Model(inputs, x)
        _stirred(model)
        pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1))
        batch = {"image": scale * pixels.astype(np.float32) / 255, "label": np.zeros(20, np.int32)}
        return Trained(model, build_task(ClassificationTask(), schema), schema, batch)

    return make


@pytest.fixture
def table_regressor() -> Trained:
    """The tabular model on a category of names, a category of numbers and a number."""
    from trainer.config.model import TabularModel
    from trainer.config.task import RegressionTask
    from trainer.data.source import Feature, Schema
    from trainer.models.registry import build_model
    from trainer.tasks.registry import build_task

    features = {
        "carrier": Feature((), "int32", vocabulary=("AA", "UA", "Ünïcode"), num_values=4),
        "month": Feature((), "int32", num_values=13),
        "distance": Feature((), "float32", mean=1000.0, std=700.0),
        "delay": Feature((), "float32"),
    }
    schema = Schema(features, "delay", 100)
    task = build_task(RegressionTask(name="regression"), schema)
    model = build_model(TabularModel(name="tabular"), schema, task)
    _stirred(model)
    rng = np.random.default_rng(0)
    batch = {
        "carrier": rng.integers(0, 4, 16).astype(np.int32),
        "month": rng.integers(1, 13, 16).astype(np.int32),
        "distance": rng.uniform(80, 4000, 16).astype(np.float32),
        "delay": np.zeros(16, np.float32),
    }
    return Trained(model, task, schema, batch)


@pytest.fixture
def language_model() -> Trained:
    """A transformer over 30 tokens with a context of 12."""
    from trainer.config.model import TransformerLmModel
    from trainer.config.task import LanguageModellingTask
    from trainer.data.source import Feature, Schema
    from trainer.models.registry import build_model
    from trainer.tasks.registry import build_task

    schema = Schema({"tokens": Feature((13,), "int32", num_values=30)}, None, 100, 30)
    task = build_task(LanguageModellingTask(name="language_modelling"), schema)
    config = TransformerLmModel(name="transformer_lm", layers=1, width=16, heads=2, dropout=0.1)
    model = build_model(config, schema, task)
    _stirred(model)
    return Trained(model, task, schema, {"tokens": np.random.default_rng(0).integers(0, 30, (8, 13)).astype(np.int32)})


@dataclass(frozen=True)
class ExportedRun:
    """A finished run of the digits with the key that signed its package."""

    folder: Path
    keys: Path
    config: Any
    session: Any

    @property
    def package(self) -> Path:
        return self.folder / "export" / "1"

    @property
    def private_key(self) -> Path:
        return self.keys / "release.key"


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory: pytest.TempPathFactory) -> ExportedRun:
    """Trained once a process; tests that change it take a copy."""
    from delivery.package.signing_keys import create_key
    from delivery.run_export import export_run
    from trainer.config.training import TrainingConfig
    from trainer.run_folder import RunFolder
    from trainer.stop_request import StopRequest
    from trainer.training import run_training

    place = tmp_path_factory.mktemp("exported")
    config = TrainingConfig.model_validate(
        {
            "run": {"dir": str(place), "name": "digits"},
            "model": {"name": "mlp", "hidden": [16]},
            "data": {"name": "digits"},
            "train": {"steps": 30, "log_every": 10, "steps_per_loop": 10, "ema": 0.5, "xla": False},
            "optimizer": {"name": "adam", "learning_rate": 0.01},
            "checkpoint": {"every": "10st", "keep": 3, "best_metric": "accuracy", "max_overhead": None},
            "evaluate": {"every": "10st"},
        }
    )
    folder = RunFolder(place / "digits")
    folder.create()
    folder.write_environment(["phalanx", "train"])
    outcome = run_training(config, folder, StopRequest())
    key = create_key(place / "keys", "release")
    export_run(config, folder, outcome.session, key=key)
    return ExportedRun(folder.path, place / "keys", config, outcome.session)


@pytest.fixture
def exported_config(exported_run: ExportedRun):
    """The config of the exported run."""
    return exported_run.config


@pytest.fixture
def package(exported_run: ExportedRun, tmp_path: Path) -> Iterator[Path]:
    """A signed package of its own for a test that damages it."""
    copy = tmp_path / "package"
    shutil.copytree(exported_run.package, copy)
    yield copy
