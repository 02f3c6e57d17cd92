from trainer.intervals.snapshot_interval import LADDER, SnapshotInterval


def moved(interval: SnapshotInterval) -> list[int | None]:
    seen = [interval.steps]
    while interval.wish:
        interval.move(interval.wish)
        seen.append(interval.steps)
    return seen


def test_it_goes_rung_by_rung_to_what_was_aimed_at() -> None:
    interval = SnapshotInterval(20)
    assert moved(interval) == [20]
    interval.aim_at(380)
    assert moved(interval) == [20, 50, 100, 200, 500]
    interval.aim_at(4)
    assert moved(interval) == [500, 200, 100, 50, 20, 10, 5]


def test_it_stays_where_another_interval_is_hardly_better() -> None:
    interval = SnapshotInterval(100)
    for steps in (60, 90, 150, 175):
        interval.aim_at(steps)
        assert not interval.wish
    interval.aim_at(190)
    assert interval.wish == 1


def test_it_ends_with_the_ladder() -> None:
    interval = SnapshotInterval(LADDER[-1])
    interval.move(1)
    assert interval.steps == LADDER[-1]
    interval = SnapshotInterval(1)
    interval.move(-1)
    assert interval.steps == 1


def test_one_that_the_user_has_fixed_stays() -> None:
    for steps in (None, 7):
        interval = SnapshotInterval(steps)
        interval.move(interval.wish)
        assert interval.steps == steps
