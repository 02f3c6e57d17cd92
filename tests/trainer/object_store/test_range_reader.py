"""Ranges through cache and network are the bytes of the object, whatever the store does in between."""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.trainer.object_store.faulty_store import FaultyStore, faulty_store
from trainer.data.checks import DataError
from trainer.object_store.block_cache import BlockCache
from trainer.object_store.patience import PatientStore
from trainer.object_store.range_reader import RangeReader
from trainer.object_store.stores import HttpStore

BODY = random.Random(0).randbytes(400_123)
BLOCK = 4096


@pytest.fixture
def store() -> Iterator[FaultyStore]:
    with faulty_store({"one": BODY}) as found:
        yield found


def reader_of(folder: Path, limit: int = 10**6, **options: object) -> RangeReader:
    patient = PatientStore(HttpStore(), **{"retries": 8, "first_wait_s": 0.001, "timeout_s": 10.0, **options})
    return RangeReader(patient, BlockCache(folder, limit), BLOCK)


def ranges(count: int, seed: int = 1) -> list[tuple[int, int]]:
    drawn = random.Random(seed)
    begins = [drawn.randrange(len(BODY) + 1) for _ in range(count)]
    return [(begin, min(len(BODY), begin + drawn.randrange(9_000))) for begin in begins]


@pytest.mark.parametrize("limit", [10**6, 5 * BLOCK])
def test_a_store_that_fails_at_random_gives_the_same_bytes(tmp_path: Path, store: FaultyStore, limit: int) -> None:
    store.share, store.delay_s = 0.3, 0.005
    reader = reader_of(tmp_path, limit)
    one = reader.store.look(f"{store.url}/one")
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda bounds: reader.read(one, *bounds), ranges(150)))
    assert read == [BODY[start:stop] for start, stop in ranges(150)]
    assert set(store.faults) == {"", "delay", "cut", "503", "reset", "429"}
    counts = reader.store.counts
    # Every fault but a delay costs one more try, or a second request does.
    assert 0 < counts.retried <= sum(store.faults[kind] for kind in ("cut", "503", "reset", "429"))
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= limit


def test_each_block_is_asked_for_once_however_many_want_it(tmp_path: Path, store: FaultyStore) -> None:
    reader = reader_of(tmp_path, hedge=False)
    one = reader.store.look(f"{store.url}/one")
    store.requests.clear()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: reader.read(one, 0, len(BODY)), range(8)))
    asked = sorted(
        tuple(int(part) for part in span.removeprefix("bytes=").split("-")) for _, span in store.requests.elements()
    )
    assert asked[0][0] == 0 and asked[-1][1] == len(BODY) - 1
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(asked))


def test_what_was_fetched_ahead_needs_no_store(tmp_path: Path, store: FaultyStore) -> None:
    reader = reader_of(tmp_path)
    one = reader.store.look(f"{store.url}/one")
    wanted = [(5_000, 9_000), (50_000, 51_000), (399_000, len(BODY))]
    reader.fetch_ahead((one, *bounds) for bounds in wanted)
    deadline = time.monotonic() + 30
    blocks = {number for start, stop in wanted for number in range(start // BLOCK, -(-stop // BLOCK))}
    cache = BlockCache(tmp_path, 10**6)
    while not all(cache.has(one, BLOCK, number) for number in blocks):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    store.is_gone = True
    assert [reader.read(one, *bounds) for bounds in wanted] == [BODY[start:stop] for start, stop in wanted]
    another = reader_of(tmp_path)  # another process that shares the cache
    assert another.read(one, 5_000, 9_000) == BODY[5_000:9_000]


def test_a_store_that_is_gone_is_named_after_a_bounded_number_of_tries(tmp_path: Path, store: FaultyStore) -> None:
    reader = reader_of(tmp_path, retries=3)
    one = reader.store.look(f"{store.url}/one")
    store.is_gone = True
    store.requests.clear()
    with pytest.raises(DataError, match=rf"^{store.url}/one: its bytes 0 to 4096 cannot be read: 4 tries"):
        reader.read(one, 10, 20)
    assert store.requests.total() == 4
    store.is_gone = False
    assert reader.read(one, 10, 20) == BODY[10:20], "it is asked again when it is back"


def test_whoever_waits_for_a_block_hears_of_its_failure(tmp_path: Path, store: FaultyStore) -> None:
    reader = reader_of(tmp_path, retries=0)
    one = reader.store.look(f"{store.url}/one")
    store.is_gone = True
    failed: list[DataError] = []

    def read() -> None:
        try:
            reader.read(one, 0, 10)
        except DataError as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(failed) == 6


def test_an_object_that_changes_is_named(tmp_path: Path, store: FaultyStore) -> None:
    reader = reader_of(tmp_path)
    one = reader.store.look(f"{store.url}/one")
    store.objects["one"] = BODY[::-1]
    with pytest.raises(DataError, match="/one: it changed after the run began: start a new run on the new data"):
        reader.read(one, 0, 10)
    again = reader.store.look(f"{store.url}/one")
    assert reader.read(again, 0, 10) == BODY[::-1][:10]


def test_a_slow_answer_is_overtaken(tmp_path: Path, store: FaultyStore) -> None:
    reader = reader_of(tmp_path)
    one = reader.store.look(f"{store.url}/one")
    for number in range(20):
        reader.read(one, number * BLOCK, number * BLOCK + 1)
    store.delay_s = 20.0
    store.slow_once = {f"bytes={22 * BLOCK}-{23 * BLOCK - 1}"}
    began = time.monotonic()
    assert reader.read(one, 22 * BLOCK, 22 * BLOCK + 5) == BODY[22 * BLOCK : 22 * BLOCK + 5]
    assert time.monotonic() - began < 10 and reader.store.counts.hedged >= 1
