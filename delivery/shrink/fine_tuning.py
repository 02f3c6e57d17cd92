"""The run that fine-tunes a pruned model: an ordinary run, warm-started, so it also trains on many workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from delivery.shrink.pruning import Pruned
from delivery.shrink.tying import Tied
from trainer.checkpoint.format import folder_name, write_checkpoint
from trainer.config.export import ExportConfig
from trainer.config.optimizer import CosineSchedule
from trainer.config.training import TrainingConfig
from trainer.config.warm_start import WarmStartConfig
from trainer.run_folder import RunFolder

Config = TypeVar("Config", bound=TrainingConfig)
Train = Callable[[Config], None]
"""Carries a run of a config out, to its end; raises where it fails."""

_TIED_RATE = 0.5
"""Of the learning rate: the weights have been trained, and a shared one sums up many."""


def fine_tuning_config(config: Config, place: Path, start: Path, pruned: Pruned, rate: float, epochs: float) -> Config:
    """The config of the fine-tuning.

    Args:
        config: Of the run whose model was pruned; data, task, optimizer, strategy and cluster stay.
        place: Folder of fine-tuning runs.
        start: Checkpoint of the pruned weights.
        pruned: The smaller model.
        rate: Of the pruning; with the epochs it names the run.
        epochs: Passes over the data.
    """
    # Narrower layers want a higher rate: Adam's grows with 1 over the width (Yang et al., "Tensor programs V",
    # 2021) in hidden layers, and not at all in the first. Its root stands for both.
    learning_rate = config.optimizer.learning_rate / math.sqrt(1 - rate)
    optimizer = config.optimizer.model_copy(update={"schedule": CosineSchedule(), "learning_rate": learning_rate})
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"dir": str(place), "name": f"pruned-{rate:g}-{epochs:g}ep"}),
            "model": pruned.model,
            "train": config.train.model_copy(update={"steps": None, "epochs": epochs}),
            "optimizer": optimizer,
            "warm_start": WarmStartConfig(path=str(start)),
            "export": ExportConfig(enabled=False),
        }
    )


def tied_config(config: Config, place: Path, start: Path, tied: Tied, name: str, epochs: float) -> Config:
    """The config of the fine-tuning of tied weights, which stay tied.

    Args:
        config: Of the run whose weights were tied, or of the fine-tuning after its pruning.
        place: Folder of fine-tuning runs.
        start: Checkpoint of the tied weights.
        tied: Says what stays.
        name: Of the run.
        epochs: Passes over the data.
    """
    learning_rate = _TIED_RATE * config.optimizer.learning_rate
    optimizer = config.optimizer.model_copy(update={"schedule": CosineSchedule(), "learning_rate": learning_rate})
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"dir": str(place), "name": name}),
            "train": config.train.model_copy(update={"steps": None, "epochs": epochs, "xla": False}),
            "optimizer": optimizer,
            "warm_start": WarmStartConfig(path=str(start)),
            "tied": tied.config,
            "export": ExportConfig(enabled=False),
        }
    )


def write_start(place: Path, arrays: Mapping[str, np.ndarray], name: str) -> Path:
    """Writes weights to begin with as a checkpoint, and returns its folder."""
    folder = place / f"{name}-start"
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder, 0, {f"model/{path}": value for path, value in arrays.items()}, {"made": name})
    return folder / folder_name(0)


def fine_tune(
    config: Config, folder: RunFolder, pruned: Pruned, rate: float, step: int, epochs: float, train: Train
) -> tuple[Config, RunFolder]:
    """Trains a pruned model for some epochs; a fine-tuning that was done before is not repeated.

    Args:
        config: Of the run whose model was pruned.
        folder: Of that run; what is written lies in `shrink/` in it.
        pruned: The smaller model.
        rate: Of the pruning.
        step: That the pruned weights come from; weights of another step are fine-tuned anew.
        epochs: Passes over the data.
        train: Carries out the run.

    Returns:
        Config and folder of the run that holds the fine-tuned model.
    """
    place = folder.path / "shrink" / folder_name(step)
    start = write_start(place, pruned.arrays, f"pruned-{rate:g}")
    tuned = fine_tuning_config(config, place, start, pruned, rate, epochs)
    train(tuned)
    return tuned, RunFolder(tuned.run.folder)


def fine_tune_tied(
    config: Config, folder: RunFolder, tied: Tied, name: str, step: int, epochs: float, train: Train
) -> tuple[Config, RunFolder]:
    """Trains tied weights for some epochs; as `fine_tune`.

    Args:
        config: Of the run whose weights were tied, or of the fine-tuning after its pruning.
        folder: Of the run that is shrunk.
        tied: The weights.
        name: Of what was done to them.
        step: Of that run, that the weights come from.
        epochs: Passes over the data.
        train: Carries out the run.
    """
    place = folder.path / "shrink" / folder_name(step)
    start = write_start(place, tied.arrays, name)
    tuned = tied_config(config, place, start, tied, f"{name}-{epochs:g}ep", epochs)
    train(tuned)
    return tuned, RunFolder(tuned.run.folder)
