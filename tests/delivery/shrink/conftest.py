from pathlib import Path

import pytest

from tests.delivery.shrink.digits_run import train_digits


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_digits(tmp_path_factory.mktemp("runs"))
