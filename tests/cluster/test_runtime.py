import itertools
import queue
import threading
from collections.abc import Callable

import pytest

from cluster.assignment import Assignment
from cluster.runtime import Runtime
from cluster.supervisor.commands import (
    Announce,
    Command,
    DumpStacks,
    Finish,
    Form,
    Kill,
    ReleaseHost,
    StartWorker,
    Stop,
)
from cluster.supervisor.events import Event, Heartbeat, HostJoined, HostLost, Progressed, StopRequested, Ticked
from tests.cluster.agent_workers import assignment

END = Finish("finished", "done")


class Script:
    """Decides by a table: what to do about the first event of each kind, or about any other event."""

    def __init__(self, answers: dict[type, list[Command]]) -> None:
        self.answers = dict(answers)
        self.handled: list[Event] = []

    def handle(self, event: Event) -> list[Command]:
        self.handled.append(event)
        return self.answers.pop(type(event), [])


class Hosts:
    """Notes what it is told, and reports what it is given when it opens."""

    def __init__(self, *events: Event) -> None:
        self.events, self.told = events, []

    def open(self, on_event: Callable[[Event], object]) -> None:
        self.on_event = on_event
        self.told.append("open")
        for event in self.events:
            on_event(event)

    def start(self, worker: str, host: str) -> None:
        self.told.append(("start", worker, host))

    def form(self, worker: str, assignment: Assignment) -> None:
        self.told.append(("form", worker, assignment))

    def stop(self, worker: str, reason: str) -> None:
        self.told.append(("stop", worker, reason))

    def kill(self, worker: str, reason: str) -> None:
        self.told.append(("kill", worker, reason))

    def dump_stacks(self, worker: str) -> None:
        self.told.append(("dump_stacks", worker))

    def release(self, host: str) -> None:
        self.told.append(("release", host))

    def close(self) -> None:
        self.told.append("close")


def test_every_command_is_carried_out_in_its_order_until_the_run_is_over():
    part = assignment("w1")
    commands = [StartWorker("w1", "a"), Form("w1", part), DumpStacks("w1"), Stop("w1", "enough"), Kill("w1", "late")]
    hosts = Hosts(HostJoined(0.0, "a", 1))
    said: list[str] = []
    journal: list[Event | Command] = []
    last = [ReleaseHost("a"), Announce("all is well"), END, Announce("never said")]
    script = Script({HostJoined: commands, Ticked: last})
    assert Runtime(script, hosts, journal.append, said.append, tick_s=0.001).run() == END
    assert hosts.told == [
        "open",
        ("start", "w1", "a"),
        ("form", "w1", part),
        ("dump_stacks", "w1"),
        ("stop", "w1", "enough"),
        ("kill", "w1", "late"),
        ("release", "a"),
        "close",
    ]
    assert said == ["all is well"]
    # The journal: each event, then what it led to.
    joined, ticked = script.handled
    assert journal == [joined, *commands, ticked, *last]


def test_a_journal_replays_to_the_same_commands():
    class Counting:
        """Gives a command that depends on all it has seen."""

        def __init__(self) -> None:
            self.seen: list[Event] = []

        def handle(self, event: Event) -> list[Command]:
            self.seen.append(event)
            progress = sum(e.step for e in self.seen if isinstance(e, Progressed))
            if isinstance(event, Progressed) and event.step >= 2000:
                return [END]
            return [Announce(f"{progress} after {event.at - self.seen[0].at} s")] if len(self.seen) % 3 == 0 else []

    journal: list[Event | Command] = []
    hosts = Hosts(HostJoined(0.0, "a", 1))
    runtime = Runtime(Counting(), hosts, journal.append, lambda text: None, tick_s=0.001)
    writer = threading.Thread(target=lambda: [runtime.put(Progressed(0.0, "w1", 1, n, "step")) for n in range(2001)])
    writer.start()
    runtime.run()
    writer.join()
    events = [entry for entry in journal if isinstance(entry, Event)]
    again: list[Event | Command] = []
    replayed = Counting()
    for event in events:
        again += [event, *replayed.handle(event)]
    assert again == journal
    assert len(events) < 1500  # most of the progress was coalesced


