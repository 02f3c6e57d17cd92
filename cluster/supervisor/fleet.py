"""The hosts and workers that the supervisor knows of. It only keeps the books: others decide.

Everything is kept in dicts, never in sets: iteration must follow the order of the events, also in another process.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Worker:
    """A worker process that has not ended for sure.

    Attributes:
        name: never used twice in a run.
        number: its place in the order of starts.
        host: where it runs.
        started_at: when it was ordered.
        heard_at: its last sign of life.
        address: where its peers reach it; None until it is ready.
        rank: its rank in the newest generation it was formed into; -1 before.
        formed_at: when it was formed into that.
        doomed_at: when it was first killed; its exit is only waited for.
        killed_at: when the kill was last sent.
        kill_reason: why.
        stop_by: it was asked to end, and is killed at this time; None: it was not asked.
        leaves: whether it has been told from outside to end.
        believed_at: when another was last killed on its word; None: nobody was.
    """

    name: str
    number: int
    host: str
    started_at: float
    heard_at: float
    address: str | None = None
    rank: int = -1
    formed_at: float | None = None
    doomed_at: float | None = None
    killed_at: float = 0.0
    kill_reason: str = ""
    stop_by: float | None = None
    leaves: bool = False
    believed_at: float | None = None

    @property
    def is_standby(self) -> bool:
        """Whether it is ready and waits for an assignment."""
        return self.address is not None and self.formed_at is None and self.doomed_at is None and not self.leaves

    @property
    def stays(self) -> bool:
        """Whether the run has not told it to end."""
        return self.doomed_at is None and self.stop_by is None

    @property
    def remains(self) -> bool:
        """Whether nobody at all has told it to end."""
        return self.stays and not self.leaves

    @property
    def title(self) -> str:
        """What a person calls it: a member by its rank, another by its name."""
        return f"worker {self.rank} on {self.host}" if self.rank >= 0 else f"standby {self.name} on {self.host}"


@dataclass(slots=True)
class Host:
    """A machine that offers room.

    Attributes:
        name: its name.
        order: its place in the order of joining.
        slots: how many members it can carry; standbys may come on top.
        joined_at: when it joined.
        leaves_at: when its notice ends; None: it was given none.
        released: whether it was given back.
        workers: the workers on it, by name.
        num_standbys: how many of them are ready and wait.
    """

    name: str
    order: int
    slots: int
    joined_at: float
    leaves_at: float | None = None
    released: bool = False
    workers: dict[str, Worker] = field(default_factory=dict)
    num_standbys: int = 0

    @property
    def num_seated(self) -> int:
        """How many of its standbys have a slot."""
        return min(self.slots, self.num_standbys)


class Fleet:
    """The living hosts, their workers, and which of those act.

    Attributes:
        hosts: by name, in the order of joining.
        workers: by name, in the order of starting.
        acting: the members of the newest generation that have not ended for sure, by name.
        doomed: the workers whose exit is waited for, by name.
        draining: the hosts that have been given notice, by name.
        num_seated: how many workers are ready, wait, and have a slot on their host, wherever they are.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.workers: dict[str, Worker] = {}
        self.acting: dict[str, Worker] = {}
        self.doomed: dict[str, Worker] = {}
        self.draining: dict[str, Host] = {}
        self.num_seated = 0
        self._hosts_seen = 0
        self._workers_seen = 0

    def join(self, name: str, slots: int, now: float) -> None:
        """A host offers room, again or for the first time."""
        host = self.hosts.get(name)
        if host is None:
            self._hosts_seen += 1
            self.hosts[name] = Host(name, self._hosts_seen, slots, now)
            return
        self.num_seated -= host.num_seated
        host.slots, host.joined_at, host.leaves_at, host.released = slots, now, None, False
        self.num_seated += host.num_seated
        self.draining.pop(name, None)

    def lose(self, name: str) -> list[Worker]:
        """A host is gone.

        Returns:
            Its workers, which are gone with it.
        """
        host = self.hosts.pop(name, None)
        self.draining.pop(name, None)
        if host is None:
            return []
        self.num_seated -= host.num_seated
        return [worker for worker in list(host.workers.values()) if self.remove(worker.name)]

    def drain(self, name: str, leaves_at: float) -> bool:
        """A host has been given notice.

        Returns:
            Whether that is news.
        """
        host = self.hosts.get(name)
        if host is None:
            return False
        is_news = host.leaves_at is None
        host.leaves_at = leaves_at if host.leaves_at is None else min(leaves_at, host.leaves_at)
        self.draining[name] = host
        return is_news

    def start(self, host: str, now: float) -> Worker:
        """Adds a worker that is being started on a host."""
        self._workers_seen += 1
        worker = Worker(f"w{self._workers_seen}", self._workers_seen, host, started_at=now, heard_at=now)
        self.workers[worker.name] = self.hosts[host].workers[worker.name] = worker
        return worker

    def ready(self, worker: Worker, address: str) -> None:
        """A started worker waits for an assignment."""
        if worker.address is None:
            worker.address = address
            self._count(worker, 1)

    def leave(self, worker: Worker) -> None:
        """A worker has been told from outside to end."""
        self._count(worker, -1)
        worker.leaves = True

    def act(self, members: list[Worker], now: float) -> None:
        """These are the members of the newest generation now, in the order of their ranks."""
        for rank, worker in enumerate(members):
            self._count(worker, -1)
            worker.rank, worker.formed_at = rank, now
        self.acting = {worker.name: worker for worker in members}

    def step_in(self, worker: Worker, rank: int, now: float) -> None:
        """A standby takes the place of a member that is gone, in the newest generation."""
        self._count(worker, -1)
        worker.rank, worker.formed_at = rank, now
        self.acting[worker.name] = worker

    def doom(self, worker: Worker, reason: str, now: float) -> None:
        """The worker is being killed."""
        self._count(worker, -1)
        if worker.doomed_at is None:
            worker.doomed_at, worker.kill_reason = now, reason
        worker.killed_at = now
        self.doomed[worker.name] = worker

    def remove(self, name: str) -> Worker | None:
        """A worker has ended for sure.

        Returns:
            It; None when it was not known, or has been removed before.
        """
        worker = self.workers.pop(name, None)
        if worker is None:
            return None
        self._count(worker, -1)
        self.acting.pop(name, None)
        self.doomed.pop(name, None)
        if host := self.hosts.get(worker.host):
            host.workers.pop(name, None)
        return worker

    def _count(self, worker: Worker, change: int) -> None:
        """A worker becomes a standby, or is about to be none any more if it is one."""
        # Written out: it is called for each worker of ten thousand, whenever one of them ends a generation.
        if worker.address is None or worker.formed_at is not None or worker.doomed_at is not None or worker.leaves:
            return
        if (host := self.hosts.get(worker.host)) is not None:
            before, slots = host.num_standbys, host.slots
            host.num_standbys = after = before + change
            self.num_seated += (after if after < slots else slots) - (before if before < slots else slots)
