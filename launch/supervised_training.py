"""A training by several workers: the supervisor decides, agents carry out, and this process keeps the journal."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import typer

from cluster.local import LocalHost, LocalHosts
from cluster.runtime import Runtime
from cluster.supervisor.commands import Command, Finish
from cluster.supervisor.events import Event
from cluster.supervisor.journal_replay import started_record
from cluster.supervisor.records import to_record
from cluster.supervisor.settings import Budgets, HangLimits, Settings, Sizes
from cluster.supervisor.supervisor import Supervisor
from cluster.terminal_output import TerminalOutput
from cluster.worker_environment import divide, python_program
from launch.host_memory import HostMemory
from launch.run_config import RunConfig
from trainer.observe.journal import Journal, next_generation
from trainer.run_folder import RunFolder
from trainer.stop_request import StopRequest


class TrainingFailed(RuntimeError):
    """The supervisor gave the run up. The message says why."""


def settings_of(config: RunConfig, last_generation: int) -> Settings:
    """What the supervisor is told about a run."""
    cluster = config.cluster
    return Settings(
        sizes=Sizes(min=cluster.workers, max=cluster.workers),
        budgets=Budgets(failures=cluster.max_failures),
        hangs=HangLimits(straggler_ratio=None),  # the strategies that there are reduce every step
        standbys=cluster.workers if cluster.standbys is None else cluster.standbys,
        last_generation=last_generation,
    )


def train_supervised(config: RunConfig, folder: RunFolder, stop: StopRequest) -> Finish:
    """Trains with `cluster.workers` processes of this machine, and brings back those that die.

    Args:
        config: of the run; it is in the folder.
        folder: of the run; the caller holds its lock.
        stop: ends the run early, with the state saved.

    Returns:
        Its `outcome` is "finished" or "stopped".

    Raises:
        TrainingFailed: the run cannot go on.
    """
    settings = settings_of(config, max(0, next_generation(folder.journal) - 1))
    journal = Journal(folder.journal)
    journal.write(**started_record(settings, continued=False))
    memory, terminal = HostMemory(folder.path), TerminalOutput(sys.stdout)
    memory.create()
    try:
        hosts = LocalHosts(
            [LocalHost("localhost", divide(config.cluster.workers, _num_cores(), _devices()))],
            python_program("-m", "launch.worker", str(folder.path)),
            folder.logs,
            on_output=terminal,
        )
        runtime = Runtime(Supervisor(settings), hosts, _recorder(journal), _announce)
        _pass_on(stop, runtime.request_stop)
        finish = runtime.run()
    finally:
        terminal.close()
        memory.clear()
        journal.close()
    if finish.outcome in ("finished", "stopped"):
        return finish
    raise TrainingFailed(finish.reason)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> list[str] | None:
    """The GPUs that the workers may share out, by number; None where there are none to be seen."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    numbers = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(numbers, key=int) or None


def _recorder(journal: Journal) -> Callable[[Event | Command], None]:
    def record(item: Event | Command) -> None:
        journal.write(**to_record(item))

    return record


def _pass_on(stop: StopRequest, request: Callable[[str], object]) -> None:
    def wait() -> None:
        stop.wait()
        request(stop.reason or "a signal")

    threading.Thread(target=wait, name="stop-request", daemon=True).start()


def _announce(text: str) -> None:
    typer.echo(typer.style(text, fg="yellow") if sys.stdout.isatty() else text)
