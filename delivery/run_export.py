"""From a finished run to its SavedModel: the last step of `phalanx train`, and `phalanx export`."""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

from delivery.saved_model import ExportResult, export_saved_model
from trainer.checkpoint.store import CheckpointStore
from trainer.config.training import TrainingConfig
from trainer.data.registry import open_source
from trainer.data.source import Source
from trainer.observe.journal import Journal, next_generation, read_journal
from trainer.observe.trace import Trace
from trainer.run_folder import RunFolder, RunFolderError
from trainer.session import Session, build_session

NUM_SAMPLES = 64


def export_run(
    config: TrainingConfig, folder: RunFolder, session: Session | None = None, version: int = 1
) -> ExportResult:
    """Exports the trained model of a run to `export/<version>`, and writes that into its journal and trace.

    Args:
        config: Of the run.
        folder: Of the run; the caller holds its lock.
        session: Holds the trained model, right after training. None: the newest good checkpoint is read.
        version: Names the folder.

    Raises:
        ExportRefused: The saved model does not answer as the trained one.
        RunFolderError: The run has no checkpoint.
        DataError: A held-out sample cannot be read.
        OSError: The folder cannot be written.
    """
    started = time.time()
    if session is None:
        session = _restored(config, folder)
    ema = config.export.ema and config.train.ema is not None
    result = export_saved_model(
        session.model,
        session.task,
        session.schema,
        folder.exports,
        batch=read_samples(held_out_source(session)),
        trainable=session.state.evaluation_weights(ema),
        version=version,
        precision=config.precision,
        description={
            "run": folder.path.resolve().name,
            "model": config.model.name,
            "task": config.task.name,
            "step": session.state.step,
            "weights": "averaged" if ema else "trained",
        },
    )
    _record(folder, result, session.state.step, started)
    return result


def held_out_source(session: Session) -> Source:
    """The split that the run is evaluated on."""
    return session.evaluator.source if session.evaluator else open_source(session.config.data, "held_out")


def read_samples(source: Source, most: int = NUM_SAMPLES) -> dict[str, tf.Tensor]:
    """Samples from all over a source, [B, ...] each, B at most `most`."""
    total = source.schema.num_samples
    index = np.unique(np.linspace(0, total - 1, min(most, total)).astype(np.int64))
    return source.read(tf.constant(index))


def is_exported(folder: RunFolder, step: int) -> bool:
    """Whether the model of this step is there already, because the command was repeated after the end."""
    exported = [event.get("step") for event in read_journal(folder.journal) if event["event"] == "exported"]
    return exported[-1:] == [step] and folder.export(1).is_dir()


def _restored(config: TrainingConfig, folder: RunFolder) -> Session:
    store = CheckpointStore(folder.checkpoints, config.checkpoint.keep)
    checkpoint = store.newest_verified(set_aside=False)
    if checkpoint is None:
        raise RunFolderError(f"{folder.path} has no checkpoint to export: train it first with phalanx train")
    session = build_session(config.for_one_process())
    session.state.restore(checkpoint.arrays)
    return session


def _record(folder: RunFolder, result: ExportResult, step: int, started: float) -> None:
    journal = Journal(folder.journal, max(next_generation(folder.journal) - 1, 0))
    journal.write(
        "exported",
        step=step,
        path=result.path,
        signatures=result.signatures,
        largest_difference=result.largest_difference,
        samples=result.num_samples,
        bytes=result.size,
        duration=result.duration,
    )
    journal.close()
    trace = Trace(folder.trace(0))
    trace.add("export", started, time.time() - started, step)
    trace.close()
