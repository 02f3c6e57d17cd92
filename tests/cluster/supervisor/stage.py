"""A supervisor on a stage: its clock, its hosts and its workers are moved by hand, and ticks come every second."""

from typing import TypeVar

from cluster.assignment import Assignment, ErrorReport
from cluster.supervisor.commands import Announce, Command, Finish, Form, Kill, StartWorker, Stop
from cluster.supervisor.events import (
    CheckpointDurable,
    Completed,
    Event,
    Heartbeat,
    HostDraining,
    HostJoined,
    HostLost,
    Progressed,
    SnapshotTaken,
    StopRequested,
    Ticked,
    WorkerExited,
    WorkerLeaving,
    WorkerReady,
)
from cluster.supervisor.settings import Settings
from cluster.supervisor.supervisor import Supervisor

SIGKILL, SIGTERM = 9, 15

C = TypeVar("C", bound=Command)


def user_error(step: int, message: str = "bad sample") -> ErrorReport:
    return ErrorReport(
        "ValueError", message, f"Traceback (most recent call last):\nValueError: {message}\n", step, True
    )


class Stage:
    """Attributes:
    commands: all commands so far.
    """

    def __init__(self, settings: Settings) -> None:
        self.supervisor = Supervisor(settings)
        self.now = 0.0
        self.commands: list[Command] = []
        self.hosts: dict[str, str] = {}  # worker to host
        self.alive: dict[str, None] = {}

    def say(self, event: Event) -> list[Command]:
        commands = self.supervisor.handle(event)
        self.commands += commands
        for command in commands:
            if isinstance(command, StartWorker):
                self.hosts[command.worker] = command.host
                self.alive[command.worker] = None
        return commands

    def wait(self, seconds: float) -> list[Command]:
        """Time passes; every process that was not told to be silent lives."""
        start, end = len(self.commands), self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            self.say(Ticked(self.now))
        return self.commands[start:]

    def wait_alive(self, seconds: float, *silent: str) -> list[Command]:
        """Like `wait`, and all workers but the silent ones send heartbeats."""
        start, end = len(self.commands), self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            for worker in self.alive:
                if worker not in silent:
                    self.say(Heartbeat(self.now, worker))
            self.say(Ticked(self.now))
        return self.commands[start:]

    def join(self, **slots: int) -> list[Command]:
        for host, number in slots.items():
            self.say(HostJoined(self.now, host, number))
        return self.say(Ticked(self.now))

    def lose(self, host: str) -> list[Command]:
        for worker in [worker for worker in self.alive if self.hosts[worker] == host]:
            del self.alive[worker]
        return self.say(HostLost(self.now, host, "it does not answer"))

    def leave(self, worker: str, notice_s: float = 30.0) -> list[Command]:
        return self.say(WorkerLeaving(self.now, worker, "SIGTERM", notice_s))

    def drain(self, host: str, notice_s: float) -> list[Command]:
        return self.say(HostDraining(self.now, host, notice_s)) + self.say(Ticked(self.now))

    def ready(self, *workers: str) -> list[Command]:
        """These workers, or all that were started, are ready."""
        commands: list[Command] = []
        for worker in workers or list(self.alive):
            commands += self.say(WorkerReady(self.now, worker, self.hosts[worker], f"{self.hosts[worker]}:1"))
        return commands

    def exit(
        self, worker: str, code: int | None = None, signal: int | None = None, error: ErrorReport | None = None
    ) -> list[Command]:
        self.alive.pop(worker, None)
        return self.say(WorkerExited(self.now, worker, self.hosts[worker], code, signal, error))

    def bury(self) -> list[Command]:
        """Every worker that was killed ends."""
        killed = [command.worker for command in self.all(Kill) if command.worker in self.alive]
        return [command for worker in dict.fromkeys(killed) for command in self.exit(worker, signal=SIGKILL)]

    def progress(self, step: int, phase: str = "step", *workers: str) -> list[Command]:
        generation = self.supervisor.generation
        return [
            command
            for worker in workers or self.members
            for command in self.say(Progressed(self.now, worker, generation, step, phase))
        ]

    def snapshot(self, host: str, step: int) -> list[Command]:
        return self.say(SnapshotTaken(self.now, host, self.supervisor.generation, step))

    def durable(self, step: int) -> list[Command]:
        return self.say(CheckpointDurable(self.now, self.supervisor.generation, step))

    def complete(self, worker: str, step: int) -> list[Command]:
        return self.say(Completed(self.now, worker, self.supervisor.generation, step))

    def stop(self) -> list[Command]:
        return self.say(StopRequested(self.now, "the user stopped it"))

    def all(self, kind: type[C]) -> list[C]:
        return of(kind, self.commands)

    @property
    def assignment(self) -> Assignment:
        """Of the newest generation, as its first member has it."""
        newest = self.all(Form)[-1].assignment
        return Assignment(newest.generation, 0, newest.members, newest.restore)

    @property
    def members(self) -> list[str]:
        return [member.worker for member in self.assignment.members]

    @property
    def last_words(self) -> str:
        return self.all(Announce)[-1].text

    @property
    def texts(self) -> list[str]:
        return [command.text for command in self.all(Announce)]

    @property
    def outcome(self) -> Finish | None:
        return self.supervisor.outcome


def of(kind: type[C], commands: list[Command]) -> list[C]:
    return [command for command in commands if isinstance(command, kind)]


def workers_of(commands: list[Command], kind: type[Kill] | type[Stop] | type[Form] | type[StartWorker]) -> list[str]:
    return [command.worker for command in commands if isinstance(command, kind)]


def running(settings: Settings, **slots: int) -> Stage:
    """A stage on which generation 1 trains, and has completed step 0."""
    stage = Stage(settings)
    stage.join(**slots)
    stage.ready()
    assert stage.supervisor.generation == 1
    for phase in ("restore", "compile", "step"):
        stage.progress(0, phase)
    return stage
