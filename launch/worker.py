"""A worker process of a run: an agent starts it, it imports everything, waits for its part and trains.

python -m launch.worker RUN_FOLDER
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cluster.assignment import Assignment, ErrorReport
from cluster.data_service.client import BlockClient
from cluster.reserved_port import ReservedPort
from cluster.termination_notice import on_termination
from cluster.worker_environment import TPU_SLICE
from cluster.worker_link import WorkerLink
from launch.config import load_config
from launch.data_service import client_of
from launch.elastic_membership import NoMoreGroups
from launch.exit_code import ExitCode, explanation_of, is_ours
from launch.group_key import group_key
from launch.host_memory import HOST, HostMemory, takes_snapshots
from launch.quiet_start import import_tensorflow
from launch.run_config import RunConfig, with_hosts_of_slice
from launch.service_key import service_key
from launch.snapshot_state import state_of
from launch.standby import wait_well
from trainer.observe.profile_order import ProfileOrder
from trainer.run_folder import RunFolder
from trainer.stop_request import StopRequest

if TYPE_CHECKING:
    from trainer.strategies.arrivals import ArrivalCount
    from trainer.training import Outcome

_LOOK_S = 1.0
# What a worker that is told of the next group may still be doing, each with a time limit of its own.
_LONG_PHASES = ("evaluate", "checkpoint", "export")


def main() -> None:
    """Serves one assignment and ends, without the tidying up in which TensorFlow may wait for peers that are gone."""
    stop, profile_order = StopRequest(), ProfileOrder()
    link = WorkerLink.from_environment(on_stop=stop.request, on_profile=profile_order.give)
    progress = _Progress(link, profile_order, client_of(RunFolder(sys.argv[1]), service_key()))
    on_termination(progress.leave)
    code = _serve(link, RunFolder(sys.argv[1]), stop, progress)
    link.close()
    sys.stdout.flush()
    os._exit(code)


def _serve(link: WorkerLink, folder: RunFolder, stop: StopRequest, progress: "_Progress") -> ExitCode:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        config = with_hosts_of_slice(load_config(folder.config), os.environ.get(TPU_SLICE))
        progress.notice_s = config.cluster.notice
        import_tensorflow(config.train.compile_cache)
        import trainer.training  # noqa: F401  everything that a training needs, while there is time

        train = _train_elastic if config.is_elastic else _train
        outcome = train(config, folder, progress, stop)
    except NoMoreGroups:
        return ExitCode.STOPPED
    except BaseException as error:
        report = _report(error, progress.step)
        print(report.traceback or f"{report.kind}: {report.message}", file=sys.stderr, flush=True)
        link.failed(report)
        return ExitCode.FAILED
    if outcome is None or outcome.stopped is not None:
        return ExitCode.DONE  # it did as it was asked; that the run was stopped is the launcher's to say
    link.completed(progress.generation, outcome.step)
    return ExitCode.DONE


def _train(config: RunConfig, folder: RunFolder, progress: "_Progress", stop: StopRequest) -> "Outcome | None":
    """Trains in the one generation that this process belongs to; None of a member that served another's.

    Raises:
        NoMoreGroups: there is none.
    """
    from trainer.group import Group
    from trainer.parameter_server.roles import Roles
    from trainer.parameter_server.server import is_server, serve
    from trainer.training import run_training

    link, memory = progress.link, _memory(folder)
    with ReservedPort(link.host_address) as port:
        link.ready(port.address)
        wait_well(link, config, memory.folder)
        assignment = link.wait_for_assignment()
        if assignment is None:
            raise NoMoreGroups
        progress.generation = assignment.generation
        group = Group(assignment.rank, tuple(member.address for member in assignment.members), assignment.generation)
        if is_server(config.strategy, group):
            serve(group, Roles(group.size, config.strategy.parameter_servers), progress.report)
            return None
        own_file = memory.snapshot(assignment.itself.host) if takes_snapshots(assignment) else None
        outcome = run_training(
            config,
            folder,
            stop,
            group,
            restore=state_of(memory, assignment),
            **progress.listeners(config, own_file, len({member.host for member in assignment.members})),
        )
        if group.is_chief:
            _export(config, folder, outcome, progress)
    return outcome


def _memory(folder: RunFolder) -> HostMemory:
    return HostMemory(folder.path, os.environ.get(HOST, ""))


def _train_elastic(config: RunConfig, folder: RunFolder, progress: "_Progress", stop: StopRequest) -> "Outcome | None":
    """Gets everything ready, and trains in one generation after another.

    Raises:
        NoMoreGroups: the run is over before this process became a member.
    """

    from cluster.process_group import Endpoint
    from launch.elastic_membership import ElasticMembership
    from launch.group_strategy import cut_in_parts, group_strategy
    from trainer.session import build_session
    from trainer.training import run_training

    link, memory = progress.link, _memory(folder)
    with Endpoint(link.name, link.host_address, group_key(), memory.folder) as endpoint:
        membership = ElasticMembership(link, endpoint, memory)
        link.on_form = lambda assignment: (progress.move_to(assignment), membership.ordered(assignment))
        training = cut_in_parts(config)
        session = build_session(training, choice=group_strategy(config), membership=membership)
        session.warm_up(config.cluster.max_workers)
        link.ready(endpoint.address)
        outcome = run_training(
            training, folder, stop, session=session, **progress.listeners(config, None, config.cluster.max_workers)
        )
        assert membership.assignment is not None, "nobody trains without a group"
        if membership.assignment.rank == 0:
            _export(config, folder, outcome, progress)
    return outcome


def _export(config: RunConfig, folder: RunFolder, outcome: "Outcome", progress: "_Progress") -> None:
    if outcome.stopped is None and config.export.enabled:
        # Late, because what it takes to import it would keep a recovery waiting.
        from delivery.run_export import export_run, is_exported

        if not is_exported(folder, outcome.step):
            progress.report(outcome.step, "export")
            export_run(config, folder, outcome.session)


class _Progress:
    """Passes on where the training is, and remembers it for an error's report."""

    def __init__(self, link: WorkerLink, profile_order: ProfileOrder, service: BlockClient | None) -> None:
        self.link, self._profile_order, self._service = link, profile_order, service
        self.generation = self.step = 0
        self.notice_s = 30.0
        self._phase = ""

    def report(self, step: int, phase: str) -> None:
        self.step, self._phase = step, phase
        self.link.progressed(self.generation, step, phase)

    def move_to(self, assignment: Assignment) -> None:
        """This worker is told of its next group, whatever it still does; on the link's thread."""
        is_survivor = self.generation > 0
        self.generation = assignment.generation
        if is_survivor:
            self.link.progressed(
                assignment.generation, self.step, self._phase if self._phase in _LONG_PHASES else "restore"
            )

    def listeners(self, config: RunConfig, own_file: Any, num_hosts: int) -> dict[str, Any]:
        """What a training reports to, where it keeps snapshots and has its batches from, and what can fail."""
        from trainer.intervals.interruptions import Exposure
        from trainer.snapshot.taker import SnapshotPlan

        every = config.cluster.snapshot_every
        return {
            "snapshots": SnapshotPlan(own_file, None if every == "auto" else every) if every else None,
            "exposure": Exposure(num_hosts, 3600 * config.cluster.expected_mtbf),
            "on_progress": self.report,
            "on_snapshot": lambda step: self.link.snapshot_taken(self.generation, step),
            "on_arrivals": self.watch,
            "on_checkpoint": lambda step: self.link.checkpoint_durable(self.generation, step),
            "profile_order": self._profile_order,
            "service": self._service,
        }

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
