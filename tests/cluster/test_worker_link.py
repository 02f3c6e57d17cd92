import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.assignment import Assignment, ErrorReport
from cluster.message_lines import MessageReader, encode
from cluster.parent_death import AGENT_LOST
from cluster.worker_link import WorkerLink
from tests.cluster.agent_workers import LIMIT_S, ROOT, assignment, wait_until


class OtherEnd:
    """The agent's end of a link."""

    def __init__(self) -> None:
        self.socket, self.workers = socket.socketpair()
        self.messages: list[dict[str, Any]] = []
        self.times: list[float] = []
        self._reads = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        reader = MessageReader()
        while data := self.socket.recv(1 << 16):
            now = time.monotonic()
            for message in reader.feed(data):
                assert isinstance(message, dict)
                self.messages.append(message)
                self.times.append(now)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


@pytest.fixture
def other() -> Iterator[OtherEnd]:
    other = OtherEnd()
    other.thread.start()
    yield other
    other.workers.close()
    other.thread.join(LIMIT_S)
    other.socket.close()


@pytest.fixture
def link(other: OtherEnd) -> Iterator[Callable[..., WorkerLink]]:
    links = []

    def make(**settings: Any) -> WorkerLink:
        links.append(WorkerLink(other.workers, **settings))
        return links[-1]

    yield make
    for each in links:
        each.close()


def test_a_tight_loop_is_thinned_out_and_its_last_step_arrives(link, other: OtherEnd):
    mine = link(heartbeat_s=60.0)
    for step in range(100_000):
        mine.progressed(1, step, "step")
    wait_until(lambda: other.of("progress") and other.of("progress")[-1]["step"] == 99_999)
    steps = [message["step"] for message in other.of("progress")]
    assert steps == sorted(steps)
    took = other.times[-1] - other.times[0]
    assert len(steps) <= 3 + took / 0.02


def test_reporting_a_step_is_cheap(link, other: OtherEnd):
    mine = link()
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for step in range(10_000):
            mine.progressed(1, step, "step")
        best = min(best, time.perf_counter() - began)
    # Half a microsecond on an idle machine; what would write to the socket each time takes tens.
    assert best / 10_000 < 2e-5


def test_no_change_of_phase_or_generation_is_lost(link, other: OtherEnd):
    mine = link(heartbeat_s=60.0, progress_s=0.2)
    said = []
    for generation in (1, 2):
        for step in range(200):
            for phase in ("restore", "step", "step", "evaluate"):
                mine.progressed(generation, step, phase)
                said.append((generation, step, phase))
    mine.completed(2, 200)
    wait_until(lambda: other.of("completed"))
    heard = [(message["generation"], message["step"], message["phase"]) for message in other.of("progress")]

    def changes(states: list) -> list:
        return [state for state, after in zip(states, [*states[1:], None], strict=True) if state != after]

    # Whether both of two equal ones are heard is left to the clock.
    assert changes(heard) == changes(said)


def test_a_slow_loop_is_heard_at_once(link, other: OtherEnd):
    mine = link(heartbeat_s=600.0, progress_s=0.001)
    for step in range(20):
        mine.progressed(1, step, "step")
        wait_until(lambda step=step: len(other.of("progress")) == step + 1)


def test_a_worker_shows_that_it_lives_whatever_it_does(link, other: OtherEnd):
    link(heartbeat_s=0.01)
    until = time.monotonic() + LIMIT_S
    while len(other.of("heartbeat")) < 5:  # without ever waiting
        assert time.monotonic() < until


def test_reports_arrive_in_the_order_they_were_made(link, other: OtherEnd):
    mine = link(progress_s=60.0)
    mine.ready("[::1]:4711")
    mine.progressed(1, 5, "step")
    mine.progressed(1, 6, "step")
    mine.snapshot_taken(1, 6)
    mine.checkpoint_durable(1, 6)
    mine.progressed(1, 7, "step")
    mine.leaving("SIGTERM", 30.0)
    mine.failed(ErrorReport("ValueError", "m" * 200_000, "first" + "t" * 200_000 + "last", 7, True))
    mine.completed(1, 7)
    wait_until(lambda: other.of("completed"))
    assert other.of("ready")[0]["address"] == "[::1]:4711"
    told = [(m["type"], m.get("step")) for m in other.messages if m["type"] not in ("heartbeat", "ready")]
    thinned = [state for state in told if state != ("progress", 5)]
    assert thinned == [
        ("progress", 6),
        ("snapshot", 6),
        ("checkpoint", 6),
        ("progress", 7),
        ("leaving", None),
        ("error", 7),
        ("completed", 7),
    ]
    error = other.of("error")[0]
    assert len(error["message"]) == len(error["traceback"]) == 100_000
    assert error["traceback"].endswith("last")


