import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-long", action="store_true", help="twenty kills of each config, in full length")


@pytest.fixture
def chaos_long(request: pytest.FixtureRequest) -> bool:
    # Without tests/chaos on the command line pytest reads this file too late to know the option.
    return bool(request.config.getoption("--chaos-long", default=False))
