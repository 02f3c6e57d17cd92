"""A small signed package for the long tests."""

from pathlib import Path

from delivery.package.signing_keys import SigningKey
from delivery.run_export import export_run
from trainer.config.training import TrainingConfig
from trainer.run_folder import RunFolder
from trainer.stop_request import StopRequest
from trainer.training import run_training


def export_digits(place: Path, key: SigningKey) -> Path:
    """Trains some steps and exports; returns the package."""
    config = TrainingConfig.model_validate(
        {
            "run": {"dir": str(place), "name": "digits"},
            "model": {"name": "mlp", "hidden": [8]},
            "data": {"name": "digits"},
            "train": {"steps": 3, "log_every": 3, "steps_per_loop": 3, "xla": False},
        }
    )
    folder = RunFolder(place / "digits")
    folder.create()
    outcome = run_training(config, folder, StopRequest())
    return export_run(config, folder, outcome.session, key=key).path
