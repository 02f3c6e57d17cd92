"""A file of rows is there as a whole or not at all, within its bound, and made once."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from trainer.data.checks import DataError
from trainer.data.row_file import Plan, RowFile, open_row_file

ROOT = Path(__file__).parents[3]
ROWS = np.arange(60, dtype=np.int32).reshape(20, 3)
BYTES = ROWS.nbytes
LIMIT = 10 * BYTES
PATIENCE_S = 120


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(tmp_path))
    return tmp_path / "tables"


def plan_of(rows: np.ndarray = ROWS) -> Plan:
    return Plan(len(rows), rows.shape[1], iter(np.split(rows, [1, 8])), lambda: {"first": int(rows[0, 0])})


def made(key: str = "one", limit: int = LIMIT, plan: Callable[[], Plan] = plan_of) -> RowFile:
    return open_row_file(key, limit, "table.csv", plan)


def never() -> Plan:
    raise AssertionError("it is there")


def test_it_is_made_once_and_found_again(folder: Path) -> None:
    for plan in (plan_of, never):
        found = made(plan=plan)
        np.testing.assert_array_equal(found.rows, ROWS)
        assert found.described == {"first": 0} and found.is_sound() and not found.rows.flags.writeable
    assert sorted(os.listdir(folder)) == ["lock", "one.rows"]


@pytest.mark.parametrize("damage", [lambda held: held[:-1], lambda held: b"", lambda held: held[:250] + held[251:]])
def test_what_is_not_whole_is_made_again(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    made()
    path = folder / "one.rows"
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(made().rows, ROWS)


def test_a_changed_byte_is_seen(folder: Path) -> None:
    made()
    path = folder / "one.rows"
    held = bytearray(path.read_bytes())
    held[17] ^= 1
    path.write_bytes(held)
    assert not made(plan=never).is_sound()


def test_the_bound_holds_and_the_longest_unused_goes(folder: Path) -> None:
    with pytest.raises(
        DataError, match=rf"table.csv: its 20 rows take {BYTES} bytes .* data.store.cache is 100: raise"
    ):
        made(limit=100)
    sizes = 3 * BYTES + 160
    for number in range(3):
        made(str(number), sizes)
        os.utime(folder / f"{number}.rows", (number, number))
    made("0", sizes, never)  # used again
    made("3", sizes)
    left = sorted(path.stem for path in folder.glob("*.rows"))
    assert "0" in left and "3" in left and "1" not in left
    assert sum(path.stat().st_size for path in folder.glob("*.rows")) <= sizes


def test_a_full_disk_is_named_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=rf"of table.csv, {BYTES} bytes, cannot be written \(No space left on device\)"):
        made()
    assert os.listdir(folder) == ["lock"]


def test_whoever_wants_the_same_at_once_waits_for_it() -> None:
    begun, go_on, found = threading.Event(), threading.Event(), []

    def slow() -> Plan:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return plan_of()

    first = threading.Thread(target=lambda: found.append(made(plan=slow)))
    first.start()
    assert begun.wait(PATIENCE_S)
    second = threading.Thread(target=lambda: found.append(made(plan=never)))
    second.start()
    go_on.set()
    first.join(PATIENCE_S)
    second.join(PATIENCE_S)
    assert len(found) == 2
    np.testing.assert_array_equal(found[0].rows, found[1].rows)


HALF = """
import time
import numpy as np
from trainer.data.row_file import Plan, open_row_file

def rows():
    yield np.zeros((8, 3), np.int32)
    print("half", flush=True)
    time.sleep(600)

open_row_file("one", 10**6, "table.csv", lambda: Plan(20, 3, rows(), dict))
"""


@contextmanager
def stopped_in_the_middle() -> Iterator[subprocess.Popen]:
    maker = subprocess.Popen([sys.executable, "-c", HALF], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert maker.stdout is not None and maker.stdout.readline() == "half\n"
        yield maker
    finally:
        maker.kill()
        maker.wait()


def test_a_process_that_is_killed_in_the_middle_leaves_nothing_torn(folder: Path) -> None:
    with stopped_in_the_middle() as maker:
        assert len(list(folder.glob(".*.part"))) == 1 and not list(folder.glob("*.rows"))
        found: list[RowFile] = []
        other = threading.Thread(target=lambda: found.append(made()))  # waits for the other process
        other.start()
        maker.kill()
        other.join(PATIENCE_S)
        np.testing.assert_array_equal(found[0].rows, ROWS)
    assert sorted(os.listdir(folder)) == ["lock", "one.rows"]
