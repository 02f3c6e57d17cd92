"""Which of the snapshots that a dead launcher has left the next one may go on from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.supervisor.events import SnapshotTaken
from cluster.supervisor.journal_replay import started_record
from cluster.supervisor.records import to_record
from cluster.supervisor.settings import Settings, Sizes
from launch.host_memory import HostMemory
from launch.left_snapshots import left_snapshots, rule_for_left
from tests.cluster.supervisor.stage import SIGKILL, Stage
from trainer.checkpoint.format import write_checkpoint
from trainer.checkpoint.host_buffer import ArraySpec
from trainer.observe.journal import Journal
from trainer.run_folder import RunFolder
from trainer.snapshot.file import SnapshotFile

SETTINGS = Settings(sizes=Sizes(min=2, max=2), standbys=2)


class JournaledStage(Stage):
    """A stage whose events and commands are in a journal."""

    def __init__(self, folder: RunFolder, settings: Settings = SETTINGS) -> None:
        super().__init__(settings)
        self._journal = Journal(folder.journal)
        self._journal.write(**started_record(settings, continued=False))

    def say(self, event):
        self._journal.write(**to_record(event))
        commands = super().say(event)
        for command in commands:
            self._journal.write(**to_record(command))
        return commands

    def train(self, from_step: int, *snapshots: int) -> None:
        """The newest generation goes on from a step; its hosts take snapshots."""
        for phase in ("restore", "compile", "step"):
            self.progress(from_step, phase)
        for step in snapshots:
            self.progress(step)
            self.snapshot("a", step)

    def break_off(self) -> None:
        """A member dies, and the standbys form the next generation."""
        self.exit(self.members[0], signal=SIGKILL)
        self.bury()
        self.wait_alive(3.0)
        self.ready()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.create()
    run.metrics.write_text('{"step": 10, "loss": 1.0}\n')
    return run


@pytest.fixture
def memory(folder: RunFolder):
    memory = HostMemory(folder.path)
    memory.create()
    yield memory
    memory.clear()


def hold(memory: HostMemory, host: str, *snapshots: tuple[int, int]) -> None:
    """Puts snapshots, each (generation, step), into the memory of a host, one after the other."""
    file = SnapshotFile(memory.snapshot(host), {"w": ArraySpec((3,), "float32")})
    for generation, step in snapshots:
        file.write(step, {"w": lambda: np.zeros(3, np.float32)}, {"generation": generation})


def left(folder: RunFolder, memory: HostMemory) -> list[tuple[str, int, int]]:
    return [(one.host, one.generation, one.step) for one in left_snapshots(memory, rule_for_left(folder))]


def running(folder: RunFolder) -> JournaledStage:
    stage = JournaledStage(folder)
    stage.join(a=1, b=1)
    stage.ready()
    return stage


def test_what_the_newest_generation_took_after_the_last_event_counts(folder, memory):
    running(folder).train(0, 20, 40)
    hold(memory, "a", (1, 40), (1, 60))
    hold(memory, "b", (1, 40))
    assert left(folder, memory) == [("a", 1, 60), ("b", 1, 40)]


def test_what_a_past_that_was_given_up_has_left_is_not_taken(folder, memory):
    stage = running(folder)
    stage.train(0, 20, 40)
    stage.break_off()
    assert stage.assignment.restore is not None and stage.assignment.restore.step == 40
    stage.train(40)
    # Generation 1 was at 60 on host b when it was broken off; generation 2 went on from 40 and writes to a.
    hold(memory, "a", (1, 40), (2, 44))
    hold(memory, "b", (1, 40), (1, 60))
    assert left(folder, memory) == [("a", 2, 44), ("b", 1, 40)]


def test_of_a_generation_that_did_not_say_where_it_began_nothing_older_is_taken(folder, memory):
    stage = running(folder)
    stage.train(0)
    stage.break_off()
    assert stage.supervisor.generation == 2 and stage.assignment.restore is None
    hold(memory, "a", (1, 40))
    assert left(folder, memory) == []


def test_a_newer_checkpoint_is_preferred(folder, memory):
    running(folder).train(0, 20)
    hold(memory, "a", (1, 20))
    assert left(folder, memory) == [("a", 1, 20)]
    folder.checkpoints.mkdir()
    write_checkpoint(folder.checkpoints, 20, {"w": np.zeros(3, np.float32)}, {})
    assert left(folder, memory) == []


def test_without_a_journal_to_go_by_nothing_is_taken(folder, memory):
    hold(memory, "a", (1, 20))
    assert left(folder, memory) == []
    running(folder).train(0, 20)
    assert left(folder, memory) == [("a", 1, 20)]
    text = folder.journal.read_text()
    folder.journal.write_text(text.replace('"w2"', '"w9"', 1))
    assert left(folder, memory) == [], "another supervisor than today's decided what is in there"
    folder.journal.write_text(text)
    folder.metrics.unlink()
    assert left(folder, memory) == [], "the config of a run without progress may have changed"


def test_memory_that_is_not_kept_is_forgotten(memory):
    hold(memory, "a", (1, 20))
    hold(memory, "b", (1, 20))
    memory.create(keep=["b"])
    assert memory.hosts() == ["b"]
    memory.create()
    assert memory.hosts() == [] and memory.folder.is_dir()


def test_a_launcher_that_dies_while_it_takes_over_leaves_what_it_went_on_from(folder, memory):
    running(folder).train(0, 20, 40)
    hold(memory, "a", (1, 40), (1, 60))
    settings = replace(SETTINGS, last_generation=1)
    second = JournaledStage(folder, settings)
    second.join(a=1, b=1)
    second.say(SnapshotTaken(second.now, "a", 1, 60))
    second.ready()
    assert second.assignment.generation == 2 and second.assignment.restore.step == 60
    assert left(folder, memory) == [("a", 1, 60)]
