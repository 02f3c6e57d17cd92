from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.inspection.people import HEADER
from trainer.config.data import CsvData
from trainer.data.array_schema import describe_arrays
from trainer.data.arrays import source_of_arrays
from trainer.data.source import Source
from trainer.data.tables import open_table


@pytest.fixture
def open_csv(tmp_path: Path) -> Callable[..., Source]:
    """Writes rows and opens all of them for training, bad ones left out."""

    def opened(rows: list[str], header: str = HEADER, **options: object) -> Source:
        file = tmp_path / "people.csv"
        file.write_text("\n".join([header, *rows]) + "\n")
        # Held-out rows of their own, so that every row of the file is trained on.
        (tmp_path / "held.csv").write_text("\n".join([header, *rows[:2]]) + "\n")
        data = CsvData(
            path=str(file), held_out_path=str(tmp_path / "held.csv"), target="kind", skip_bad_records=1000, **options
        )
        return open_table(data, "train")

    return opened


@pytest.fixture
def source_of() -> Callable[..., Source]:
    """A source in memory of arrays whose target is `label`."""

    def made(arrays: Mapping[str, np.ndarray]) -> Source:
        schema = describe_arrays(arrays, "made.npz", "label")
        return source_of_arrays(arrays, schema, "made.npz", np.arange(schema.num_samples), skip_bad_records=1000)

    return made
