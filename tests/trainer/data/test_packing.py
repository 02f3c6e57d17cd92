from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from trainer.config.data_streams import TextData
from trainer.data import text as text_module
from trainer.data.checks import DataError
from trainer.data.order import SampleOrder
from trainer.data.packing import PackedSource, best_fit, pieces_of
from trainer.data.pipeline import train_batches
from trainer.data.text import open_text

SPEECHES = [f"Speaker {i}.\n" + "word " * (i * 7 % 23) + "end." for i in range(40)]


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "play.txt").write_text("\n\n  \n".join(SPEECHES) + "\n")
    return tmp_path / "play.txt"


def opened(texts: Path, **options) -> PackedSource:
    options = {"context": 63, "documents": "paragraph", "packing": True, "held_out_fraction": 0.01, **options}
    source = open_text(TextData(path=str(texts), **options), "train")
    assert isinstance(source, PackedSource)
    return source


def windows_of(source: PackedSource) -> np.ndarray:
    return source.read(tf.range(source.schema.num_samples, dtype=tf.int64))["tokens"].numpy()


@given(st.lists(st.integers(2, 20), max_size=40))
def test_pieces_fill_windows_without_overlap(lengths: list[int]) -> None:
    windows, offsets = best_fit(np.array(lengths, np.int64), 20)
    taken = np.zeros((len(lengths) + 1, 20), int)
    for size, window, offset in zip(lengths, windows, offsets, strict=True):
        taken[window, offset : offset + size] += 1
    assert taken.max(initial=0) <= 1 and taken.sum() == sum(lengths)
    used = taken.any(1).sum()
    assert sorted(set(windows)) == list(range(used))
    assert (taken[:used].sum(1) <= 10).sum() <= 1  # two that are half empty would have been one


def test_long_documents_are_cut_with_one_token_in_common() -> None:
    begins, lengths = pieces_of(19, [0, 1, 4, 15], 5)
    assert list(zip(begins, lengths, strict=True)) == [(1, 3), (4, 5), (8, 5), (12, 3), (15, 4)]


def test_windows_hold_whole_documents_and_little_else(texts: Path) -> None:
    source = opened(texts)
    windows = windows_of(source)
    assert windows.shape[1] == 64 and source.schema.features["tokens"].separator == 0
    found = [bytes(part).decode() for row in windows for part in bytes(row.astype(np.uint8)).split(b"\0") if part]
    short = [speech for speech in SPEECHES[:-1] if len(speech) < 64]
    assert len(short) > 10 and set(short) <= set(found)
    assert len(windows) < len(found)
    assert np.count_nonzero(windows) / windows.size > 0.9


def test_a_resumed_run_reads_the_rest(texts: Path) -> None:
    source = opened(texts)
    order = SampleOrder(source.schema.num_samples, 4, 5)
    whole = list(train_batches(source, order, first_step=0, num_steps=15))
    rest = list(train_batches(opened(texts), order, first_step=9, num_steps=6))
    for batch, again in zip(whole[9:], rest, strict=True):
        np.testing.assert_array_equal(batch["tokens"], again["tokens"])


def test_windows_are_located(texts: Path) -> None:
    source = opened(texts)
    name, place = source.locate(0).split(", token ")
    assert name == "play.txt" and int(place) >= 0


def test_texts_too_long_for_memory_are_refused(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "IN_MEMORY_BYTES", 100)
    with pytest.raises(DataError, match=r"data\.packing keeps its windows in memory, and the tokens take 0 MiB: "):
        opened(texts)
