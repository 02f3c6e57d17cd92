import os
import signal
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from cluster.agent import Agent
from cluster.assignment import ErrorReport
from cluster.supervisor.events import (
    CheckpointDurable,
    Completed,
    HostDraining,
    HostLost,
    PeerAccused,
    Progressed,
    SnapshotTaken,
    WorkerExited,
    WorkerLeaving,
    WorkerReady,
)
from cluster.worker_environment import WorkerProgram, divide, python_program
from tests.cluster.agent_workers import (
    OBEY,
    SAY_PID,
    WAIT,
    Recorder,
    assignment,
    children,
    is_running,
    pid_in,
    program,
    read,
    wait_until,
)

pytestmark = pytest.mark.processes


def test_a_worker_trains_from_ready_to_completed(agent, recorder: Recorder):
    owner = agent(
        WAIT,
        """
        g = given.generation
        link.progressed(g, 0, "compile")
        link.progressed(g, 0, "step")
        link.progressed(g, 1, "step")
        link.snapshot_taken(g, 1)
        link.checkpoint_durable(g, 1)
        link.leaving("SIGTERM", 12.5)
        link.accuse(g, "w2", "sent nonsense")
        link.progressed(g, 2, "step")
        link.completed(g, 2)
        """,
    )
    owner.start("w1")
    ready = recorder.first(WorkerReady)
    assert (ready.worker, ready.host, ready.address) == ("w1", "a", "127.0.0.1:4711")
    owner.form("w1", assignment("w1", generation=3))
    recorder.exit_of("w1")
    told = [(type(event), getattr(event, "step", None), getattr(event, "phase", None)) for event in recorder.events]
    # The compile phase has its report whatever came after it in the same milliseconds.
    assert told == [
        (WorkerReady, None, None),
        (Progressed, 0, "compile"),
        (Progressed, 1, "step"),
        (SnapshotTaken, 1, None),
        (CheckpointDurable, 1, None),
        (WorkerLeaving, None, None),
        (PeerAccused, None, None),
        (Progressed, 2, "step"),
        (Completed, 2, None),
        (WorkerExited, None, None),
    ]
    assert recorder.first(SnapshotTaken).host == "a"
    assert (recorder.first(WorkerLeaving).reason, recorder.first(WorkerLeaving).notice_s) == ("SIGTERM", 12.5)
    accusation = recorder.first(PeerAccused)
    assert (accusation.worker, accusation.accused, accusation.what) == ("w1", "w2", "sent nonsense")
    assert {event.generation for event in recorder.of(Progressed)} == {3}
    assert all(a.at <= b.at for a, b in zip(recorder.events, recorder.events[1:], strict=False))


@pytest.mark.parametrize(
    ("end", "code", "number"),
    [
        ("sys.exit(0)", 0, None),
        ("os._exit(7)", 7, None),
        ("raise KeyError", 1, None),
        ("os.kill(os.getpid(), signal.SIGKILL)", None, signal.SIGKILL),
        ("signal.signal(signal.SIGSEGV, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGSEGV)", None, signal.SIGSEGV),
    ],
)
def test_every_end_is_reported_once_and_last(agent, recorder: Recorder, end: str, code: int, number: int):
    owner = agent(
        f"""
        for step in range(2000):
            link.snapshot_taken(1, step)
        link.failed(ErrorReport("ValueError", "no", "Traceback: no", 7, True))
        {end}
        """
    )
    for name in ("w1", "w2"):
        owner.start(name)
    for name in ("w1", "w2"):
        ended = recorder.exit_of(name)
        assert (ended.host, ended.code, ended.signal) == ("a", code, number)
        assert ended.error == ErrorReport("ValueError", "no", "Traceback: no", 7, True)
    owner.close()
    assert len(recorder.of(WorkerExited)) == 2
    # Nothing that was said before the end is missing, and nothing came after it.
    assert len(recorder.of(SnapshotTaken)) == 4000
    assert isinstance(recorder.events[-1], WorkerExited)


def test_a_signal_by_somebody_else_shows_as_such(agent, recorder: Recorder, tmp_path: Path):
    owner = agent(SAY_PID, WAIT)
    owner.start("w1")
    recorder.first(WorkerReady)
    os.kill(pid_in(tmp_path / "pid"), signal.SIGTERM)
    ended = recorder.exit_of("w1")
    assert (ended.code, ended.signal, ended.error) == (None, signal.SIGTERM, None)


