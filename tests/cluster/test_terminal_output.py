import io
import threading

import pytest

from cluster.terminal_output import TerminalOutput
from cluster.worker_output import OutputLines
from tests.cluster.agent_workers import LIMIT_S, wait_until


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Slow(io.StringIO):
    """Blocks at the first write until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.go.wait(LIMIT_S)
        return super().write(text)


@pytest.mark.parametrize(("kind", "prefix"), [(io.StringIO, "[1]"), (Terminal, "\x1b[33m[1]\x1b[0m")])
def test_each_line_carries_its_rank_and_on_a_terminal_its_colour(kind: type[io.StringIO], prefix: str):
    stream = kind()
    output = TerminalOutput(stream)
    output(OutputLines("w7", 1, ("one", "two")))
    output(OutputLines("w8", None, ("a standby's",)))
    output.close()
    assert stream.getvalue() == f"{prefix} one\n{prefix} two\n"


def test_what_tensorflow_says_five_times_of_a_dead_peer_is_only_in_the_logs():
    stream = io.StringIO()
    output = TerminalOutput(stream)
    lines = (
        "E0000 00:00:1796076819.733665   30670 ring_alg.cc:291] Aborting RingReduce with UNAVAILABLE: recvmsg",
        "Additional GRPC error information from remote target /job:worker/replica:0/task:0 while calling /RecvBuf:",
        ':UNKNOWN:Error received from peer  {grpc_message:"recvmsg:Connection reset by peer", grpc_status:14}',
        "E0000 00:00:1796076819.733715   30670 base_collective_executor.cc:252] BaseCollectiveExecutor::StartAbort",
        "UnavailableError: a peer is gone, and the group with it",
        "E0000 00:00:1796076819.733715   30670 another.cc:1] an error of another kind",
    )
    output(OutputLines("w7", 1, lines))
    output.close()
    assert stream.getvalue() == f"[1] {lines[4]}\n[1] {lines[5]}\n"


def test_standbys_are_shown_by_name_on_request():
    stream = io.StringIO()
    output = TerminalOutput(stream, standbys=True)
    output(OutputLines("w8", None, ("importing",)))
    output.close()
    assert stream.getvalue() == "[w8] importing\n"


def test_a_terminal_that_does_not_move_holds_nobody_up():
    stream = Slow()
    output = TerminalOutput(stream)
    output(OutputLines("w1", 0, ("first",)))
    assert stream.reached.wait(LIMIT_S)
    for number in range(5000):
        output(OutputLines("w1", 0, (str(number),)))
    stream.go.set()
    output.close()
    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["[0] first", "[0] 0", "[0] 1"]
    assert lines[-1] == "... 3000 lines are only in the logs"


def test_a_sentence_of_the_supervisors_waits_for_no_terminal_and_keeps_its_place():
    stream = Slow()
    output = TerminalOutput(stream)
    output(OutputLines("w1", 0, ("first",)))
    assert stream.reached.wait(LIMIT_S)
    output.say("worker 0 is gone")
    output(OutputLines("w2", 0, ("last",)))
    stream.go.set()
    output.close()
    assert stream.getvalue() == "[0] first\nworker 0 is gone\n[0] last\n"


def test_a_terminal_that_is_gone_costs_nothing():
    stream = io.StringIO()
    output = TerminalOutput(stream)
    stream.close()
    output(OutputLines("w1", 0, ("nobody sees it",)))
    wait_until(lambda: not output._thread.is_alive())
    output(OutputLines("w1", 0, ("nor this",)))
    output.close()
