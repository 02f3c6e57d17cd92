import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="run this one simulation and print its journal")
    parser.addoption("--simulation-long", action="store_true", help="100,000 simulated runs instead of some thousands")


# Without tests/simulation on the command line pytest reads this file too late to know the options.
@pytest.fixture
def only_seed(request: pytest.FixtureRequest) -> int | None:
    return request.config.getoption("--seed", default=None)


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--simulation-long", default=False))
