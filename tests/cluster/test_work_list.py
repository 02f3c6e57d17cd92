"""Orders are done once each, whoever dies: with a scripted crew, and with real processes that are killed."""

import os
import signal
import threading
import time
from collections.abc import Hashable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.local_crew import LocalCrew
from cluster.work_list import Died, Failed, Finished, Outcome, WorkError, WorkList
from tests.cluster.crew_orders import PATIENCE_S, carry_out

SQUARES = {str(number): {"number": number} for number in range(20)}


class ScriptedCrew:
    """Workers that die when the script says so; answers come in an order of its own."""

    def __init__(self, script: list[int]) -> None:
        self.script, self.hired = script, 0
        self.at_work: dict[Hashable, Any] = {}

    def hire(self) -> Hashable:
        self.hired += 1
        return self.hired

    def give(self, worker: Hashable, order: Any) -> None:
        assert worker not in self.at_work
        self.at_work[worker] = order

    def wait(self) -> list[Outcome]:
        next_one = self.script.pop() if self.script else 0
        worker = list(self.at_work)[next_one % len(self.at_work)]
        order = self.at_work.pop(worker)
        return [Died(worker, "so it is written") if next_one > 9 else Finished(worker, order["number"] ** 2)]


@given(st.lists(st.integers(0, 13), max_size=60), st.integers(1, 5))
def test_every_order_is_done_whoever_dies(script: list[int], workers: int) -> None:
    crew, done, told = ScriptedCrew(script), [], []
    deaths = sum(one > 9 for one in script)
    work = WorkList(crew, workers, most_deaths=len(script) + 1, on_death=told.append)
    work.carry_out(SQUARES, lambda name, result: done.append((name, result)))
    assert sorted(done) == sorted((name, order["number"] ** 2) for name, order in SQUARES.items())
    assert work.deaths == len(told) <= deaths and crew.hired <= workers + work.deaths


def test_an_order_at_which_all_die_is_given_up() -> None:
    work = WorkList(ScriptedCrew([10] * 9), 1, most_deaths=3)
    with pytest.raises(WorkError, match=r"^0: 3 workers died at it, the last one like this: so it is written: give"):
        work.carry_out(SQUARES, lambda name, result: None)


@pytest.mark.processes
class TestProcesses:
    def test_killed_ones_are_replaced_and_their_orders_done(self, tmp_path: Path) -> None:
        killed: list[int] = []

        def kill_twice() -> None:
            deadline = time.monotonic() + PATIENCE_S
            while len(killed) < 2 and time.monotonic() < deadline:
                for name in tmp_path.glob("pid-*"):
                    pid = int(name.name.removeprefix("pid-"))
                    if pid not in killed and len(killed) < 2:
                        killed.append(pid)
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.005)
            (tmp_path / "go").touch()

        orders = {**SQUARES, "held": {"number": 100, "hold": str(tmp_path)}}
        done: dict[str, int] = {}
        killer = threading.Thread(target=kill_twice)
        with closing(LocalCrew(carry_out)) as crew:
            told: list[str] = []
            work = WorkList(crew, 2, on_death=told.append)
            killer.start()
            work.carry_out(orders, done.__setitem__)
            killer.join()
            assert done == {name: order["number"] ** 2 for name, order in orders.items()}
            assert told == ["a worker died at held (it was killed by signal 9): another one does it"] * 2
            assert work.deaths == 2 and not set(crew.pids) & set(killed)

            with pytest.raises(WorkError, match=r"last: 4 workers died at it, .* it ended with exit code 3: give"):
                work.carry_out({"last": {"exit": 3}}, done.__setitem__)
            pids = crew.pids
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)

    def test_what_a_worker_raises_is_raised(self) -> None:
        with closing(LocalCrew(carry_out)) as crew:
            work = WorkList(crew, 1)
            for error, expected in (("disk", OSError), ("no pickle", RuntimeError)):
                with pytest.raises(expected, match=r"full|NoPickle: two arguments"):
                    work.carry_out({"one": {"error": error}}, lambda name, result: None)
            work.carry_out({"two": {"number": 2}}, lambda name, result: None)
            assert len(crew.pids) == 1 and work.deaths == 0


def test_an_answer_before_a_death_counts() -> None:
    crew = ScriptedCrew([])
    crew.wait = lambda: [Failed(crew.hired, ValueError("no"))]
    with pytest.raises(ValueError, match="no"):
        WorkList(crew, 1).carry_out({"a": {"number": 1}}, lambda name, result: None)
