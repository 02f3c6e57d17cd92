from types import SimpleNamespace

import pytest

from tests.order import longest_first


def collected(**files: tuple[int, bool]) -> list:
    """So many tests in each file, which start processes or do not."""
    return [
        SimpleNamespace(nodeid=f"{file}::test_{number}", get_closest_marker=lambda name, found=is_long: found or None)
        for file, (count, is_long) in files.items()
        for number in range(count)
    ]


@pytest.mark.parametrize("processes", [2, 3])
def test_every_share_begins_with_long_tests_and_ends_with_short_ones(processes: int):
    tests = collected(a=(7, False), b=(2, True), c=(10, False), d=(1, True), e=(3, True), f=(20, False))
    ordered = longest_first(tests, processes)
    assert sorted(test.nodeid for test in ordered) == sorted(test.nodeid for test in tests)
    size = len(tests) // processes
    for share in range(processes):
        kinds = [bool(test.get_closest_marker("processes")) for test in ordered[share * size : (share + 1) * size]]
        assert kinds[0] and not kinds[-1] and kinds == sorted(kinds, reverse=True)


def test_more_long_tests_than_a_share_holds_lose_nobody():
    tests = collected(a=(9, True), b=(1, False), c=(1, True))
    assert len({test.nodeid for test in longest_first(tests, 2)}) == 11
