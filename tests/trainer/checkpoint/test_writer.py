import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer.checkpoint.host_buffer import ArraySpec
from trainer.checkpoint.store import CheckpointStore
from trainer.checkpoint.writer import CheckpointWriter, FailedCheckpoint, SavedCheckpoint

SPECS = {"a": ArraySpec((1000,), "float32")}
LIMIT_S = 30


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    store.prepare()
    return store


class Gate:
    """Holds the writer's thread just before a checkpoint becomes visible."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(LIMIT_S)


def save(writer: CheckpointWriter, step: int, *, wait: bool = False) -> bool:
    buffer = writer.buffer(SPECS)
    buffer.views["a"][:] = step
    return writer.save(step, buffer, {}, wait=wait)


def newest(store: CheckpointStore) -> tuple[int, float]:
    checkpoint = store.newest_verified()
    assert checkpoint is not None
    return checkpoint.step, checkpoint.arrays["a"][-1].item()


def test_saves_become_checkpoints_and_are_reported_when_durable(store: CheckpointStore):
    saved: list[SavedCheckpoint] = []
    with CheckpointWriter(store, on_saved=saved.append, max_overhead=None) as writer:
        for step in (1, 2, 3):
            assert save(writer, step)
            assert writer.wait(LIMIT_S)
    assert [event.step for event in saved] == [1, 2, 3]
    assert all(event.path == store.path(event.step) and event.write_s > 0 for event in saved)
    assert newest(store) == (3, 3.0)


def test_plain_arrays_can_be_saved(store: CheckpointStore):
    with CheckpointWriter(store) as writer:
        assert writer.save(4, {"a": np.full(3, 4.0)}, {"wall_time_s": 2.0}, wait=True)
    assert newest(store) == (4, 4.0)


def test_a_save_is_declined_while_the_one_before_is_being_written(store: CheckpointStore):
    gate = Gate()
    with CheckpointWriter(store, before_commit=gate, max_overhead=None) as writer:
        assert writer.ready
        assert save(writer, 1)
        assert gate.reached.wait(LIMIT_S)
        assert writer.busy
        assert not writer.ready
        assert not writer.save(2, {"a": np.zeros(1)}, {})
        assert not writer.wait(timeout_s=0)
        gate.open.set()
        assert writer.wait(LIMIT_S)
        assert writer.ready
        assert save(writer, 3)
    assert store.steps() == [1, 3]


def test_a_waiting_save_comes_after_the_one_that_is_being_written(store: CheckpointStore):
    gate = Gate()
    with CheckpointWriter(store, before_commit=gate) as writer:
        save(writer, 1)
        assert gate.reached.wait(LIMIT_S)
        gate.open.set()
        assert save(writer, 2, wait=True)
        assert newest(store) == (2, 2.0)


def test_the_buffer_is_the_same_one_until_the_layout_changes(store: CheckpointStore):
    with CheckpointWriter(store) as writer:
        first = writer.buffer(SPECS)
        assert writer.buffer(dict(SPECS)) is first
        assert writer.buffer({"a": ArraySpec((2,), "float32")}) is not first


def test_metadata_may_change_after_the_call(store: CheckpointStore):
    gate = Gate()
    metadata = {"skipped": [1]}
    with CheckpointWriter(store, before_commit=gate) as writer:
        writer.save(1, {"a": np.zeros(1)}, metadata)
        metadata["skipped"].append(2)
        gate.open.set()
    checkpoint = store.newest_verified()
    assert checkpoint is not None
    assert checkpoint.metadata == {"skipped": [1]}


def test_saves_keep_within_their_share_of_the_time(store: CheckpointStore):
    with CheckpointWriter(store, max_overhead=1e-9) as writer:
        assert save(writer, 1)
        writer.wait(LIMIT_S)
        assert not writer.ready
        assert not save(writer, 2)
        assert save(writer, 3, wait=True)
    assert store.steps() == [1, 3]


def test_a_read_only_folder_is_reported_once_a_save_and_training_goes_on(read_only_folder):
    folder, read_only = read_only_folder
    store = CheckpointStore(folder)
    store.prepare()
    failed: list[FailedCheckpoint] = []
    with CheckpointWriter(store, on_failed=failed.append, max_overhead=None) as writer:
        assert save(writer, 1, wait=True)
        with read_only():
            assert not save(writer, 2, wait=True)
            assert not save(writer, 3)
            assert not save(writer, 4, wait=True)
        assert [(event.step, event.retry_s) for event in failed] == [(2, 1.0), (4, 2.0)]
        assert failed[0].reason.startswith(
            f"the checkpoint of step 2 could not be written to {folder}: Permission denied; the earlier ones "
        )
        assert newest(store) == (1, 1.0)
        assert save(writer, 5, wait=True)
    assert newest(store) == (5, 5.0)


def test_a_full_disk_is_reported_and_later_saves_succeed(small_disk):
    store = CheckpointStore(small_disk.folder / "checkpoints")
    store.prepare()
    failed: list[FailedCheckpoint] = []
    big = {"a": np.ones(100_000, np.float32)}
    with CheckpointWriter(store, on_failed=failed.append) as writer:
        assert writer.save(1, big, {}, wait=True)
        small_disk.fill()
        assert not writer.save(2, big, {}, wait=True)
        assert len(failed) == 1
        assert "free space there" in failed[0].reason
        assert store.steps() == [1]
        small_disk.free()
        assert writer.save(3, big, {}, wait=True)
    assert store.steps() == [1, 3]


def raising(event: object) -> None:
    raise RuntimeError("the journal is broken")


@pytest.mark.parametrize(
    "call", [lambda writer: writer.wait(LIMIT_S), lambda writer: save(writer, 2, wait=True), CheckpointWriter.close]
)
def test_what_a_callback_raises_reaches_the_loop(store: CheckpointStore, call: Callable[[CheckpointWriter], object]):
    writer = CheckpointWriter(store, on_saved=raising)
    save(writer, 1)
    with pytest.raises(RuntimeError, match="the journal is broken"):
        call(writer)
    assert store.steps()[0] == 1


def test_the_exception_that_ends_the_run_is_not_hidden(store: CheckpointStore):
    with pytest.raises(KeyboardInterrupt), CheckpointWriter(store, on_saved=raising) as writer:
        save(writer, 1)
        raise KeyboardInterrupt
