from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from delivery.run_export import export_run, read_samples
from trainer.config.training import TrainingConfig
from trainer.data.registry import open_source
from trainer.observe.journal import read_journal
from trainer.observe.trace import read_trace
from trainer.run_folder import RunFolder, RunFolderError
from trainer.stop_request import StopRequest
from trainer.training import Outcome, run_training


def _config(tmp_path: Path, **sections) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "run": {"dir": str(tmp_path), "name": "digits"},
            "model": {"name": "mlp", "hidden": [16]},
            "data": {"name": "digits"},
            "train": {"steps": 6, "log_every": 3, "steps_per_loop": 3, "ema": 0.5, "xla": False},
            "optimizer": {"name": "adam", "learning_rate": 0.01},
            **sections,
        }
    )


def _trained(config: TrainingConfig, tmp_path: Path) -> tuple[RunFolder, Outcome]:
    folder = RunFolder(tmp_path / "digits")
    folder.create()
    return folder, run_training(config, folder, StopRequest())


def _answers(folder: RunFolder, version: int, config: TrainingConfig) -> np.ndarray:
    loaded = tf.saved_model.load(str(folder.export(version)))
    images = read_samples(open_source(config.data, "held_out"))["image"]
    return loaded.signatures["classify_tensors"](image=images)["logits"].numpy()


def test_a_run_exports_its_averaged_weights_from_memory_and_from_its_checkpoint(tmp_path: Path):
    config = _config(tmp_path)
    folder, outcome = _trained(config, tmp_path)
    result = export_run(config, folder, outcome.session)
    from_memory = _answers(folder, 1, config)

    export_run(config, folder, version=2)
    np.testing.assert_array_equal(_answers(folder, 2, config), from_memory)

    live = _config(tmp_path, export={"ema": False})
    export_run(live, folder, outcome.session, version=3)
    assert np.abs(_answers(folder, 3, live) - from_memory).max() > 1e-3

    events = [event for event in read_journal(folder.journal) if event["event"] == "exported"]
    assert [Path(event["path"]).name for event in events] == ["1", "2", "3"]
    assert events[0]["step"] == 6 and events[0]["generation"] == 0 and events[0]["samples"] == result.num_samples == 64
    assert [span["name"] for span in read_trace(folder.trace(0))].count("export") == 3


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path):
    folder = RunFolder(tmp_path / "digits")
    folder.create()
    with pytest.raises(RunFolderError, match="has no checkpoint: train it first"):
        export_run(_config(tmp_path), folder)
