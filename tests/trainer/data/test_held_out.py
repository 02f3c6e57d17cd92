import numpy as np
import pytest

from trainer.data.checks import DataError
from trainer.data.held_out import choose_split, draw_names, draw_records

GOLDEN_NAMES = [0.18460693099188663, 0.4582446398887983]
GOLDEN_RECORDS = [0.2272559592296984, 0.320636993343634]


@pytest.mark.parametrize("drawn", [draw_names([f"class/{i}.jpg" for i in range(4000)]), draw_records("shard", 4000)])
def test_draws_are_even_and_independent(drawn: np.ndarray) -> None:
    assert drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, 10, (0, 1))
    # Five standard deviations of a count with mean 400.
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400 * 0.9)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.08


def test_draws_of_records_differ_between_files_and_keep_when_records_are_added() -> None:
    assert not np.intersect1d(draw_records("a", 100), draw_records("b", 100)).size
    np.testing.assert_array_equal(draw_records("a", 200)[:100], draw_records("a", 100))


def test_draws_are_those_of_every_other_run() -> None:
    """Golden: a changed draw would move samples between training and evaluation of runs that go on."""
    np.testing.assert_allclose(draw_names(["a", "b"]), GOLDEN_NAMES, rtol=1e-15)
    np.testing.assert_allclose(draw_records("a", 2), GOLDEN_RECORDS, rtol=1e-15)


@pytest.mark.parametrize("fraction", [1e-9, 0.3, 1 - 1e-9])
@pytest.mark.parametrize("count", [2, 3, 50])
def test_the_splits_are_a_partition_and_neither_is_empty(fraction: float, count: int) -> None:
    drawn = draw_records("shard", count)
    train, held_out = (choose_split("file", drawn, fraction, split) for split in ("train", "held_out"))
    assert len(train) and len(held_out)
    assert sorted([*train, *held_out]) == list(range(count))


def test_one_sample_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"file: a part of 1 sample\(s\) cannot be held out: add samples, or"):
        choose_split("file", draw_records("shard", 1), 0.5, "train")
