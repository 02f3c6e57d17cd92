"""A training by several workers: the supervisor decides, agents carry out, and this process keeps the journal."""

import sys
import threading
from collections.abc import Callable

import typer

from cluster.config import ClusterConfig, WorkerRange
from cluster.runtime import Runtime
from cluster.supervisor.commands import Command, Finish, Form
from cluster.supervisor.events import Event
from cluster.supervisor.journal_replay import started_record
from cluster.supervisor.records import to_record
from cluster.supervisor.settings import Budgets, HangLimits, HostLimits, Patience, Settings, Sizes
from cluster.supervisor.supervisor import Supervisor
from cluster.terminal_output import TerminalOutput
from launch.data_service import DataService
from launch.host_memory import HostMemory
from launch.hosts import hosts_of
from launch.left_snapshots import left_snapshots, rule_for_left
from launch.profile_file import ProfileFile, profile_on_file
from launch.run_config import RunConfig
from launch.run_watch import start_watching
from trainer.observe.journal import Journal, next_generation
from trainer.run_folder import RunFolder
from trainer.stop_request import StopRequest

# Importing TensorFlow takes a core for seconds, which a generation that forms needs itself.
_SPARE_S = 60.0


class TrainingFailed(RuntimeError):
    """The supervisor gave the run up. The message says why."""


class NoResources(TrainingFailed):
    """The run waited for hosts with enough room, and none came. The message says what is missing."""


# A death costs an elastic run milliseconds, and a host less is one place less where its state is. Each failure asks the
# question anew, so that a chance of one in twenty comes every few minutes where hosts are struck often.
_ELASTIC_CHANCE = 0.001


def settings_of(config: RunConfig, last_generation: int) -> Settings:
    """What the supervisor is told about a run."""
    cluster, strategy = config.cluster, config.strategy
    is_served = strategy.name == "parameter_server"  # of whose members not all share the batch
    is_elastic = config.is_elastic
    standbys = 1 if is_elastic else cluster.max_workers  # the death of one member ends all, or only itself
    return Settings(
        sizes=Sizes(
            cluster.min_workers,
            cluster.max_workers,
            divides=None if is_served or is_elastic else _parts(config),
            gather_s=cluster.shrink_after,
            replace_within_s=cluster.shrink_after,
            grow_within_s=0.0 if is_elastic else Sizes.grow_within_s,
            keep_s=0.0 if is_elastic else cluster.grow_after,
            fewest_survivors=1 if is_elastic and not isinstance(cluster.workers, WorkerRange) else None,
        ),
        # Members of an elastic run are hardly interrupted when others join them.
        budgets=Budgets(cluster.max_failures, cluster.max_preemptions, None if is_elastic else cluster.max_resizes),
        hosts=HostLimits(chance=_ELASTIC_CHANCE) if is_elastic else HostLimits(),
        hangs=HangLimits(
            floor_s=cluster.hang_after,
            straggler_ratio=cluster.straggler_ratio,
            replace_stragglers=cluster.replace_stragglers,
        ),
        standbys=standbys if cluster.standbys is None else cluster.standbys,
        patience=Patience(spare_s=_SPARE_S, resources_s=_wait_s(cluster)),
        reform=is_elastic,
        replaceable_from=1 + strategy.parameter_servers if is_served else None,
        last_generation=last_generation,
    )


def _wait_s(cluster: ClusterConfig) -> float | None:
    """How long a run waits for hosts with enough room; None: for ever."""
    if cluster.kind == "local":
        return Patience.resources_s
    return cluster.ray.wait if cluster.kind == "ray" else cluster.tpu.wait


def _parts(config: RunConfig) -> int:
    """Into how many equal parts a global batch can be cut: the number of workers must divide it."""
    return config.train.virtual_workers or config.data.batch_size // config.train.accumulate


def _announce_sizes(config: RunConfig) -> None:
    cluster = config.cluster
    if len(config.sizes) <= cluster.max_workers - cluster.min_workers:
        _announce(
            f"of {cluster.min_workers} to {cluster.max_workers} workers, {', '.join(map(str, config.sizes))} can share "
            f"data.batch_size={config.data.batch_size} equally: no other number is used"
        )


def train_supervised(config: RunConfig, folder: RunFolder, stop: StopRequest) -> Finish:
    """Trains with as many processes as `cluster.workers` says, and brings back those that die.

    Args:
        config: of the run; it is in the folder.
        folder: of the run; the caller holds its lock.
        stop: ends the run early, with the state saved.

    Returns:
        Its `outcome` is "finished" or "stopped".

    Raises:
        TrainingFailed: the run cannot go on.
        NoResources: there are not enough hosts.
    """
    settings = settings_of(config, max(0, next_generation(folder.journal) - 1))
    supervisor, memory = Supervisor(settings), HostMemory(folder.path)
    may_restore = rule_for_left(folder)
    left = left_snapshots(memory, may_restore)
    journal = Journal(folder.journal)
    journal.write(**started_record(settings, continued=False))
    terminal = TerminalOutput(sys.stdout)
    memory.create(keep=[one.host for one in left])
    watching = start_watching(config, folder, _announce)
    try:
        # Through the terminal's queue: a terminal that stands still must not hold up a recovery.
        service = DataService(config, folder, journal.write, terminal.say) if config.data.service else None
        keys = service.environment if service else {}
        hosts = hosts_of(config, folder, memory, terminal, _host_recorder(journal), terminal.say, may_restore, keys)
        _announce_sizes(config)
        workers = _WorkersByRank()
        runtime = Runtime(supervisor, hosts, _recorder(journal, workers), terminal.say, beside=service)
        _pass_on(stop, runtime.request_stop)
        with profile_on_file(
            ProfileFile(folder.path), lambda request: hosts.profile(workers[request.rank], request.steps)
        ):
            finish = runtime.run(known=left)
    finally:
        terminal.close()
        if not left or supervisor.generation > settings.last_generation:
            memory.clear()  # otherwise nobody has gone on from there yet
        _announce(watching.close(journal))
        journal.close()
    if finish.outcome in ("finished", "stopped"):
        return finish
    raise (NoResources if finish.outcome == "no_resources" else TrainingFailed)(finish.reason)


class _WorkersByRank(dict[int, str]):
    """The worker that was last given each rank; a name that nobody has for a rank that none had."""

    def __missing__(self, rank: int) -> str:
        return ""


def _recorder(journal: Journal, workers: _WorkersByRank) -> Callable[[Event | Command], None]:
    def record(item: Event | Command) -> None:
        journal.write(**to_record(item))
        if isinstance(item, Form):
            workers[item.assignment.rank] = item.worker

    return record


def _host_recorder(journal: Journal) -> Callable[[str, int], None]:
    def record(host: str, pid: int) -> None:
        journal.write("host_started", host=host, pid=pid)
        _announce(f"{host} is process {pid}: SIGTERM gives it notice, SIGKILL takes it away")

    return record


def _pass_on(stop: StopRequest, request: Callable[[str], object]) -> None:
    def wait() -> None:
        stop.wait()
        request(stop.reason or "a signal")

    threading.Thread(target=wait, name="stop-request", daemon=True).start()


def _announce(text: str) -> None:
    typer.echo(typer.style(text, fg="yellow") if sys.stdout.isatty() else text)
