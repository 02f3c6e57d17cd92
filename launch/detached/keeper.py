"""Keeps the launcher of a run alive: starts it, and starts it again when it dies, until the run ends.

python -m launch.detached.keeper RUN_FOLDER WORKING_FOLDER
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.process import NoSuchProcess, send_signal, wait_until_gone
from cluster.run_lock import KEEPING, Holder, RunBusy, RunLock, read_holder
from cluster.supervisor.settings import BackOff
from cluster.worker_environment import python_program
from launch.detached.record import KeeperRecord, read_record
from launch.exit_code import ExitCode
from launch.run_log import launcher_log
from launch.stop_file import StopFile
from trainer.checkpoint.store import CheckpointStore
from trainer.observe.metrics_log import read_metrics
from trainer.run_folder import RunFolder

MOST_FUTILE = 5
_BACK_OFF = BackOff(first_s=1.0, longest_s=30.0)
_LOOK_S = 0.2


class Keeper:
    """Starts launchers of one run, one at a time. The caller holds the run's `KEEPING` lock.

    A launcher that ends with one of Phalanx's exit codes has said all there is to say: the run is done, has failed, or
    was stopped. One that a signal ends, or the end of its machine, is started again: it goes on from the journal, the
    snapshots in memory and the checkpoints. After `MOST_FUTILE` restarts with which the run got no further it is given
    up.

    Args:
        folder: of the run.
        command: starts a launcher.
        environment: of the launchers, beside this process's own.
        place: the folder that they start in; None: this process's.
        say: gets each sentence for the person.
        back_off: how long to wait before a launcher is started that follows others in vain.
    """

    def __init__(
        self,
        folder: RunFolder,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        place: str | None,
        say: Callable[[str], object],
        back_off: BackOff = _BACK_OFF,
    ) -> None:
        self._folder, self._command = folder, list(command)
        self._environment, self._place = dict(environment), place
        self._say, self._back_off = say, back_off
        self._launcher: subprocess.Popen | None = None
        self._is_asked_to_stop = False
        self._record = KeeperRecord()

    def keep(self) -> int:
        """Keeps the run until it ends.

        Returns:
            Its exit code.
        """
        self._wait_for(read_holder(self._folder.path))
        self._record = read_record(self._folder.path) or KeeperRecord()
        if self._record.exit_code is not None:
            return self._record.exit_code
        # An earlier keeper's launcher has died, with that keeper or after it.
        is_over = self._record.starts > 0 and self._note_death("has died")
        while not is_over:
            if self._ought_to_stop():
                self._say("the run was asked to stop while nobody trained: it is not started again")
                self._end(ExitCode.STOPPED)
                break
            code = self._run_launcher()
            if code in list(ExitCode):
                is_over = not self._somebody_else_trains(code)
                if is_over:
                    self._end(code)
            else:
                how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"has died with code {code}"
                is_over = self._note_death(how)
        assert self._record.exit_code is not None
        return self._record.exit_code

    def terminate(self) -> None:
        """Passes a request to end on to the launcher, which saves the state first, and starts no other."""
        self._is_asked_to_stop = True
        holder = read_holder(self._folder.path)
        if holder is not None and holder.process.is_local:
            with contextlib.suppress(NoSuchProcess):
                send_signal(holder.process, signal.SIGTERM)
        elif self._launcher is not None:
            self._launcher.terminate()  # it is just beginning

    def _ought_to_stop(self) -> bool:
        return self._is_asked_to_stop or StopFile(self._folder.path).reason is not None

    def _run_launcher(self) -> int:
        self._note_down(starts=self._record.starts + 1)
        with launcher_log(self._folder.logs).open("ab") as log:
            self._launcher = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._place,
                env={**os.environ, **self._environment, "PYTHONUNBUFFERED": "1"},
            )
        return self._launcher.wait()

    def _somebody_else_trains(self, code: int) -> bool:
        """Whether the launcher was refused because somebody else has the run; if so, until that has ended."""
        holder = read_holder(self._folder.path) if code == ExitCode.WRONG_REQUEST else None
        self._wait_for(holder)
        return holder is not None

    def _wait_for(self, holder: Holder | None) -> None:
        if holder is None:
            return
        self._say(f"process {holder.process.pid} on {holder.process.host} trains; it is started again when it dies")
        if holder.process.is_local:
            with contextlib.suppress(NoSuchProcess):
                while not wait_until_gone(holder.process, 3600.0):
                    pass
        while read_holder(self._folder.path) is not None:
            time.sleep(_LOOK_S)

    def _note_death(self, how: str) -> bool:
        """Remembers that a launcher has died, and waits until the next one may start.

        Returns:
            Whether the run is given up.
        """
        step = _reached(self._folder)
        futile = 1 if step > self._record.step else self._record.futile + 1
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        at = f"at step {step}" if step >= 0 else "before it logged a step"
        self._note_down(futile=futile, step=step, death=f"{how} {at}, {when}")
        if futile > MOST_FUTILE:
            reason = (
                f"the launcher {how} {at}, and {MOST_FUTILE} restarts in a row have not brought the run any further: "
                f"see {launcher_log(self._folder.logs)}, then go on with phalanx resume --detach {self._folder.path}"
            )
            self._say(reason)
            self._note_down(reason=reason)
            self._end(ExitCode.FAILED)
            return True
        self._say(f"the launcher {how} {at}: it is started again ({futile} of {MOST_FUTILE} without progress)")
        until = time.monotonic() + self._back_off.delay_s(futile)
        while time.monotonic() < until and not self._ought_to_stop():
            time.sleep(_LOOK_S)
        return False

    def _end(self, code: int) -> None:
        self._note_down(exit_code=int(code))

    def _note_down(self, **changes: Any) -> None:
        self._record = replace(self._record, **changes)
        # On a full disk this keeper goes on all the same; only its successor would not know.
        with contextlib.suppress(OSError):
            self._record.write(self._folder.path)


def keep_run(run: str, place: str, environment: Mapping[str, str], *, tied: bool, patient: bool) -> int:
    """Keeps a run until it ends.

    Args:
        run: its folder, absolute.
        place: the folder that launchers start in, if it is there.
        environment: of the launchers, beside this process's own.
        tied: whether a launcher dies with this process. Call it then from a thread that lives as long as the process.
        patient: whether to wait for another keeper's end.

    Returns:
        The run's exit code.

    Raises:
        RunBusy: another process keeps the run.
    """
    folder = RunFolder(run)
    folder.logs.mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder.path, sys.argv, KEEPING)
    while True:
        try:
            lock.acquire()
            break
        except RunBusy:
            if not patient:
                raise
            time.sleep(1.0)
    try:
        keeper = Keeper(
            folder,
            python_program("-m", "launch.detached.launcher", run, str(os.getpid() if tied else 0)).command,
            environment=environment,
            place=place if Path(place).is_dir() else None,
            say=lambda text: _note(folder, text),
        )
        if not tied:
            signal.signal(signal.SIGTERM, lambda *_: keeper.terminate())
        return keeper.keep()
    except Exception as error:
        reason = f"the keeper ended with an error: {error!r}"
        _note(folder, reason)
        record = read_record(folder.path) or KeeperRecord()
        if record.exit_code is None and read_holder(folder.path) is None:
            replace(record, exit_code=int(ExitCode.FAILED), reason=reason).write(folder.path)
        raise
    finally:
        lock.release()


def start_keeper(run: Path, place: str) -> subprocess.Popen:
    """Starts a keeper that no terminal ends, in a process of this machine.

    Args:
        run: the run folder.
        place: the folder that launchers start in.
    """
    log = launcher_log(RunFolder(run).logs)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            python_program("-m", "launch.detached.keeper", str(run.absolute()), place).command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _note(folder: RunFolder, text: str) -> None:
    with contextlib.suppress(OSError), launcher_log(folder.logs).open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def _reached(folder: RunFolder) -> int:
    """The highest step that the run has logged or saved; -1: none."""
    steps = [line["step"] for line in read_metrics(folder.metrics)[-2:]] if folder.metrics.exists() else []
    return max([*steps, *CheckpointStore(folder.checkpoints).steps()], default=-1)


if __name__ == "__main__":
    sys.exit(keep_run(sys.argv[1], sys.argv[2], {}, tied=False, patient=False))
