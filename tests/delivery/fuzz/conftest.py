"""How much made-up input is tried."""

from collections.abc import Iterator

import pytest

from tests.delivery.fuzz.rounds import Rounds


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> Iterator[Rounds]:
    """Each check gets an equal share of `--fuzz-seconds`."""
    asked = request.config.getoption
    checks = sum("rounds" in getattr(item, "fixturenames", ()) for item in request.session.items)
    running = Rounds(float(asked("--fuzz-seconds")) / checks, int(asked("--fuzz-seed")))
    yield running
    if asked("--fuzz-json") and not request.session.testsfailed:
        running.write(asked("--fuzz-json"))
