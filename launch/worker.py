"""A worker process of a run: an agent starts it, it imports everything, waits for its part and trains.

python -m launch.worker RUN_FOLDER
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.assignment import Assignment, ErrorReport
from cluster.reserved_port import ReservedPort
from cluster.termination_notice import on_termination
from cluster.worker_link import WorkerLink
from launch.config import RunConfig, load_config
from launch.exit_code import ExitCode, explanation_of, is_ours
from launch.host_memory import HOST, HostMemory, takes_snapshots
from launch.quiet_start import import_tensorflow
from launch.standby import wait_well
from trainer.run_folder import RunFolder
from trainer.stop_request import StopRequest

if TYPE_CHECKING:
    from trainer.snapshot.file import Snapshot
    from trainer.strategies.arrivals import ArrivalCount
    from trainer.training import Outcome

_LOOK_S = 1.0


def main() -> None:
    """Serves one assignment and ends, without the tidying up in which TensorFlow may wait for peers that are gone."""
    stop = StopRequest()
    link = WorkerLink.from_environment(on_stop=stop.request)
    progress = _Progress(link)
    on_termination(progress.leave)
    code = _serve(link, RunFolder(sys.argv[1]), stop, progress)
    link.close()
    sys.stdout.flush()
    os._exit(code)


def _serve(link: WorkerLink, folder: RunFolder, stop: StopRequest, progress: "_Progress") -> ExitCode:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        config = load_config(folder.config)
        progress.notice_s = config.cluster.notice
        import_tensorflow()
        import trainer.training  # noqa: F401  everything that a training needs, while there is time

        with ReservedPort(link.host_address) as port:
            link.ready(port.address)
            wait_well(link, config, _memory(folder).folder)
            assignment = link.wait_for_assignment()
            if assignment is None:
                return ExitCode.STOPPED
            progress.generation = assignment.generation
            outcome = _train(config, folder, assignment, progress, stop)
    except BaseException as error:
        report = _report(error, progress.step)
        print(report.traceback or f"{report.kind}: {report.message}", file=sys.stderr, flush=True)
        link.failed(report)
        return ExitCode.FAILED
    if outcome is None or outcome.stopped is not None:
        return ExitCode.DONE  # it did as it was asked; that the run was stopped is the launcher's to say
    link.completed(assignment.generation, outcome.step)
    return ExitCode.DONE


def _train(
    config: RunConfig, folder: RunFolder, assignment: Assignment, progress: "_Progress", stop: StopRequest
) -> "Outcome | None":
    """The outcome of the training; None of a member that served another's."""
    from trainer.group import Group
    from trainer.parameter_server.roles import Roles
    from trainer.parameter_server.server import is_server, serve
    from trainer.snapshot.taker import SnapshotPlan
    from trainer.training import run_training

    memory, host = _memory(folder), assignment.itself.host
    group = Group(assignment.rank, tuple(member.address for member in assignment.members), assignment.generation)
    if is_server(config.strategy, group):
        serve(group, Roles(group.size, config.strategy.parameter_servers), progress.report)
        return None
    every = config.cluster.snapshot_every
    own_file = memory.snapshot(host) if takes_snapshots(assignment) else None
    outcome = run_training(
        config,
        folder,
        stop,
        group,
        restore=_state(memory, assignment),
        snapshots=SnapshotPlan(own_file, every) if every else None,
        on_progress=progress.report,
        on_snapshot=lambda step: progress.link.snapshot_taken(assignment.generation, step),
        on_arrivals=progress.watch,
        on_checkpoint=lambda step: progress.link.checkpoint_durable(assignment.generation, step),
    )
    if group.is_chief and outcome.stopped is None and config.export.enabled:
        from delivery.run_export import export_run, is_exported

        if not is_exported(folder, outcome.step):
            progress.report(outcome.step, "export")
            export_run(config, folder, outcome.session)
    return outcome


def _memory(folder: RunFolder) -> HostMemory:
    return HostMemory(folder.path, os.environ.get(HOST, ""))


def _state(memory: HostMemory, assignment: Assignment) -> "Snapshot | None":
    """What the generation goes on from; None: the newest checkpoint.

    Raises:
        SnapshotMissing: the host's memory does not hold it any more.
    """
    from trainer.snapshot.file import read_snapshot

    place = assignment.restore
    return None if place is None else read_snapshot(memory.snapshot(place.host), place.step)


class _Progress:
    """Passes on where the training is, and remembers it for an error's report."""

    def __init__(self, link: WorkerLink) -> None:
        self.link = link
        self.generation = self.step = 0
        self.notice_s = 30.0

    def report(self, step: int, phase: str) -> None:
        self.step = step
        self.link.progressed(self.generation, step, phase)

    def watch(self, arrivals: "Callable[[], ArrivalCount]") -> None:
        """Passes on, from now on, how far this worker is with its own part, also while it waits for the others."""

        def look() -> None:
            while True:
                count = arrivals()
                self.link.did_own_part(count.arrived, count.own_s)
                time.sleep(_LOOK_S)

        # A thread of its own: the link's must go on to say that this process lives if TensorFlow does not answer.
        threading.Thread(target=look, name="arrivals", daemon=True).start()

    def leave(self) -> None:
        """Somebody outside wants this process to end: the supervisor has all members save and end, in time."""
        self.link.leaving("SIGTERM", self.notice_s)
        if not self.generation:
            os._exit(ExitCode.STOPPED)  # a standby has nothing to save


def _report(error: BaseException, step: int) -> ErrorReport:
    import tensorflow as tf

    kind = type(error).__name__
    if isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)):
        # TensorFlow's account of it is a hundred lines about the wrong worker.
        return ErrorReport(kind, "a peer is gone, and the group with it", "", step, is_user_error=False)
    # Whatever the machine can cause may go well the next time; the rest comes again.
    of_machine = isinstance(error, (tf.errors.InternalError, OSError, MemoryError, KeyboardInterrupt, SystemExit))
    # A sentence of ours says it all; where in our code it was raised helps nobody.
    stack = "" if is_ours(error) else "".join(traceback.format_exception(error))
    return ErrorReport(kind, explanation_of(error), stack, step, is_user_error=not of_machine)


if __name__ == "__main__":
    main()
