"""One run from its folder to its SavedModel: what `phalanx train` and `phalanx resume` have in common."""

import logging
import shutil
import signal
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import typer

from cluster.data_service.client import BlockClient
from cluster.run_lock import KEEPING, RunBusy, RunLock, read_holder
from launch.config import RunConfig, write_config
from launch.data_service import service_beside
from launch.exit_code import ExitCode, RequestError, exit_code_of
from launch.hosts import check_backend
from launch.profile_file import ProfileFile, profile_on_file
from launch.quiet_start import import_tensorflow
from launch.run_log import write_log
from launch.run_watch import summarize
from launch.stop_file import StopFile, stop_on_file
from launch.yaml_text import read_document
from trainer.config_changes import config_changes
from trainer.environment import version_changes
from trainer.observe.journal import next_generation, read_journal
from trainer.observe.tail import Tail
from trainer.run_folder import RunFolder, RunFolderError
from trainer.stop_request import StopRequest, stop_on_signals

_log = logging.getLogger(__name__)


def carry_out(
    config: RunConfig,
    *,
    accept_config_change: bool = False,
    is_kept: bool = False,
    second_interrupt: Any = signal.SIG_DFL,
) -> ExitCode:
    """Train a run, or go on with it, and export what it trained.

    Args:
        config: what to train and where.
        accept_config_change: go on although settings that change the curve differ from the stored ones.
        is_kept: whether a keeper has started this process.
        second_interrupt: handler of a second SIGINT; the first one saves the state.

    Raises:
        RunFolderError: the folder cannot be used.
        RunLockError: another process has it.
        RequestError: the config differs from the stored one and nobody agreed to that.
        RayClusterError: Ray is asked for, and it is not installed or cannot be used.
    """
    check_backend(config)
    folder = RunFolder(config.run.folder)
    is_new = not folder.path.exists()
    folder.create()
    if not is_kept:
        refuse_kept(folder)
    with (
        # First: whoever sees the lock may send a signal, and the run has to know what it means.
        stop_on_signals(StopRequest(), second_interrupt) as stop,
        RunLock(folder.path, sys.argv),
        stop_on_file(stop, StopFile(folder.path), is_kept),
    ):
        compare_config(folder, config, accept_config_change)
        stored = StoredConfig(folder)
        folder.write_config(write_config(config))
        _compare_environment(folder)
        generation = next_generation(folder.journal)
        try:
            if config.is_supervised:
                with write_log(folder.logs / "supervisor.log"):
                    end = _train_supervised(config, folder, stop)
            else:
                with write_log(folder.log(generation, rank=0)):
                    end = _train(config, folder, stop)
        except BaseException as error:
            stored.put_back_unless_begun()
            # Some rules can be checked only against the data and the model. A request that breaks one leaves as little
            # behind as one that is refused at once.
            if is_new and not folder.has_progress and exit_code_of(error) is ExitCode.WRONG_REQUEST:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
    return _conclude(folder, end)


class _End(NamedTuple):
    """How a run ended: why early (None at the end of the config), where (None: not known, because steps were taken and
    their state could not be saved), and how good."""

    stopped: str | None
    step: int | None
    metrics: Mapping[str, float]


def _train(config: RunConfig, folder: RunFolder, stop: StopRequest) -> _End:
    with service_beside(config, folder) as service:  # first: its workers import TensorFlow meanwhile
        import_tensorflow(config.train.compile_cache)
        return _train_alone(config, folder, stop, service)


def _train_alone(config: RunConfig, folder: RunFolder, stop: StopRequest, service: BlockClient | None) -> _End:
    from delivery.run_export import export_run, is_exported
    from trainer.intervals.interruptions import Exposure
    from trainer.observe.profile_order import ProfileOrder
    from trainer.training import run_training

    exposure, order = Exposure(1, 3600 * config.cluster.expected_mtbf), ProfileOrder()
    with profile_on_file(ProfileFile(folder.path), lambda request: order.give(request.steps)):
        outcome = run_training(config, folder, stop, exposure=exposure, profile_order=order, service=service)
    if outcome.stopped is None and config.export.enabled and not is_exported(folder, outcome.step):
        export_run(config, folder, outcome.session)
    account = summarize(config, folder)
    _log.info(account)
    typer.echo(account)
    return _End(outcome.stopped, outcome.step, outcome.metrics)


