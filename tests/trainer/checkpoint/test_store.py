import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from trainer.checkpoint.format import STATE, DamagedCheckpoint, verify
from trainer.checkpoint.store import CheckpointStore


def arrays_of(step: int) -> dict[str, np.ndarray]:
    return {"a": np.full(1000, step, np.float32)}


def flip_byte(path: Path) -> None:
    content = bytearray((path / STATE).read_bytes())
    content[-1] ^= 1
    (path / STATE).write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path / STATE, 1000)


def remove_file(path: Path) -> None:
    (path / STATE).unlink()


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints")
    store.prepare()
    return store


def commit(store: CheckpointStore, *steps: int, **metrics: float) -> None:
    for step in steps:
        store.commit(step, arrays_of(step), {"metrics": metrics})


def reopened(store: CheckpointStore, **arguments) -> CheckpointStore:
    """The store as the next process sees it: nothing is known to be good."""
    store = CheckpointStore(store.folder, **arguments)
    store.prepare()
    return store


def test_an_empty_or_absent_folder_has_no_checkpoint(store: CheckpointStore, tmp_path: Path):
    assert (store.steps(), store.newest_verified()) == ([], None)
    assert CheckpointStore(tmp_path / "nowhere").newest_verified() is None


def test_the_newest_stay(store: CheckpointStore):
    commit(store, 100, 200, 300, 400, 500)
    assert store.steps() == [300, 400, 500]
    newest = store.newest_verified()
    assert newest is not None
    assert newest.step == 500
    assert newest.arrays["a"].tolist() == arrays_of(500)["a"].tolist()


def test_steps_beyond_eight_digits_are_in_order(store: CheckpointStore):
    commit(store, 99_999_999, 100_000_000)
    assert store.steps() == [99_999_999, 100_000_000]


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 1)])
def test_the_best_stays_beside_the_newest(store: CheckpointStore, mode, best: int):
    store = reopened(store, keep=2, best_metric="accuracy", best_mode=mode)
    for step, accuracy in enumerate([0.1, 0.9, float("nan"), 0.5, 0.4], 1):
        commit(store, step, accuracy=accuracy)
    commit(store, 6)
    assert store.steps() == [best, 5, 6]
    assert reopened(store, keep=2, best_metric="accuracy", best_mode=mode).best() == best


@pytest.mark.parametrize(("metric", "best"), [("loss", 1), ("rmse", 1), ("macro_f1", 2)])
def test_the_best_loss_or_error_is_the_smallest(store: CheckpointStore, metric: str, best: int):
    store = reopened(store, best_metric=metric)
    for step, value in enumerate([0.25, 0.75, 0.5], 1):
        commit(store, step, **{metric: value})
    assert store.best() == best


def test_of_two_equally_good_the_later_is_the_best(store: CheckpointStore):
    store = reopened(store, keep=3, best_metric="accuracy")
    for step in (1, 2, 3):
        commit(store, step, accuracy=0.5)
    assert store.best() == 3


def test_at_least_one_must_stay(tmp_path: Path):
    with pytest.raises(ValueError, match=r"checkpoint\.keep=0 must be at least 1"):
        CheckpointStore(tmp_path, keep=0)


@pytest.mark.parametrize("damage", [flip_byte, truncate, remove_file, shutil.rmtree])
def test_with_a_damaged_newest_the_one_before_is_used(store: CheckpointStore, damage):
    commit(store, 1, 2, 3)
    damage(store.path(3))
    reports: list[tuple[DamagedCheckpoint, Path | None]] = []
    newest = reopened(store).newest_verified(lambda *report: reports.append(report))
    assert newest is not None
    assert newest.step == 2
    assert store.steps() == [1, 2]
    if damage is not shutil.rmtree:
        [(error, place)] = reports
        assert str(error).startswith(f"{store.path(3)} is damaged: {STATE} ")
        assert place == store.folder / "damaged-step-00000003"
        assert place is not None and place.is_dir()


def test_damaged_ones_of_one_step_do_not_overwrite_each_other(store: CheckpointStore):
    commit(store, 1)
    for _ in range(2):
        commit(store, 2)
        flip_byte(store.path(2))
        assert store.newest_verified() is not None
    assert sorted(os.listdir(store.folder)) == ["damaged-step-00000002", "damaged-step-00000002-2", "step-00000001"]


def test_all_damaged_is_none_and_nothing_is_deleted(store: CheckpointStore):
    commit(store, 1, 2)
    flip_byte(store.path(1))
    truncate(store.path(2))
    assert store.newest_verified() is None
    assert sorted(os.listdir(store.folder)) == ["damaged-step-00000001", "damaged-step-00000002"]


