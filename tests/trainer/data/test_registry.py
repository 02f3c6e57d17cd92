import importlib

import numpy as np
import pytest

from trainer.config.data import ArraysData, CsvData, DigitsData
from trainer.data import arrays as arrays_module
from trainer.data import registry
from trainer.data.cache import CachedSource
from trainer.data.checks import DataError
from trainer.data.registry import CUSTOM, OPENERS, TFDS, open_source
from trainer.data.source import Source


@pytest.mark.parametrize("target", [*OPENERS.values(), TFDS, CUSTOM])
def test_every_opener_exists(target):
    module, _, function = target.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_opens_by_name():
    source = open_source(DigitsData(), "held_out")
    assert isinstance(source, Source) and source.schema.num_samples == 359


def test_only_what_is_read_while_training_runs_is_cached(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 2)), label=np.zeros(20, int))
    data = ArraysData(path=str(tmp_path / "a.npz"), cache="memory")
    assert not isinstance(open_source(data, "train"), CachedSource)
    monkeypatch.setattr(arrays_module, "LARGEST_LOADED", 10)
    assert isinstance(open_source(data, "train"), CachedSource)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(registry.OPENERS, "csv", "pyarrow_that_is_not_there:open_table")
    with pytest.raises(ValueError, match=r"data.name=csv needs the package pyarrow_that_is_not_there: install"):
        open_source(CsvData(path="x", target="y"), "train")


@pytest.mark.parametrize(
    ("column", "rule"),
    [
        ("price/unit", "the feature 'price/unit' has a / in its name, so it cannot be an input: rename it"),
        ("sample_weight", "a feature is named 'sample_weight', as the weights of samples"),
        ("y", "it has several columns named 'y': give each one a name of its own"),
    ],
)
def test_names_that_mean_something_else_are_refused(tmp_path, column, rule):
    path = tmp_path / "a.csv"
    path.write_text("\n".join([f"y,{column},kind", *(f"{n},1,{'ab'[n % 2]}" for n in range(20))]))
    with pytest.raises(DataError) as caught:
        open_source(CsvData(path=str(path), target="kind"), "train")
    assert rule in str(caught.value)