def test_a_flood_of_events_does_not_keep_the_clock_away():
    hosts = Hosts()
    script = Script({})
    runtime = Runtime(script, hosts, lambda entry: None, lambda text: None, tick_s=0.001)
    ended = threading.Event()

    def flood() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            runtime.put(Heartbeat(0.0, f"w{number % 100}"))

    flooding = threading.Thread(target=flood)
    handle = script.handle

    def count(event: Event) -> list[Command]:
        handle(event)
        return [END] if sum(isinstance(e, Ticked) for e in script.handled) == 20 else []

    script.handle = count
    flooding.start()
    try:
        runtime.run()
    finally:
        ended.set()
        flooding.join()


def test_events_carry_the_time_of_this_process_whatever_their_machine_says():
    clock = itertools.count(100).__next__
    script = Script({StopRequested: [END]})
    hosts = Hosts(HostJoined(1e9, "a", 1), HostLost(-5.0, "b", "gone"))
    runtime = Runtime(script, hosts, lambda entry: None, lambda text: None, clock=lambda: float(clock()))
    runtime.request_stop("SIGTERM")
    runtime.run()
    times = [event.at for event in script.handled]
    assert times == sorted(times) and times[0] >= 100 and times[-1] < 200
    assert next(e for e in script.handled if isinstance(e, StopRequested)).reason == "SIGTERM"


def test_a_quiet_run_looks_at_the_clock_less_often_until_something_happens():
    now = [0.0]
    script = Script({})
    hosts = Hosts()

    class Queue:
        """Time passes only while the runtime waits."""

        def get(self, timeout: float) -> Event:
            now[0] += timeout
            if 19.9 < now[0] < 22:
                now[0] = 22.0
                return HostLost(22.0, "a", "gone")
            if now[0] > 40:
                return StopRequested(now[0], "end")
            raise queue.Empty

    script.answers[StopRequested] = [END]
    runtime = Runtime(script, hosts, lambda entry: None, lambda text: None, clock=lambda: now[0])
    runtime._arrived = Queue()
    runtime.run()
    ticks = [event.at for event in script.handled if isinstance(event, Ticked)]
    gaps = {at: after - at for at, after in itertools.pairwise(ticks)}
    assert all(gap == pytest.approx(0.05, abs=0.01) for at, gap in gaps.items() if at < 9.9 or 22.1 < at < 31)
    assert all(gap == pytest.approx(2.0, abs=0.1) for at, gap in gaps.items() if 12.1 < at < 17.9 or 34 < at < 37.9)


def test_what_a_dead_supervisor_had_decided_is_carried_out_first():
    hosts = Hosts()
    journal: list[Event | Command] = []
    left = [Kill("w1", "no progress"), StartWorker("w2", "a")]
    Runtime(Script({Ticked: [END]}), hosts, journal.append, lambda text: None, tick_s=0.001).run(begin_with=left)
    assert hosts.told == ["open", ("kill", "w1", "no progress"), ("start", "w2", "a"), "close"]
    assert journal[:2] == left


@pytest.mark.parametrize("where", ["open", "handle", "journal"])
def test_the_hosts_are_closed_whatever_fails(where: str):
    hosts, script = Hosts(), Script({})

    def fail(*arguments: object) -> None:
        raise RuntimeError(where)

    if where == "open":
        hosts.open = fail
    if where == "handle":
        script.handle = fail
    journal = fail if where == "journal" else lambda entry: None
    with pytest.raises(RuntimeError, match=where):
        Runtime(script, hosts, journal, lambda text: None, tick_s=0.001).run()
    assert hosts.told[-1] == "close"
