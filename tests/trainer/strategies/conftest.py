"""What the tests of strategies have in common."""

import pytest


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> None:
    """For tests, and what they share, that `make test` has no time for."""
    if not request.config.getoption("--chaos-long"):
        pytest.skip("takes half a minute with the others: --chaos-long")