def test_a_worker_stops_when_asked_also_as_a_standby(agent, recorder: Recorder):
    owner = agent(
        """
        link.ready("127.0.0.1:4711")
        while (given := link.wait_for_assignment()) is not None:
            pass
        assert stop.wait(20)
        sys.exit(31 if link.stop_reason == "enough" else 1)
        """
    )
    owner.start("w1")
    owner.stop("w1", "enough")
    assert recorder.exit_of("w1").code == 31


def test_killing_ends_the_whole_process_group(agent, recorder: Recorder, tmp_path: Path):
    owner = agent(
        """
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid, file=open(os.environ["FOLDER"] + "/child", "w"), flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        """,
        OBEY,
    )
    owner.start("w1")
    child = pid_in(tmp_path / "child")
    assert is_running(child)
    owner.kill("w1", "generation 2 ended")
    assert recorder.exit_of("w1").signal == signal.SIGKILL
    wait_until(lambda: not is_running(child))
    assert "killed by its agent: generation 2 ended" in read(tmp_path / "logs/standby/w1.log")


def test_a_stopped_process_is_killed_too(agent, recorder: Recorder, tmp_path: Path):
    owner = agent(SAY_PID, OBEY)
    owner.start("w1")
    recorder.first(WorkerReady)
    pid = pid_in(tmp_path / "pid")
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: ") T " in read(Path(f"/proc/{pid}/stat")))
    owner.dump_stacks("w1")
    owner.kill("w1", "no progress")
    assert recorder.exit_of("w1").signal == signal.SIGKILL
    assert "no stacks: the process is stopped" in read(tmp_path / "logs/standby/w1.log")


def test_what_a_worker_leaves_behind_ends_with_it(agent, recorder: Recorder, tmp_path: Path):
    owner = agent(
        """
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid, file=open(os.environ["FOLDER"] + "/child", "w"), flush=True)
        os._exit(3)
        """
    )
    owner.start("w1")
    child = pid_in(tmp_path / "child")
    # The child holds the worker's standard output: its end must be seen all the same.
    assert recorder.exit_of("w1").code == 3
    wait_until(lambda: not is_running(child))


def test_closing_leaves_nothing_behind(agent, recorder: Recorder):
    before = set(children())
    owner = agent("signal.signal(signal.SIGTERM, signal.SIG_IGN)", OBEY)
    threads = threading.active_count()
    for number in range(3):
        owner.start(f"w{number}")
    owner.start("never begun")
    recorder.first(WorkerReady)
    owner.close()
    owner.close()
    owner.kill("w1", "too late")
    assert set(children()) == before
    assert threading.active_count() == threads - 1
    assert len(recorder.of(WorkerExited)) == 4
    assert not recorder.of(HostLost)


def test_a_program_that_is_not_there_is_an_exit_with_the_reason(agent, recorder: Recorder):
    owner = agent(WorkerProgram(("/nowhere/python",), {}))
    owner.start("w1")
    ended = recorder.exit_of("w1")
    assert (ended.code, ended.signal) == (None, None)
    assert ended.error is not None and "/nowhere/python" in ended.error.message
    assert not ended.error.is_user_error


def test_messages_may_come_in_pieces_and_nonsense_costs_nothing(agent, recorder: Recorder, tmp_path: Path):
    pieces = """
        import os, socket
        raw = socket.socket(fileno=int(os.environ["PHALANX_LINK_FD"]))
        raw.sendall(b'{"type":"rea')
        raw.sendall(b'dy","address":"[::1]:1"}\\nnonsense\\n{"type":"progress","step":"x"}\\n[1]\\n{"type":"snap')
        raw.sendall(b'shot","generation":1,"step":5}\\n\\xff\\xfe\\n{"type":"unknown"}\\n')
        raw.sendall(b'{"type":"completed","generation":1,"step":9}')
        os._exit(0)
        """
    agent(python_program("-c", textwrap.dedent(pieces))).start("w1")
    recorder.exit_of("w1")
    # The last one lacks its line's end: it was never said completely.
    assert [type(event) for event in recorder.events] == [WorkerReady, SnapshotTaken, WorkerExited]
    assert recorder.first(WorkerReady).address == "[::1]:1"
    log = read(tmp_path / "logs/standby/w1.log")
    assert "not a message: b'nonsense'" in log and "not a worker's message: {'type': 'unknown'}" in log


