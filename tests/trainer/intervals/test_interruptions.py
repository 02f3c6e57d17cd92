"""How often a run fails, from what its config expects and what its saved states tell."""

from trainer.intervals.interruptions import Exposure, Interruptions

HOUR = 3600.0


def test_the_expected_rate_rules_at_first_and_what_happens_overrules_it() -> None:
    exposure = Exposure(hosts=10, expected_mtbf_s=1000 * HOUR)
    assert Interruptions().mtbf_s(exposure, 0.0) == 100 * HOUR
    # Twenty failures in a hundred hours: about one in five hours, hardly what was expected.
    seen = Interruptions(failures=20).mtbf_s(exposure, 100 * HOUR)
    assert 5 * HOUR < seen < 10 * HOUR
    # And none in ten thousand hours.
    assert Interruptions().mtbf_s(exposure, 10_000 * HOUR) > 10_000 * HOUR


def test_ends_in_order_are_no_failures() -> None:
    first = Interruptions()
    assert first.after_restore(1, was_in_order=True, from_disk=True) == first
    assert first.after_restore(1, was_in_order=False, from_disk=False) == Interruptions(1, 0)
    # Two generations came to nothing after one that had ended in order.
    assert first.after_restore(3, was_in_order=True, from_disk=True) == Interruptions(2, 1)
    # The beginning of a run is nobody's failure, and neither is the same process that rolls back.
    assert first.after_restore(0, was_in_order=False, from_disk=True) == first


def test_snapshots_on_all_hosts_leave_little_for_the_disk() -> None:
    exposure = Exposure(hosts=10, expected_mtbf_s=1000 * HOUR)
    seen = Interruptions(failures=9, from_disk=0)
    assert seen.disk_mtbf_s(exposure, 0.0, has_snapshots=True) == 1000 * HOUR
    assert seen.disk_mtbf_s(exposure, 0.0, has_snapshots=False) == 10 * HOUR


def test_it_reads_back() -> None:
    seen = Interruptions(3, 1)
    assert Interruptions.from_json(seen.to_json()) == seen
    assert Interruptions.from_json(None) == Interruptions()
