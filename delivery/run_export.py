"""From a finished run to its package: the last step of `phalanx train`, and `phalanx export`."""

from __future__ import annotations

import re
import time
from typing import Literal

import numpy as np
import tensorflow as tf

from delivery.package.assembly import PackageRequest, evaluation_at
from delivery.package.decision import decision_of
from delivery.package.signing_keys import SigningKey
from delivery.saved_model import ExportResult, export_saved_model
from trainer.checkpoint.format import Checkpoint, DamagedCheckpoint, read_checkpoint
from trainer.checkpoint.store import CheckpointStore
from trainer.config.training import TrainingConfig
from trainer.data.registry import open_source
from trainer.data.source import Source
from trainer.observe.journal import Journal, next_generation, read_journal
from trainer.observe.trace import Trace
from trainer.run_folder import RunFolder, RunFolderError
from trainer.session import Session, build_session

NUM_SAMPLES = 64

CheckpointChoice = Literal["last", "best"] | int
"""Which checkpoint is exported: the newest, the best by `checkpoint.best_metric`, or that of a step."""


def export_run(
    config: TrainingConfig,
    folder: RunFolder,
    session: Session | None = None,
    version: int = 1,
    *,
    name: str | None = None,
    checkpoint: CheckpointChoice = "last",
    ema: bool | None = None,
    key: SigningKey | None = None,
) -> ExportResult:
    """Exports the trained model of a run to `export/<version>` as a package, and notes it in its journal and trace.

    Args:
        config: Of the run.
        folder: Of the run; the caller holds its lock.
        session: Holds the trained model, right after training. None: a checkpoint is read.
        version: Of the model; names the folder.
        name: Of the model; None: that of the run.
        checkpoint: The one to read: the newest good one, the best one, or that of a step.
        ema: Whether the averaged weights are exported; None: as the config says.
        key: Signs the package; None: it stays unsigned.

    Raises:
        ExportRefused: The saved model does not answer as the trained one.
        RunFolderError: The run has no such checkpoint.
        KeyRefused: The key has expired.
        ValueError: Averaged weights are asked for, and the run keeps none.
        DataError: A held-out sample cannot be read.
        OSError: The folder cannot be written.
    """
    started = time.time()
    if ema and config.train.ema is None:
        raise ValueError("the run keeps no averaged weights to export: train it with train.ema, or leave --ema out")
    if session is None:
        session = restored_session(config, folder, checkpoint)
    averaged = (config.export.ema if ema is None else ema) and config.train.ema is not None
    held_out = held_out_source(session)
    name = name or _model_name(folder)
    result = export_saved_model(
        session.model,
        session.task,
        session.schema,
        folder.exports,
        batch=read_samples(held_out),
        trainable=session.state.evaluation_weights(averaged),
        version=version,
        precision=config.precision,
        description={
            "run": folder.path.resolve().name,
            "model": config.model.name,
            "task": config.task.name,
            "step": session.state.step,
            "weights": "averaged" if averaged else "trained",
            **decision_of(session.task, session.schema, evaluation_at(folder, session.state.step)),
        },
        complete=PackageRequest(config, folder, session, held_out, name, version, key).complete,
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


def _model_name(folder: RunFolder) -> str:
    """The run's name, as far as a model may be called so."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", folder.path.resolve().name).lstrip("._-")[:128] or "model"


def restored_session(config: TrainingConfig, folder: RunFolder, choice: CheckpointChoice) -> Session:
    """The model of a checkpoint of a run, in a session of one process.

    Raises:
        RunFolderError: The run has no such checkpoint.
        DataError: The data is missing or damaged.
        ValueError: The checkpoint is of another model.
    """
    checkpoint = _read_checkpoint(config, folder, choice)
    session = build_session(config.for_one_process())
    session.state.restore(checkpoint.arrays)
    return session


def _read_checkpoint(config: TrainingConfig, folder: RunFolder, choice: CheckpointChoice) -> Checkpoint:
    chosen = config.checkpoint
    store = CheckpointStore(folder.checkpoints, chosen.keep, chosen.best_metric, chosen.best_mode)
    step = store.best() if choice == "best" else choice
    if choice == "best" and step is None:
        change = "choose another checkpoint" if chosen.best_metric else "train with checkpoint.best_metric"
        raise RunFolderError(f"{folder.path} has no checkpoint that is known to be the best: {change}")
    if isinstance(step, int):
        try:
            return read_checkpoint(store.path(step))
        except FileNotFoundError:
            there = ", ".join(map(str, store.steps())) or "none"
            raise RunFolderError(f"{folder.path} has no checkpoint of step {step}: there are {there}") from None
        except DamagedCheckpoint as damage:
            raise RunFolderError(f"the checkpoint of step {step} cannot be read: {damage}") from None
    newest = store.newest_verified(set_aside=False)
    if newest is None:
        raise RunFolderError(f"{folder.path} has no checkpoint: train it first with phalanx train")
    return newest


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
