import signal
from pathlib import Path

import pytest

from cluster.supervisor.events import Completed, Progressed, SnapshotTaken, WorkerReady
from cluster.worker_output import OutputLines
from tests.cluster.agent_workers import WAIT, Recorder, assignment, read, wait_until

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    "stuck",
    [
        "while True: pass",
        # Inside a library that never gives the interpreter back: no thread of Python's runs.
        "import collections, itertools; collections.deque(itertools.repeat(0), maxlen=0)",
    ],
)
def test_the_stacks_of_a_stuck_worker_reach_its_log(agent, recorder, tmp_path: Path, stuck: str):
    owner = agent(
        f"""
        def stuck_in_a_loop():
            print("entered")
            {stuck}
        def waits_for_ever():
            threading.Event().wait()
        threading.Thread(target=waits_for_ever, daemon=True).start()
        """,
        WAIT,
        "stuck_in_a_loop()",
    )
    owner.start("w1")
    recorder.first(WorkerReady)
    owner.form("w1", assignment("w1", generation=2, rank=1))
    wait_until(lambda: "entered" in read(tmp_path / "logs/2/1.log"))
    owner.dump_stacks("w1")
    for function in ("stuck_in_a_loop", "waits_for_ever"):
        wait_until(lambda function=function: f"in {function}" in read(tmp_path / "logs/2/1.log"))
    owner.kill("w1", "no progress for 5 s")
    assert recorder.exit_of("w1").signal == signal.SIGKILL
    assert "was ended by SIGKILL" in read(tmp_path / "logs/2/1.log")


def test_each_generation_has_its_log_and_the_terminal_learns_the_rank(agent, recorder: Recorder, tmp_path: Path):
    heard: list[OutputLines] = []
    owner = agent(
        """
        print("importing")
        link.ready("127.0.0.1:4711")
        for _ in range(2):
            given = link.wait_for_assignment()
            print(f"out of {given.generation}")
            print(f"err of {given.generation}", file=sys.stderr)
            link.progressed(given.generation, 0, "step")
        stop.wait()
        print("no line end", end="")
        """,
        on_output=heard.append,
    )
    owner.start("w1")
    recorder.first(WorkerReady)
    owner.form("w1", assignment("w1", generation=4, rank=2))
    recorder.wait(lambda: len(recorder.of(Progressed)) == 1)
    owner.form("w1", assignment("w1", generation=5, rank=0))
    recorder.wait(lambda: len(recorder.of(Progressed)) == 2)
    owner.stop("w1", "done")
    assert recorder.exit_of("w1").code == 0

    def said(path: str) -> list[str]:
        return [line for line in read(tmp_path / "logs" / path).splitlines() if not line.startswith("[phalanx]")]

    assert said("standby/w1.log") == ["importing"]
    assert said("4/2.log") == ["out of 4", "err of 4"]
    assert said("5/0.log") == ["out of 5", "err of 5", "no line end"]
    lines = [(output.rank, line) for output in heard for line in output.lines]
    assert lines == [
        (None, "importing"),
        *((2, "out of 4"), (2, "err of 4")),
        *((0, "out of 5"), (0, "err of 5"), (0, "no line end")),
    ]


def test_a_flood_of_output_neither_blocks_the_reports_nor_loses_a_byte(agent, recorder: Recorder, tmp_path: Path):
    owner = agent(
        """
        line = "x" * 99 + "\\n"
        for step in range(100):
            sys.stdout.write(line * 1000)
            link.snapshot_taken(1, step)
        link.completed(1, 100)
        """
    )
    owner.start("flood")
    owner.start("flood2")
    for name in ("flood", "flood2"):
        assert recorder.exit_of(name).code == 0
        assert read(tmp_path / f"logs/standby/{name}.log").count("x" * 99 + "\n") == 100_000
    assert len(recorder.of(SnapshotTaken)) == 200
    assert len(recorder.of(Completed)) == 2


def test_a_log_that_cannot_be_written_costs_only_itself(agent, recorder: Recorder, tmp_path: Path, caplog):
    (tmp_path / "logs").write_text("not a folder")
    heard: list[OutputLines] = []
    owner = agent("print('hello'); link.completed(1, 1)", on_output=heard.append)
    owner.start("w1")
    assert recorder.exit_of("w1").code == 0
    assert [output.lines for output in heard] == [("hello",)]
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1
