"""One run from its folder to its SavedModel: what `phalanx train` and `phalanx resume` have in common."""

import shutil
import sys
from typing import TYPE_CHECKING

import typer

from cluster.run_lock import RunLock
from launch.config import RunConfig, write_config
from launch.exit_code import ExitCode, RequestError, exit_code_of
from launch.quiet_start import import_tensorflow
from launch.run_log import write_log
from launch.yaml_text import read_document
from trainer.config_changes import config_changes
from trainer.environment import version_changes
from trainer.observe.journal import next_generation, read_journal
from trainer.run_folder import RunFolder
from trainer.stop_request import StopRequest, stop_on_signals

if TYPE_CHECKING:
    from trainer.training import Outcome


def carry_out(config: RunConfig, *, accept_config_change: bool = False) -> ExitCode:
    """Train a run, or go on with it, and export what it trained.

    Args:
        config: what to train and where.
        accept_config_change: go on although settings that change the curve differ from the stored ones.

    Raises:
        RunFolderError: the folder cannot be used.
        RunLockError: another process has it.
        RequestError: the config differs from the stored one and nobody agreed to that.
    """
    folder = RunFolder(config.run.folder)
    is_new = not folder.path.exists()
    folder.create()
    with RunLock(folder.path, sys.argv), stop_on_signals(StopRequest()) as stop:
        _compare_config(folder, config, accept_config_change)
        folder.write_config(write_config(config))
        _compare_environment(folder)
        generation = next_generation(folder.journal)
        try:
            with write_log(folder.log(generation, rank=0)):
                outcome = _train(config, folder, stop)
        except Exception as error:
            # Some rules can be checked only against the data and the model. A request that breaks one leaves as little
            # behind as one that is refused at once.
            if is_new and not folder.has_progress and exit_code_of(error) is ExitCode.WRONG_REQUEST:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
    return _conclude(folder, outcome)


def _train(config: RunConfig, folder: RunFolder, stop: StopRequest) -> "Outcome":
    import_tensorflow()
    from delivery.run_export import export_run
    from trainer.training import run_training

    outcome = run_training(config, folder, stop)
    if outcome.stopped is None and config.export.enabled and not _is_exported(folder, outcome.step):
        export_run(config, folder, outcome.session)
    return outcome


def _is_exported(folder: RunFolder, step: int) -> bool:
    """Whether the model of this step is there already, because the command was repeated after the end."""
    exported = [event.get("step") for event in read_journal(folder.journal) if event["event"] == "exported"]
    return exported[-1:] == [step] and folder.export(1).is_dir()


def _compare_config(folder: RunFolder, config: RunConfig, accept: bool) -> None:
    if not folder.exists or not folder.has_progress:
        return  # nothing of the curve would be contradicted
    stored = read_document(folder.config.read_text(encoding="utf-8"), str(folder.config))
    changes = config_changes(stored.values, config.model_dump(mode="json"))
    asked = [change for change in changes if not change.free]
    if asked and not accept:
        listed = "\n".join(f"  {change}" for change in asked)
        raise RequestError(
            f"{folder.path} was begun with another config:\n{listed}\n"
            "go on with --accept-config-change, or begin a new run with run.name=..."
        )
    for change in changes:
        typer.echo(f"changed  {change}")


def _compare_environment(folder: RunFolder) -> None:
    before = folder.read_environment()
    now = folder.write_environment(sys.argv)
    for change in version_changes(before, now) if before else ():
        typer.echo(f"changed  {change} (the curve may differ in its last bits)")


def _conclude(folder: RunFolder, outcome: "Outcome") -> ExitCode:
    """Say where everything is."""
    if outcome.stopped is not None:
        typer.echo(f"stopped by {outcome.stopped} after step {outcome.step}, with the state saved")
        typer.echo(f"go on with: phalanx resume {folder.path}")
        return ExitCode.STOPPED
    from trainer.report import write_report

    write_report(folder.path)
    metrics = "  ".join(f"{name} {value:.4g}" for name, value in outcome.metrics.items())
    typer.echo(f"done after step {outcome.step}  {metrics}".rstrip())
    places = [
        ("model", folder.export(1)),
        ("report", folder.report),
        ("metrics", folder.metrics),
        ("checkpoints", folder.checkpoints),
        ("tensorboard", folder.tensorboard),
    ]
    for name, path in places:
        if path.exists():
            typer.echo(f"  {name:<11}  {path}")
    return ExitCode.DONE