def test_closing_a_link_whose_thread_looks_just_then_is_no_error(link, other: OtherEnd, monkeypatch):
    mine = link()
    wake = WorkerLink._wake

    def wake_late(mine: WorkerLink) -> None:  # the thread has seen by itself that the link is closed, and has ended
        wake(mine)
        mine._thread.join(LIMIT_S)
        wake(mine)

    monkeypatch.setattr(WorkerLink, "_wake", wake_late)
    mine.close()
    monkeypatch.undo()
    assert not mine._thread.is_alive()
    before = time.monotonic()
    mine.completed(1, 1)
    assert time.monotonic() - before < 1, "a report that nobody can deliver was waited for"


def test_assignments_come_in_their_order_and_in_pieces(link, other: OtherEnd):
    mine = link()
    assert mine.wait_for_assignment(timeout_s=0.01) is None
    first, second = assignment("w1", 1, rank=3), assignment("w1", 2)
    data = encode({"type": "form", "assignment": first.to_json()})
    got: list[Assignment | None] = []
    waiting = threading.Thread(target=lambda: got.append(mine.wait_for_assignment(LIMIT_S)))
    waiting.start()
    for byte in data:
        other.socket.send(bytes([byte]))
    waiting.join(LIMIT_S)
    assert got == [first]
    other.socket.sendall(encode({"type": "form", "assignment": second.to_json()}))
    assert mine.wait_for_assignment(LIMIT_S) == second


def test_a_stop_ends_the_wait_and_is_passed_on_with_its_first_reason(link, other: OtherEnd):
    reasons: list[str] = []
    mine = link(on_stop=reasons.append)
    waiting = threading.Thread(target=mine.wait_for_assignment)
    waiting.start()
    other.socket.sendall(
        encode({"type": "stop", "reason": "host drains"}) + encode({"type": "stop", "reason": "again"})
    )
    waiting.join(LIMIT_S)
    assert not waiting.is_alive()
    wait_until(lambda: len(reasons) == 2)
    assert mine.stop_reason == "host drains"


def test_a_bad_order_or_callback_costs_nothing_but_a_word_in_the_log(link, other: OtherEnd, capfd):
    profiled: list[int] = []

    def refuse(reason: str) -> None:
        raise RuntimeError("cannot stop")

    mine = link(on_stop=refuse, on_profile=profiled.append)
    other.socket.sendall(b'nonsense\n{"type":"fly"}\n{"type":"form"}\n')
    other.socket.sendall(encode({"type": "profile", "steps": 3}) + encode({"type": "stop", "reason": "end"}))
    wait_until(lambda: mine.stop_reason == "end")
    mine.completed(1, 1)
    assert profiled == [3]
    told = capfd.readouterr().err
    assert "not a message: b'nonsense'" in told and "does not know: 'fly'" in told and "cannot stop" in told


@pytest.mark.processes
@pytest.mark.parametrize("work", ["link.wait_for_assignment()", "while True: link.progressed(1, 1, 'step')"])
def test_a_worker_that_loses_its_agent_exits_with_a_code_of_its_own(work: str):
    ours, theirs = socket.socketpair()
    script = f"""
import socket, sys
sys.path.insert(0, {str(ROOT)!r})
from cluster.worker_link import WorkerLink
link = WorkerLink(socket.socket(fileno={theirs.fileno()}))
link.ready("here:1")
{work}
"""
    worker = subprocess.Popen([sys.executable, "-c", script], pass_fds=[theirs.fileno()])
    theirs.close()
    try:
        assert ours.recv(1)  # it is up
        ours.close()
        assert worker.wait(LIMIT_S) == AGENT_LOST
    finally:
        worker.kill()
        worker.wait()