def test_an_order_that_a_worker_does_not_read_yet_reaches_it_later(agent, recorder: Recorder, tmp_path: Path):
    owner = agent(SAY_PID, WAIT, "link.completed(1, given.num_workers); stop.wait()")
    owner.start("w1")
    recorder.first(WorkerReady)
    pid = pid_in(tmp_path / "pid")
    os.kill(pid, signal.SIGSTOP)
    # Far more than a socket holds.
    owner.form("w1", assignment("w1", generation=1, rank=20_000))
    owner.start("w2")
    recorder.first(WorkerReady, "w2")  # the agent is not held up meanwhile
    os.kill(pid, signal.SIGCONT)
    assert recorder.first(Completed, "w1").step == 20_001


def test_workers_are_held_to_their_share_of_the_host(agent, recorder: Recorder, tmp_path: Path):
    owner = agent(
        """
        keys = ["TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "TF_GRPC_REUSE_PORT"]
        start = [os.environ[key] for key in keys] + [link.name, link.host_address]
        inherited = [key for key in os.environ if key.startswith("PHALANX_")]
        link.ready("here:1")
        for generation in (1, 2):
            given = link.wait_for_assignment()
            print(*start, inherited, "device", os.environ["CUDA_VISIBLE_DEVICES"])
            link.progressed(given.generation, 0, "step")
        stop.wait()
        """,
        shares=divide(2, threads=4, devices=["0", "1"]),
        address="10.0.0.7",
    )

    def device(name: str, generation: int, rank: int) -> str:
        owner.form(name, assignment(name, generation, rank))
        recorder.wait(lambda: any(e.generation == generation for e in recorder.of(Progressed, name)))
        (line,) = (line for line in read(tmp_path / f"logs/{generation}/{rank}.log").splitlines() if "device" in line)
        assert line.startswith(f"2 2 1 {name} 10.0.0.7 [] device ")
        return line.split()[-1]

    for name in ("w1", "w2", "standby"):
        owner.start(name)
        recorder.first(WorkerReady, name)
    assert (device("w1", 1, 0), device("w2", 1, 1)) == ("0", "1")
    owner.kill("w2", "test")
    # The standby takes the device of the worker that it steps in for, and the other keeps its own.
    assert (device("standby", 2, 0), device("w1", 2, 1)) == ("1", "0")


def test_a_host_says_that_it_has_been_given_notice(agent, recorder: Recorder):
    agent(OBEY).drain(30.0)
    event = recorder.first(HostDraining)
    assert (event.host, event.notice_s) == ("a", 30.0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_agent_that_fails_says_so_and_ends_its_workers(agent, tmp_path: Path):
    before = set(children())
    told = Recorder()

    def refuse(event: object) -> None:
        if isinstance(event, WorkerReady):
            raise RuntimeError("no room")
        told(event)

    owner = Agent("a", program(OBEY), tmp_path / "logs", refuse)
    owner.start("w1")
    assert "no room" in told.first(HostLost).reason
    owner.close()
    assert set(children()) == before


def test_without_pidfds_ends_are_found_as_well(agent, recorder: Recorder, monkeypatch: pytest.MonkeyPatch):
    def refuse(pid: int) -> int:
        raise OSError("not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    owner = agent("link.completed(1, 1); sys.exit(9)")
    owner.start("w1")
    assert recorder.exit_of("w1").code == 9
    assert recorder.of(Completed)


def test_workers_outlive_the_thread_that_made_the_agent(agent, recorder: Recorder):
    owners: list[Agent] = []
    maker = threading.Thread(target=lambda: owners.append(agent(OBEY)))
    maker.start()
    maker.join()
    orders = threading.Thread(target=owners[0].start, args=("w1",))
    orders.start()
    orders.join()
    recorder.first(WorkerReady)
    owners[0].stop("w1", "enough")
    assert recorder.exit_of("w1").code == 0


def test_an_interpreter_is_the_one_of_the_agent(agent, recorder: Recorder, tmp_path: Path):
    agent("print(sys.executable)").start("w1")
    recorder.exit_of("w1")
    assert sys.executable in read(tmp_path / "logs/standby/w1.log")
