"""The same training as users of Ray Train run it: TensorflowTrainer with checkpoints and a failure budget.

python -m benchmarks.ray_train_peer MODEL FOLDER [ADDRESS]

It ends when FOLDER/stop exists. Without an address it starts Ray itself, as a script on one machine does.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.mirrored_loop import Notes, train


def train_loop(config: dict[str, Any]) -> None:
    """What every worker of Ray Train calls."""
    import numpy as np
    import ray.train

    rank = ray.train.get_context().get_world_rank()
    note = Notes(config["notes"], f"worker{rank}")
    note("started")
    restored = None
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder, np.load(Path(folder) / "state.npz") as saved:
            restored = int(saved["step"]), [saved[str(index)] for index in range(len(saved.files) - 1)]

    def save(step: int, state: list[Any]) -> None:
        if rank:
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as folder:
            values = {str(index): variable.numpy() for index, variable in enumerate(state)}
            np.savez(Path(folder) / "state.npz", step=step, **values)
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))

    try:
        train(config["model"], rank, note, config["stop"], restored, save)
    except BaseException as error:
        note("broken", error=type(error).__name__)
        raise


def main() -> None:
    """Runs the trainer."""
    model, folder = sys.argv[1:3]
    address = sys.argv[3] if len(sys.argv) > 3 else None
    note = Notes(f"{folder}/notes", "driver")
    note("started")
    import ray

    if address:
        ray.init(address=address, log_to_driver=False)
    else:
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    note("ray up")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    def end_when_asked() -> None:
        while not Path(folder, "stop").exists():
            time.sleep(0.05)
        ray.shutdown()
        os._exit(0)

    threading.Thread(target=end_when_asked, daemon=True).start()
    trainer = TensorflowTrainer(
        train_loop,
        train_loop_config={"model": model, "notes": f"{folder}/notes", "stop": f"{folder}/never"},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            name="peer", storage_path=f"{folder}/results", failure_config=FailureConfig(max_failures=3)
        ),
    )
    note("fit")
    trainer.fit()


if __name__ == "__main__":
    main()
