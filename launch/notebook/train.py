"""`from trainer import train`: a run from a notebook or a program."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.config import config_of_mapping, config_of_run, load_config, setting
from launch.config_errors import ConfigError
from launch.notebook.errors import RunError, run_error
from launch.notebook.live_curves import shown_live
from launch.notebook.run import Run
from launch.run_config import RunConfig
from launch.run_lookup import run_named
from trainer.run_folder import RunFolder


def train(
    config: str | Path | Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    resume: Run | str | Path | None = None,
    accept_config_change: bool = False,
    **overrides: Any,
) -> Run:
    """Trains a model; a run that has begun already goes on where it was.

    In a notebook the curves are drawn while it trains; elsewhere lines are printed. Interrupting it (the stop button,
    Ctrl-C) saves the state, and the run is returned as far as it came: `train(resume=run)` goes on from there, to the
    bit as if nothing had been. A second interrupt does not wait for that.

    Args:
        config: a YAML file, or the sections as a mapping; keys may have dots: `{"train.steps": 200}`.
        settings: that replace the config's, by their names: `{"data.batch_size": 64}`.
        resume: instead of a config: a run to go on with, itself, its folder, or its name in runs/.
        accept_config_change: go on with a run although settings that change its curve have changed.
        overrides: settings as keywords. Those of `train` need no section: `steps=200` is `train.steps`.

    Returns:
        The run, finished or stopped.

    Raises:
        RunError: the request is wrong, or the run failed; in one sentence what to change.
    """
    # Before anything imports TensorFlow or Keras: both read these once, at import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        _check_keras()
        found = _config(
            config, resume, [_typed(key, value) for key, value in {**(settings or {}), **overrides}.items()]
        )
        from launch.training_run import carry_out

        folder = RunFolder(found.run.folder)
        with shown_live(folder.path):
            carry_out(found, accept_config_change=accept_config_change, second_interrupt=signal.default_int_handler)
    except RunError:
        raise
    except Exception as error:
        raise run_error(error) from None
    return Run(folder.path)


def _config(
    config: str | Path | Mapping[str, Any] | None, resume: Run | str | Path | None, overrides: list[str]
) -> RunConfig:
    if (config is None) == (resume is None):
        raise RunError("train needs a config or a run to go on with: train('configs/mnist.yaml') or train(resume=run)")
    if resume is not None:
        return config_of_run(run_named(str(resume.folder if isinstance(resume, Run) else resume)), overrides)
    if isinstance(config, Mapping):
        return config_of_mapping(config, overrides)
    return load_config(Path(str(config)), overrides)


def _typed(key: str, value: Any) -> str:
    """A setting as on the command line; without a section it is one of `train`, unless it is a section itself."""
    try:
        return setting(key if "." in key or key in RunConfig.model_fields else f"train.{key}", value)
    except TypeError as error:
        raise ConfigError([f"{key}: {error}"]) from None


def _check_keras() -> None:
    keras = sys.modules.get("keras")
    backend = keras.config.backend() if keras is not None else os.environ["KERAS_BACKEND"]
    if backend != "tensorflow":
        raise RunError(
            f"Keras has the backend {backend} in this process and training needs tensorflow: restart the kernel and "
            "set KERAS_BACKEND=tensorflow before Keras is imported"
        )