def _train_supervised(config: RunConfig, folder: RunFolder, stop: StopRequest) -> _End:
    from launch.supervised_training import train_supervised
    from trainer.observe.metrics_log import read_metrics

    finish = train_supervised(config, folder, stop)
    lines = read_metrics(folder.metrics)
    evaluations = [line for line in lines if "split" in line]
    metrics = {
        name: value
        for name, value in (evaluations[-1] if evaluations else {}).items()
        if name not in ("step", "split", "time")
    }
    return _End(finish.reason if finish.outcome == "stopped" else None, _saved_step(folder), metrics)


def _saved_step(folder: RunFolder) -> int | None:
    """The step at which the newest launch saved its state at its end; None: it took steps and did not."""
    events = read_journal(folder.journal)
    begins = [i for i, e in enumerate(events) if e["event"] == "supervisor_started" and not e["continued"]]
    launch = events[begins[-1] :] if begins else events
    ends = [event["step"] for event in launch if event["event"] in ("finished", "stopped")]
    took_steps = any(event["event"] == "progressed" and event["phase"] == "step" for event in launch)
    if ends or took_steps:
        return ends[-1] if ends else None
    return _newest_checkpoint(folder)


def _newest_checkpoint(folder: RunFolder) -> int:
    """The step of the newest checkpoint; 0 without one."""
    from trainer.checkpoint.store import CheckpointStore

    return max(CheckpointStore(folder.checkpoints).steps(), default=0)


def refuse_kept(folder: RunFolder) -> None:
    """Makes sure that no keeper has the run: it starts a process of its own when nobody trains.

    Raises:
        RunBusy: one has.
    """
    keeper = read_holder(folder.path, KEEPING)
    if keeper is not None:
        raise RunBusy(folder.path, keeper)


class StoredConfig:
    """The config that a run had before it is to go on with another one.

    Whether the run can is known only when its state has been restored, by workers that read the config in the folder.
    Should they refuse it, the run must still go on as it was. Made by the holder of the run's lock.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._text = folder.config.read_text(encoding="utf-8") if folder.exists and folder.has_progress else None
        self._journal = Tail(folder.journal)
        self._journal.read()

    def put_back_unless_begun(self) -> None:
        """Stores it again if no step could have been taken with the one that is stored now."""
        text, config = self._text, self._folder.config
        if text is None or text == config.read_text(encoding="utf-8"):
            return
        if any(event.get("event") in ("started", "resumed") for event in self._journal.read()):
            return
        try:
            self._folder.write_config(text)
        except RunFolderError as error:  # what ended the run is said as well, and matters more
            typer.echo(str(error), err=True)
        else:
            typer.echo(f"{config} is as it was before: nothing was trained with the changed settings")


def compare_config(folder: RunFolder, config: RunConfig, accept: bool) -> None:
    """Says what has changed since the run began. The caller holds the run's lock.

    Raises:
        RequestError: the config differs from the stored one and nobody agreed to that.
    """
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


def _conclude(folder: RunFolder, end: _End) -> ExitCode:
    """Say where everything is."""
    if end.stopped is not None and end.step is None:
        left = _newest_checkpoint(folder)
        source = f"from the checkpoint of step {left}" if left else "from the beginning, because there is no checkpoint"
        typer.echo(f"stopped by {end.stopped}, but the workers could not save their state any more: {folder.logs}")
        typer.echo(f"go on {source} with: phalanx resume {folder.path}")
        return ExitCode.FAILED
    if end.stopped is not None:
        typer.echo(f"stopped by {end.stopped} after step {end.step}, with the state saved")
        typer.echo(f"go on with: phalanx resume {folder.path}")
        return ExitCode.STOPPED
    from trainer.report import write_report

    write_report(folder.path)
    metrics = "  ".join(f"{name} {value:.4g}" for name, value in end.metrics.items())
    typer.echo(f"done after step {end.step}  {metrics}".rstrip())
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
