"""The real supervisor over real workers on two hosts of this machine."""

import itertools
import os
import signal
import threading
from pathlib import Path

import pytest

from cluster.local import LocalHost, LocalHosts
from cluster.runtime import Runtime
from cluster.supervisor.commands import Command, Finish, Form
from cluster.supervisor.events import Event, Progressed
from cluster.supervisor.settings import Settings, Sizes
from cluster.supervisor.supervisor import Supervisor
from tests.cluster.agent_workers import LIMIT_S, children, pid_in, program, read, wait_until

pytestmark = pytest.mark.processes

# Two workers that go on together: each waits for the other's file before its next step, as a collective does.
TRAINS = """
from pathlib import Path
folder = Path(os.environ["FOLDER"])
link.ready(f"{link.host_address}:1")
given = link.wait_for_assignment()
if given is None:
    sys.exit(0)
generation, total = given.generation, int(os.environ["STEPS"])
print(os.getpid(), file=open(folder / f"pid-{generation}-{given.rank}", "w"), flush=True)
link.progressed(generation, 0, "restore")
step = given.restore.step if given.restore else 0
while step < total and not stop.is_set():
    (folder / f"arrived-{generation}-{given.rank}-{step}").touch()
    while not all((folder / f"arrived-{generation}-{m.rank}-{step}").exists() for m in given.members):
        if stop.is_set():
            sys.exit(0)
        time.sleep(0.001)
    step += 1
    link.progressed(generation, step, "step")
    link.snapshot_taken(generation, step)
    if (generation, step) == (1, int(os.environ.get("WAIT_AT", -1))):
        stop.wait()
print("went from", given.restore.step if given.restore else 0, "to", step)
if step == total:
    link.completed(generation, step)
"""


def run(tmp_path: Path, **environment: str) -> tuple[Runtime, list[Event | Command], list[str]]:
    settings = Settings(sizes=Sizes(min=2, max=2), standbys=2)
    journal: list[Event | Command] = []
    said: list[str] = []
    worker = program(TRAINS, FOLDER=str(tmp_path), **environment)
    hosts = LocalHosts([LocalHost("a"), LocalHost("b")], worker, tmp_path / "logs")
    return Runtime(Supervisor(settings), hosts, journal.append, said.append), journal, said


def replayed(journal: list[Event | Command], settings: Settings) -> list[Event | Command]:
    supervisor = Supervisor(settings)
    again: list[Event | Command] = []
    for entry in journal:
        if isinstance(entry, Event):
            again += [entry, *supervisor.handle(entry)]
    return again


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_somebody_kills_is_replaced_and_training_goes_on(tmp_path: Path, number: signal.Signals):
    before = set(children())
    runtime, journal, said = run(tmp_path, STEPS="40", WAIT_AT="20")
    killed: list[int] = []

    def kill() -> None:
        wait_until(lambda: any(isinstance(e, Progressed) and e.step == 20 for e in list(journal)))
        killed.append(pid_in(tmp_path / "pid-1-1"))
        os.kill(killed[0], number)

    killer = threading.Thread(target=kill)
    killer.start()
    finish = runtime.run()
    killer.join()
    assert finish.outcome == "finished", (finish, said)
    assert any(number.name in text and "generation 2" in text for text in said), said
    second = [entry.assignment for entry in journal if isinstance(entry, Form) and entry.assignment.generation == 2]
    assert len(second) == 2 and second[0].restore is not None
    # At most what the other host did not know yet of the last steps.
    assert 18 <= second[0].restore.step <= 20
    assert f"went from {second[0].restore.step} to 40" in read(tmp_path / "logs/2/0.log")
    assert set(children()) == before
    assert replayed(journal, Settings(sizes=Sizes(min=2, max=2), standbys=2)) == journal
    assert all(a.at <= b.at for a, b in itertools.pairwise(e for e in journal if isinstance(e, Event)))


def test_a_stop_ends_the_run_with_its_state_saved(tmp_path: Path):
    runtime, journal, said = run(tmp_path, STEPS="1000000")
    ender = threading.Thread(
        target=lambda: (
            wait_until(lambda: any(isinstance(e, Progressed) and e.step > 2 for e in list(journal))),
            runtime.request_stop("SIGTERM"),
        )
    )
    ender.start()
    finish = runtime.run()
    ender.join(LIMIT_S)
    assert isinstance(finish, Finish) and finish.outcome == "stopped", (finish, said)
