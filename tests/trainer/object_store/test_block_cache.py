"""The cache keeps to its bound, forgets what was not used for longest, and never gives back what it was not given."""

import fcntl
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trainer.object_store.block_cache import BlockCache
from trainer.object_store.stores import StoredObject

ROOT = Path(__file__).parents[3]
ONE = StoredObject("mem://one", 1 << 30, "1")
BLOCK = 1000


def block(number: int) -> bytes:
    return random.Random(number).randbytes(BLOCK)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "total")


def kept(cache: BlockCache, numbers: range) -> list[int]:
    return [number for number in numbers if cache.has(ONE, BLOCK, number)]


def age(folder: Path) -> None:
    """Makes all that is there as old as it would be in an hour."""
    for path in folder.rglob("*"):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 3600 * 10**9))


def test_gives_back_what_it_was_given(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 10**6)
    cache.put(ONE, BLOCK, 7, block(7))
    assert BlockCache(tmp_path, 10**6).get(ONE, BLOCK, 7) == block(7)
    others = [
        StoredObject("mem://two", ONE.size, "1"),
        StoredObject(ONE.url, 5, "1"),
        StoredObject(ONE.url, ONE.size, "2"),
    ]
    assert [cache.get(other, BLOCK, 7) for other in others] == [None] * 3
    assert cache.get(ONE, BLOCK + 1, 7) is None and cache.get(ONE, BLOCK, 8) is None


def test_the_bound_holds_and_the_longest_unused_go_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 10 * (BLOCK + 4))
    for number in range(10):
        cache.put(ONE, BLOCK, number, block(number))
        age(tmp_path)
    assert cache.get(ONE, BLOCK, 0) == block(0)  # used again
    for number in range(10, 13):
        cache.put(ONE, BLOCK, number, block(number))
        assert size_of(tmp_path) <= 10 * (BLOCK + 4)
        age(tmp_path)
    left = kept(cache, range(13))
    assert 0 in left and {10, 11, 12} <= set(left) and 1 not in left and 2 not in left
    assert len(left) >= 8


@pytest.mark.parametrize(
    "damage", [lambda held: held[:-1], lambda held: b"", lambda held: held[:50] + b"?" + held[51:]]
)
def test_a_damaged_block_is_as_good_as_absent(tmp_path: Path, damage) -> None:
    cache = BlockCache(tmp_path, 10**6)
    cache.put(ONE, BLOCK, 1, block(1))
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != "total")
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(ONE, BLOCK, 1) is None and not path.exists()


def test_a_total_that_a_killed_process_left_too_high_is_corrected(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 10 * (BLOCK + 4))
    cache.put(ONE, BLOCK, 0, block(0))
    (tmp_path / "total").write_bytes((10**12).to_bytes(8, "little"))
    for number in range(1, 9):
        cache.put(ONE, BLOCK, number, block(number))
    assert kept(cache, range(9)) == list(range(9))


def test_no_room_ends_nothing(tmp_path: Path) -> None:
    small = BlockCache(tmp_path / "small", 100)
    small.put(ONE, BLOCK, 0, block(0))
    assert small.get(ONE, BLOCK, 0) is None and size_of(tmp_path / "small") == 0
    cache = BlockCache(tmp_path / "gone", 10**6)
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    cache.put(ONE, BLOCK, 0, block(0))
    assert cache.get(ONE, BLOCK, 0) is None


WRITER = """
import sys
from pathlib import Path
from tests.trainer.object_store.test_block_cache import BLOCK, ONE, block
from trainer.object_store.block_cache import BlockCache
cache = BlockCache(Path(sys.argv[1]), 20 * (BLOCK + 4))
for number in range(int(sys.argv[2]), 120, 1):
    cache.put(ONE, BLOCK, number % 60, block(number % 60))
    held = cache.get(ONE, BLOCK, (number * 7) % 60)
    assert held is None or held == block((number * 7) % 60)
"""


@pytest.mark.processes
def test_several_processes_and_threads_share_it(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(begin)], env=environment)
        for begin in (0, 13)
    ]
    cache, wrong = BlockCache(tmp_path, 20 * (BLOCK + 4)), []

    def read_and_write(begin: int) -> None:
        for number in range(begin, begin + 60):
            cache.put(ONE, BLOCK, number % 60, block(number % 60))
            held = cache.get(ONE, BLOCK, number * 11 % 60)
            if held not in (None, block(number * 11 % 60)) or size_of_now() > 20 * (BLOCK + 4):
                wrong.append(number)

    def size_of_now() -> int:
        with (tmp_path / "total").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # nobody writes meanwhile
            return size_of(tmp_path)

    threads = [threading.Thread(target=read_and_write, args=(begin,)) for begin in (5, 31)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [writer.wait() for writer in writers] == [0, 0] and not wrong
    assert size_of(tmp_path) <= 20 * (BLOCK + 4)
