"""Tries are bounded, what cannot pass is not tried again, and a slow read is asked for twice."""

import threading
import time

import pytest

from trainer.data.checks import DataError
from trainer.object_store.patience import PatientStore
from trainer.object_store.stores import StoredObject, StoreError

ONE = StoredObject("mem://one", 1000, "1")


class Scripted:
    """Does with each request what comes next: an error, bytes, or a wait until `release`, then bytes."""

    def __init__(self, *script: object) -> None:
        self.script, self.asked = list(script), 0
        self.release = threading.Event()
        self.lock = threading.Lock()

    def find(self, pattern: str) -> list[str]:
        raise StoreError("no list")

    def look(self, url: str, timeout_s: float) -> StoredObject:
        return ONE

    def read(self, one: StoredObject, start: int, stop: int, timeout_s: float) -> bytes:
        with self.lock:
            self.asked += 1
            what = self.script.pop(0) if self.script else bytes(stop - start)
        if isinstance(what, Exception):
            raise what
        if what == "wait":
            self.release.wait(30)
            return bytes(stop - start)
        assert isinstance(what, bytes)
        return what


def patient(store: Scripted, **options: object) -> PatientStore:
    return PatientStore(store, **{"retries": 3, "first_wait_s": 0.001, "timeout_s": 20.0, **options})


def test_failures_are_waited_out() -> None:
    store = Scripted(StoreError("a"), b"short", StoreError("b"))
    reader = patient(store)
    assert reader.read(ONE, 10, 20) == bytes(10)
    assert (store.asked, reader.counts.retried, reader.counts.reads) == (4, 3, 1)


def test_tries_are_bounded_and_the_error_names_all() -> None:
    store = Scripted(*[StoreError("connection refused")] * 9)
    with pytest.raises(
        DataError,
        match=r"^mem://one: its bytes 10 to 20 cannot be read: 4 tries in [\d.]+ s failed, the last one like this: "
        "connection refused: see to the store and resume the run, or raise data.store.retries$",
    ):
        patient(store).read(ONE, 10, 20)
    assert store.asked == 4
    with pytest.raises(DataError, match="it cannot be listed: 4 tries"):
        patient(store).find("mem://*")


def test_what_cannot_pass_is_not_tried_again() -> None:
    store = Scripted(DataError("x", "", "it does not exist", "restore it"))
    with pytest.raises(DataError, match="it does not exist"):
        patient(store).read(ONE, 0, 1)
    assert store.asked == 1


def test_what_breaks_off_is_a_failure() -> None:
    store = Scripted(*[b"short"] * 4)
    with pytest.raises(DataError, match="the last one like this: it broke off after 5 of 10 bytes"):
        patient(store).read(ONE, 10, 20)


def test_no_answer_is_a_failure_after_its_time() -> None:
    store = Scripted("wait", "wait")
    reader = patient(store, retries=1, timeout_s=0.05)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"2 tries .* no answer within 0.05 s"):
        reader.read(ONE, 0, 1)
    assert time.monotonic() - began < 5
    store.release.set()


def test_a_slow_read_is_asked_for_twice_and_the_first_answer_counts() -> None:
    store = Scripted(*[bytes(1)] * 40, "wait")
    reader = patient(store)
    for _ in range(40):
        reader.read(ONE, 0, 1)
    early = reader.counts.hedged
    assert reader.read(ONE, 0, 1) == bytes(1)  # though the first request hangs
    assert reader.counts.hedged == early + 1 and not store.release.is_set()
    store.release.set()
    unhurried = patient(Scripted("wait"), hedge=False, timeout_s=0.05, retries=0)
    with pytest.raises(DataError, match="1 tries"):
        unhurried.read(ONE, 0, 1)
    assert unhurried.counts.requests == 1
    unhurried.store.release.set()


def test_where_all_are_slow_few_are_asked_for_twice() -> None:
    class Slow(Scripted):
        def read(self, one: StoredObject, start: int, stop: int, timeout_s: float) -> bytes:
            time.sleep(0.02 if self.asked > 30 else 0.0)
            return super().read(one, start, stop, timeout_s)

    reader = patient(Slow())
    for _ in range(60):
        reader.read(ONE, 0, 1)
    assert reader.counts.hedged <= 1 + 0.1 * 60 and reader.counts.requests <= 60 + reader.counts.hedged
