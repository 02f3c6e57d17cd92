"""What a worker of a group restores: what the chief restores, or nothing."""

from pathlib import Path

import numpy as np
import pytest

from tests.trainer.sessions import small_config, small_session
from trainer.checkpoint.store import CheckpointStore
from trainer.group import Group
from trainer.recorder import Recorder
from trainer.run_folder import RunFolder
from trainer.saving import Saver
from trainer.snapshot.file import Snapshot, SnapshotMissing, read_snapshot
from trainer.snapshot.taker import SnapshotPlan
from trainer.stop_request import StopRequest
from trainer.training import run_training

OTHER = Group(1, ("127.0.0.1:1", "127.0.0.1:2"))


class ChiefAt:
    """The agreement of a worker whose chief restores `step`."""

    def __init__(self, step: int) -> None:
        self._step = step

    def from_chief(self, number: int) -> int:
        return self._step


def saver_of(folder: Path, chief_step: int) -> Saver:
    run = RunFolder(folder)
    session = small_session()
    session.strategy.agreement = ChiefAt(chief_step)
    return Saver(session, run, Recorder(run, session.config.observe, OTHER), OTHER)


def snapshot_of(saver: Saver, step: int) -> Snapshot:
    arrays = {name: variable.numpy() for name, variable in saver._session.state.variables.items()}
    return Snapshot(step, {**arrays, "step": np.int64(step)}, {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    every = {"every": "4st", "max_overhead": None}
    run_training(small_config(checkpoint=every, train={"steps_per_loop": 4}), RunFolder(folder), StopRequest())
    return folder


def test_the_chiefs_checkpoint_is_read_where_a_newer_one_is_found(trained):
    steps = CheckpointStore(trained / "checkpoints").steps()
    assert saver_of(trained, steps[0]).restore() == steps[0] < steps[-1]


def test_workers_without_a_checkpoint_begin_together(tmp_path):
    assert saver_of(tmp_path, -1).restore() is None


@pytest.mark.parametrize(("own", "chief"), [(6, 8), (6, -1)])
def test_snapshots_of_different_steps_are_refused(tmp_path, own, chief):
    saver = saver_of(tmp_path, chief)
    with pytest.raises(SnapshotMissing, match=f"restore step {own} and the chief step {chief}"):
        saver.restore(snapshot_of(saver, own))


def test_a_worker_that_is_not_the_chief_writes_no_checkpoint(tmp_path):
    saver = saver_of(tmp_path, -1)
    saver.save(4, wait=True)
    saver.close()
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "journal.jsonl").exists()


def test_a_process_alone_goes_on_from_a_snapshot_to_the_bit(trained, tmp_path):
    """Taken while the steps go on, it must be the state at its step and no other; metrics and time come with it."""
    taken = []
    plan = SnapshotPlan(tmp_path / "memory", every=5)
    config = small_config(train={"steps_per_loop": 4})
    first, second = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    whole = run_training(config, first, StopRequest(), snapshots=plan, on_snapshot=taken.append)
    snapshot = read_snapshot(plan.path)
    assert taken and snapshot is not None and snapshot.step == taken[-1] and snapshot.step in (5, 10)
    phases = []
    resumed = run_training(
        config, second, StopRequest(), restore=snapshot, on_progress=lambda *progress: phases.append(progress)
    )
    begun = [(snapshot.step, phase) for phase in ("build", "restore", "compile")]
    assert phases[:3] == begun and phases[-1] == (12, "checkpoint")
    assert resumed.wall_time_s > snapshot.metadata["wall_time_s"] > 0
    for name, variable in whole.session.state.variables.items():
        np.testing.assert_array_equal(variable.numpy(), resumed.session.state.variables[name].numpy(), err_msg=name)


def test_a_host_without_memory_trains_without_snapshots(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way of a folder")
    plan = SnapshotPlan(tmp_path / "file/memory", every=5)
    outcome = run_training(small_config(), RunFolder(tmp_path / "run"), StopRequest(), snapshots=plan)
    assert outcome.step == 12 and "no snapshots are taken any more" in capsys.readouterr().out


def test_a_checkpoint_is_told_of_when_it_can_be_read(tmp_path):
    told, store = [], CheckpointStore(RunFolder(tmp_path).checkpoints)

    def note(step: int) -> None:
        told.append((step, step in store.steps()))

    every = {"every": "4st", "max_overhead": None}
    config = small_config(checkpoint=every, train={"steps_per_loop": 4})
    run_training(config, RunFolder(tmp_path), StopRequest(), on_checkpoint=note)
    assert [step for step, _ in told][-1] == config.train.steps and all(readable for _, readable in told)
