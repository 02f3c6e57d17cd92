"""The order of tests that are divided among processes, so that none is busy for minutes when the others are through."""

from collections.abc import Sequence
from itertools import groupby

import pytest


def longest_first(tests: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """Deals the files whose tests start processes of their own out, to the beginning of each share.

    pytest-xdist gives each of its processes an equal number of neighbouring tests, and later takes the last ones of
    whoever has most left. So the short tests, at the end of each share, are what is left to balance with.

    Args:
        tests: in the order of files, as they were collected.
        processes: how many shares there are.

    Returns:
        The same tests; those of a file stay together, unless a share ends within them.
    """
    files = [list(group) for _, group in groupby(tests, key=lambda test: test.nodeid.split("::")[0])]
    is_long = [any(test.get_closest_marker("processes") for test in file) for file in files]
    long = [file for file, found in zip(files, is_long, strict=True) if found]
    short = [test for file, found in zip(files, is_long, strict=True) if not found for test in file]
    shares = [[test for file in long[first::processes] for test in file] for first in range(processes)]
    ordered: list[pytest.Item] = []
    for number, share in enumerate(shares):
        size = (len(tests) - len(ordered)) // (processes - number)
        filling = max(0, size - len(share))
        ordered += [*share, *short[:filling]]
        short = short[filling:]
    return [*ordered, *short]
