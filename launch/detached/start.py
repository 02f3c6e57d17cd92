"""`--detach`: begins a run that goes on without this terminal, and says where it is."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import typer

from cluster.run_lock import KEEPING, RunLock, read_holder
from launch.config import RunConfig, write_config
from launch.detached.keeper import keep_run, start_keeper
from launch.detached.record import KeeperRecord, read_record
from launch.exit_code import ExitCode
from launch.hosts import check_backend
from launch.run_log import launcher_log
from launch.stop_file import StopFile
from launch.training_run import StoredConfig, compare_config, refuse_kept
from trainer.observe.tail import Tail
from trainer.run_folder import RunFolder

# Within this a run mostly trains, or has ended because of its data or its cluster, which is said here then.
_BEGIN_S = 60.0
_LOOK_S = 0.1


def start_detached(config: RunConfig, *, accept_config_change: bool = False) -> ExitCode:
    """Has a keeper train a run, and waits until it does.

    Args:
        config: what to train and where.
        accept_config_change: go on although settings that change the curve differ from the stored ones.

    Returns:
        0 when it trains, or is about to; else the exit code with which it has ended.

    Raises:
        RunFolderError, RunLockError, RequestError, RayClusterError: as `carry_out`, before anything is started.
    """
    check_backend(config)
    address = _ray_address(config)
    folder = RunFolder(config.run.folder)
    is_new = not folder.path.exists()
    folder.create()
    refuse_kept(folder)
    with RunLock(folder.path, sys.argv):
        compare_config(folder, config, accept_config_change)
        stored = StoredConfig(folder)
        folder.write_config(write_config(config))
        KeeperRecord().write(folder.path)
        StopFile(folder.path).clear()
    journal, log = Tail(folder.journal), launcher_log(folder.logs)
    journal.read()
    said = log.stat().st_size if log.exists() else 0
    try:
        where, has_ended = _start(folder, address)
    except BaseException:
        stored.put_back_unless_begun()
        _leave_nothing(folder, is_new)
        raise
    code = _wait_until_it_trains(folder, journal, has_ended)
    if code is None or code == ExitCode.DONE:
        _say_where(folder, where, code)
        return ExitCode.DONE
    typer.echo(_last_words(log, said), err=True)
    stored.put_back_unless_begun()
    if code is ExitCode.WRONG_REQUEST:
        _leave_nothing(folder, is_new)
    return code


def _ray_address(config: RunConfig) -> str | None:
    """The Ray cluster that keeps the run; None: this machine does."""
    if config.cluster.kind != "ray":
        return None
    from cluster.ray_cluster import find_cluster

    return find_cluster(config.cluster.ray.address)


def _start(folder: RunFolder, address: str | None) -> tuple[str, Callable[[], bool]]:
    """Starts the keeper.

    Returns:
        Where it is, and what tells whether it has ended.
    """
    if address is None:
        process = start_keeper(folder.path, os.getcwd())
        return f"kept by process {process.pid}", partial(_has_ended, process)
    from cluster.ray_keeper import start_on_ray

    run = folder.path.absolute()
    keep = partial(keep_run, str(run), os.getcwd(), tied=True, patient=True)
    name = f"phalanx-{hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]}"
    host = start_on_ray(address, name, run, keep)
    return f"kept by the actor {name} on {host}", lambda: False


def _has_ended(process: subprocess.Popen) -> bool:
    return process.poll() is not None


def _wait_until_it_trains(folder: RunFolder, journal: Tail, has_ended: Callable[[], bool]) -> ExitCode | None:
    """Waits for the first training of the run, or for its end.

    Returns:
        Its exit code; None: it goes on.
    """
    until, was_kept = time.monotonic() + _BEGIN_S, False
    while time.monotonic() < until:
        is_kept = read_holder(folder.path, KEEPING) is not None
        ended, was_kept = has_ended() or (was_kept and not is_kept), was_kept or is_kept
        record = read_record(folder.path)
        if record is not None and record.exit_code is not None:
            return ExitCode(record.exit_code)
        if ended:
            return ExitCode.FAILED
        if any(event.get("event") in ("started", "resumed") for event in journal.read()):
            return None
        time.sleep(_LOOK_S)
    return None


def _say_where(folder: RunFolder, where: str, code: ExitCode | None) -> None:
    holder = read_holder(folder.path)
    if code is ExitCode.DONE:
        typer.echo(f"{folder.path} is done")
    elif holder is None:
        typer.echo(f"{folder.path} is being started ({where})")
    else:
        typer.echo(f"{folder.path} goes on in process {holder.process.pid} on {holder.process.host} ({where})")
    for name, command in (("follow it", "logs -f"), ("look at it", "status"), ("stop it", "stop")):
        typer.echo(f"  {name:<10}  phalanx {command} {folder.path}")


def _last_words(log: Path, said: int) -> str:
    """What the launcher has said about its end: our sentences, else its last lines."""
    with log.open("rb") as file:
        file.seek(said)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join([line for line in lines if line.startswith("phalanx: ")] or lines[-20:])


def _leave_nothing(folder: RunFolder, is_new: bool) -> None:
    if is_new and not folder.has_progress and read_holder(folder.path) is None:
        shutil.rmtree(folder.path, ignore_errors=True)
