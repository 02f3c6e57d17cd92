"""What tiny workers on a Ray cluster run, and their hosts' memory: named so that the nodes can import it."""

import shutil
from collections.abc import Collection
from functools import partial
from pathlib import Path

from cluster.worker_environment import WorkerProgram
from tests.cluster.agent_workers import program

# Workers that go on together: each waits for the others' files before its next step, as a collective does. The state is
# the number of steps, and its snapshot a file in the host's memory.
TRAINS = """
from pathlib import Path
folder, memory = Path(os.environ["FOLDER"]), Path(os.environ["MEMORY"])
link.ready(f"{link.host_address}:1")
given = link.wait_for_assignment()
if given is None:
    sys.exit(0)
generation, total, own = given.generation, int(os.environ["STEPS"]), given.itself.host
print(os.getpid(), file=open(folder / f"pid-{generation}-{given.rank}", "w"), flush=True)
link.progressed(generation, 0, "restore")
step = int((memory / f"{given.restore.host}.snapshot").read_text().split()[0]) if given.restore else 0
assert not given.restore or step == given.restore.step, (step, given.restore)
while step < total and not stop.is_set():
    (folder / f"arrived-{generation}-{given.rank}-{step}").touch()
    while not all((folder / f"arrived-{generation}-{m.rank}-{step}").exists() for m in given.members):
        if stop.is_set():
            sys.exit(0)
        time.sleep(0.001)
    step += 1
    link.progressed(generation, step, "step")
    new = memory / f"{own}.{given.rank}"
    new.write_text(f"{step} {generation}")
    new.rename(memory / f"{own}.snapshot")
    link.snapshot_taken(generation, step)
    time.sleep(0.002)
    while (folder / "wait").exists() and step >= int((folder / "wait").read_text() or 0) and not stop.is_set():
        time.sleep(0.01)
print("went from", given.restore.step if given.restore else 0, "to", step, flush=True)
if step == total:
    link.completed(generation, step)
"""


class Memory:
    """A host's memory: a folder."""

    def __init__(self, folder: str, host: str) -> None:
        self.folder = Path(folder) / f"memory-{host}"

    def create(self, keep: Collection[str] = ()) -> None:
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)

    def snapshot(self, host: str) -> Path:
        return self.folder / f"{host}.snapshot"

    def held(self, host: str) -> list[tuple[int, int]]:
        path = self.snapshot(host)
        if not path.exists():
            return []
        step, generation = path.read_text().split()
        return [(int(generation), int(step))]


def storage_in(folder: Path) -> partial[Memory]:
    """Gives each host a memory below a folder."""
    return partial(Memory, str(folder))


def trains(folder: str, steps: int, host: str) -> WorkerProgram:
    """The workers of a host."""
    return program(TRAINS, FOLDER=folder, STEPS=str(steps), MEMORY=str(Memory(folder, host).folder))