def test_a_reader_without_the_lock_renames_nothing(store: CheckpointStore):
    commit(store, 1, 2)
    flip_byte(store.path(2))
    newest = CheckpointStore(store.folder).newest_verified(set_aside=False)
    assert newest is not None
    assert newest.step == 1
    assert store.steps() == [1, 2]


def test_a_reader_follows_when_the_writer_retires_what_it_reads(store: CheckpointStore, monkeypatch):
    commit(store, 1)
    real = CheckpointStore.path
    reader = CheckpointStore(store.folder)

    def retired_before_reading(self: CheckpointStore, step: int) -> Path:
        if step == 1 and self is reader:
            commit(store, 2, 3, 4)
        return real(self, step)

    monkeypatch.setattr(CheckpointStore, "path", retired_before_reading)
    newest = reader.newest_verified(set_aside=False)
    assert newest is not None
    assert newest.step == 4


def test_the_last_good_one_stays_though_newer_ones_are_there(store: CheckpointStore):
    commit(store, 1, 2, 3)
    flip_byte(store.path(2))
    flip_byte(store.path(3))
    again = reopened(store, keep=2)
    assert again.retain() == []
    assert again.steps() == [1, 2, 3]
    commit(again, 4)
    assert again.steps() == [3, 4]


def test_going_back_discards_what_came_later(store: CheckpointStore):
    commit(store, 1, 2, 3)
    assert store.discard_after(1) == [2, 3]
    assert store.steps() == [1]


def test_going_back_to_a_damaged_one_discards_nothing(store: CheckpointStore):
    commit(store, 1, 2)
    flip_byte(store.path(1))
    with pytest.raises(DamagedCheckpoint):
        store.discard_after(1)
    assert store.steps() == [1, 2]


def test_what_a_killed_process_left_is_cleared_away(store: CheckpointStore):
    commit(store, 1, 2, 3, 4)
    (store.folder / ".writing-00000005-77").mkdir()
    (store.folder / ".writing-00000005-77" / STATE).write_bytes(b"torn")
    assert any(name.startswith(".retired-") for name in os.listdir(store.folder))
    reopened(store)
    assert sorted(os.listdir(store.folder)) == ["step-00000002", "step-00000003", "step-00000004"]


@pytest.mark.parametrize("new_one_is_there", [False, True])
def test_an_interrupted_replacement_is_finished(store: CheckpointStore, new_one_is_there: bool):
    commit(store, 1)
    replaced = store.path(1).rename(store.folder / ".replaced-step-00000001")
    if new_one_is_there:
        commit(store, 1)
    reopened(store)
    assert not replaced.exists()
    verify(store.path(1))


def test_a_retired_folder_is_used_again_unless_someone_put_a_file_into_it(store: CheckpointStore):
    commit(store, 1, 2, 3)
    (store.path(1) / "note.txt").write_text("the one in the paper")
    commit(store, 4, 5, 6, 7)
    assert all(sorted(os.listdir(store.path(step))) == ["manifest.json", STATE] for step in store.steps())


def test_a_full_disk_loses_no_checkpoint_and_says_how_much_is_missing(small_disk):
    store = CheckpointStore(small_disk.folder / "checkpoints", keep=3)
    store.prepare()
    big = {"a": np.ones(75_000, np.float32)}
    for step in (1, 2, 3):
        store.commit(step, big, {})
    small_disk.fill()
    with pytest.raises(OSError, match=r"it needs 0\.4 MB, 0\.0 MB are free|File too large"):
        store.commit(4, big, {})
    assert store.steps() == [1, 2, 3]
    for step in store.steps():
        verify(store.path(step))
    small_disk.free()
    store.commit(5, big, {})
    assert store.steps() == [2, 3, 5]


def test_a_full_disk_takes_the_next_checkpoint_in_the_place_of_a_retired_one(small_disk):
    store = CheckpointStore(small_disk.folder / "checkpoints", keep=1)
    store.prepare()
    small = {"a": np.ones(20_000, np.float32)}
    for step in (1, 2):
        store.commit(step, small, {})
    small_disk.fill()
    for step in (3, 4, 5):
        store.commit(step, small, {})
        assert store.steps() == [step]
        verify(store.path(step))


def test_a_read_only_folder_still_gives_the_newest_good_one(read_only_folder):
    folder, read_only = read_only_folder
    store = CheckpointStore(folder)
    store.prepare()
    commit(store, 1, 2, 3)
    flip_byte(store.path(3))
    reports: list[tuple[DamagedCheckpoint, Path | None]] = []
    with read_only():
        newest = store.newest_verified(lambda *report: reports.append(report))
        with pytest.raises(PermissionError):
            store.commit(4, arrays_of(4), {})
    assert newest is not None
    assert newest.step == 2
    assert [place for _, place in reports] == [None]
    assert store.steps() == [1, 2, 3]
