from cluster.assignment import SnapshotPlace
from cluster.supervisor.snapshots import SnapshotBook


def test_the_newest_on_the_asked_hosts_wins_and_the_first_of_equals() -> None:
    book = SnapshotBook()
    for host, step in [("a", 10), ("b", 20), ("c", 20), ("d", 30)]:
        book.take(host, 1, step)
    assert book.newest(["a", "b", "c"]) == SnapshotPlace(20, "b")
    book.lose("b")
    assert book.newest(["a", "b", "c"]) == SnapshotPlace(20, "c")
    assert book.newest([]) is None


def test_what_an_abandoned_past_took_is_never_restored() -> None:
    book = SnapshotBook()
    book.take("a", 1, 500)
    book.take("b", 1, 480)
    book.begin(2, 480)  # a's snapshot was out of reach
    assert book.newest(["a", "b"]) == SnapshotPlace(480, "b")
    book.take("c", 1, 500)  # told of late
    assert book.newest(["a", "b", "c"]) == SnapshotPlace(480, "b")
    book.take("c", 2, 490)
    assert book.newest(["a", "b", "c"]) == SnapshotPlace(490, "c")
    book.begin(3, 490)
    book.take("a", 2, 490)  # of an older generation, but its successor went on from there or later
    assert book.newest(["a"]) == SnapshotPlace(490, "a")


def test_late_news_do_not_replace_newer_ones() -> None:
    book = SnapshotBook()
    book.take("a", 2, 100)
    book.take("a", 1, 100)
    book.take("a", 2, 90)
    assert book.newest(["a"]) == SnapshotPlace(100, "a")


def test_a_newer_checkpoint_beats_every_snapshot() -> None:
    book = SnapshotBook()
    book.take("a", 1, 100)
    book.save(1, 100)
    assert book.newest(["a"]) == SnapshotPlace(100, "a"), "memory is faster"
    book.save(1, 101)
    assert book.newest(["a"]) is None


def test_a_checkpoint_beyond_the_step_that_a_generation_went_on_from_is_gone_or_of_another_past() -> None:
    book = SnapshotBook()
    book.save(1, 100)
    book.begin(2, 80)
    assert book.checkpoint_step == 80
    book.save(1, 90)  # told of late
    assert book.checkpoint_step == 80
    book.take("a", 2, 85)
    assert book.newest(["a"]) == SnapshotPlace(85, "a")


def test_a_distrusted_snapshot_is_passed_over() -> None:
    book = SnapshotBook()
    book.take("a", 1, 100)
    book.take("b", 1, 100)
    book.distrust(SnapshotPlace(100, "a"))
    assert book.newest(["a", "b"]) == SnapshotPlace(100, "b")
    book.distrust(SnapshotPlace(90, "b"))
    assert book.newest(["a", "b"]) == SnapshotPlace(100, "b"), "that was another one"
    book.take("a", 1, 95)  # told of late
    book.distrust(SnapshotPlace(100, "b"))
    assert book.newest(["a", "b"]) is None
    book.take("a", 2, 95)
    assert book.newest(["a", "b"]) == SnapshotPlace(95, "a")
