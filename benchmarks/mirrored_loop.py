"""A training loop on MultiWorkerMirroredStrategy as one writes it by hand; Ray Train's workers run the same.

python -m benchmarks.mirrored_loop MODEL RANK NOTES STOP_FILE, with TF_CONFIG set, is one worker of it without Ray.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fault_models import BATCH, NUM_WORKERS, SAVE_EVERY, arrays, keras_model

Save = Callable[[int, list[Any]], None]


class Notes:
    """What happened when in one process: JSON lines, each on the disk's side of a kill at once."""

    def __init__(self, folder: str, who: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"{who}-{os.getpid()}.jsonl"
        self._who, self._file = who, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __call__(self, event: str, **fields: Any) -> None:
        """Notes an event."""
        line = {"time": time.time(), "who": self._who, "pid": os.getpid(), "event": event, **fields}
        os.write(self._file, (json.dumps(line) + "\n").encode())


def train(
    model_name: str,
    rank: int,
    note: Callable[..., None],
    stop_file: str,
    restored: tuple[int, list[Any]] | None = None,
    save: Save | None = None,
) -> None:
    """Trains until a file exists.

    Args:
        model_name: Of `fault_models`.
        rank: Of this worker.
        note: Gets every phase and every step.
        stop_file: Ends the training.
        restored: Step and state to go on from.
        save: Called by every worker with step and state, every so many steps.
    """
    import keras
    import tensorflow as tf

    note("imported")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    note("strategy")
    inputs, targets = arrays(model_name)
    with strategy.scope():
        model = keras_model(model_name)
        optimizer = keras.optimizers.Adam(0.001)
        optimizer.build(model.trainable_variables)
    dataset = tf.data.Dataset.from_tensor_slices((inputs, targets)).shard(NUM_WORKERS, rank)
    dataset = dataset.shuffle(1000, seed=1).repeat().batch(BATCH // NUM_WORKERS, drop_remainder=True).prefetch(2)
    iterator = iter(strategy.distribute_datasets_from_function(lambda context: dataset))
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)

    def replica_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.nn.compute_average_loss(loss_of(y, model(x, training=True)), global_batch_size=BATCH)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    @tf.function
    def take_step(batches: Any) -> Any:
        x, y = next(batches)
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica_step, args=(x, y)), axis=None)

    state = [*model.variables, *optimizer.variables]
    note("built", parameters=int(model.count_params()))
    step = 0
    if restored is not None:
        step, values = restored
        for variable, value in zip(state, values, strict=True):
            variable.assign(value)
    note("restored", step=step)
    # Rank 0 alone looks at the file; the others end with it.
    while rank or not Path(stop_file).exists():
        float(take_step(iterator))
        step += 1
        note("step", step=step)
        if save is not None and step % SAVE_EVERY[model_name] == 0:
            began = time.time()
            save(step, state)
            note("saved", step=step, seconds=time.time() - began)


if __name__ == "__main__":
    _, model_argument, rank_argument, notes_argument, stop_argument = sys.argv
    notes = Notes(notes_argument, f"worker{rank_argument}")
    notes("started")
    train(model_argument, int(rank_argument), notes, stop_argument)
    os._exit(0)
