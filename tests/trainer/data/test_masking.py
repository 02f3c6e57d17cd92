from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import losses, small_session
from trainer.config.data_streams import TextData
from trainer.data.checks import DataError
from trainer.data.masking import MaskedSource
from trainer.data.order import SampleOrder
from trainer.data.pipeline import evaluation_batches, train_batches
from trainer.data.shard import WHOLE, Shard
from trainer.data.text import open_text
from trainer.data.text_classes import TextClassSource

CONTEXT, MASK = 50, 256


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "plays").mkdir()
    (tmp_path / "plays" / "macbeth.txt").write_text("Tomorrow, and tomorrow, and tomorrow.\n" * 150)
    (tmp_path / "plays" / "tempest.txt").write_text("Our revels now are ended.\n" * 150)
    (tmp_path / "plays" / "sonnet.txt").write_text("Shall I compare thee?\n" * 20)
    return tmp_path / "plays"


def opened(folder: Path, **options):
    return open_text(TextData(path=str(folder), **{"context": CONTEXT, **options}), "train")


def masked(folder: Path) -> MaskedSource:
    source = opened(folder, masked=0.15)
    assert isinstance(source, MaskedSource)
    return source


def trained_on(source: MaskedSource, first_step: int, num_steps: int, shard: Shard = WHOLE):
    order = SampleOrder(source.schema.num_samples, 8, 3)
    batches = train_batches(source, order, first_step=first_step, num_steps=num_steps, seed=3, shard=shard)
    return [{name: values.numpy() for name, values in batch.items()} for batch in batches]


def whole(batch: dict) -> np.ndarray:
    return np.where(batch["originals"] >= 0, batch["originals"], batch["tokens"])


def test_a_share_is_hidden_and_most_of_it_by_the_mask(folder: Path) -> None:
    source = masked(folder)
    batch = {name: np.concatenate([b[name] for b in trained_on(source, 0, 80)]) for name in ("tokens", "originals")}
    hidden = batch["originals"] >= 0
    assert hidden.mean() == pytest.approx(0.15, abs=0.01)
    seen, real = batch["tokens"][hidden], batch["originals"][hidden]
    assert np.mean(seen == MASK) == pytest.approx(0.8, abs=0.02)
    assert np.mean(seen == real) == pytest.approx(0.1, abs=0.02)
    others = seen[(seen != MASK) & (seen != real)]
    assert others.min() >= 1 and others.max() <= 255 and len(np.unique(others)) > 100
    assert not (real == 0).any()


def test_the_windows_are_the_texts_and_hidden_in_another_way_each_epoch(folder: Path) -> None:
    source = masked(folder)
    per_epoch = -(-source.schema.num_samples // 8)
    epochs = trained_on(source, 0, 2 * per_epoch)
    first, second = (
        {whole(batch)[i].tobytes(): batch["originals"][i] for batch in part for i in range(8)}
        for part in (epochs[:per_epoch], epochs[per_epoch:])
    )
    assert first.keys() == second.keys()
    assert sum(np.array_equal(first[window], second[window]) for window in first) < 3
    measured = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    assert {row.tobytes() for row in whole({k: v.numpy() for k, v in measured.items()})} == first.keys()


def test_what_is_hidden_is_a_function_of_the_position(folder: Path) -> None:
    source = masked(folder)
    run = trained_on(source, 0, 12)
    for batch, again in zip(run[7:], trained_on(masked(folder), 7, 5), strict=True):
        np.testing.assert_array_equal(batch["tokens"], again["tokens"])
    halves = [trained_on(source, 0, 2, Shard(part, part + 1, 2)) for part in range(2)]
    joined = np.concatenate([half[1]["originals"] for half in halves])
    np.testing.assert_array_equal(joined, run[1]["originals"])


def test_measuring_hides_the_same_every_time(folder: Path) -> None:
    source = masked(folder)
    one, other = (np.concatenate([b["tokens"] for b in evaluation_batches(source, size)]) for size in (8, 12))
    count = source.schema.num_samples
    np.testing.assert_array_equal(one[:count], other[:count])


CLASSES = {"comedy": ["tempest*"], "tragedy": ["mac*"]}


def test_windows_have_the_class_of_their_text(folder: Path) -> None:
    source = opened(folder, classes=CLASSES)
    assert isinstance(source, TextClassSource)
    batch = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    texts = {
        (int(label), source.tokenizer.decode(row))
        for row, label in zip(batch["tokens"].numpy(), batch["label"].numpy(), strict=True)
    }
    assert {label for label, _ in texts} == {0, 1} and source.schema.class_names == ("comedy", "tragedy")
    for label, text in texts:
        assert ("morrow" in text) == (label == 1) and "compare" not in text
    assert source.schema.features["tokens"] == masked(folder).schema.features["tokens"]
    assert source.locate(0).endswith(", token 0")


def test_a_text_shorter_than_a_window_is_filled_up(folder: Path) -> None:
    source = opened(folder, context=1000, classes={"poem": ["sonnet*"], "tragedy": ["mac*"]})
    batch = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    poems = batch["tokens"].numpy()[batch["label"].numpy() == 0]
    assert len(poems) == 1 and (poems[0, -500:] == 0).all() and source.tokenizer.decode(poems[0]).startswith("Shall I")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"comedy": ["temp*"], "history": ["henry*"]}, r"henry\*: no text of class 'history' matches it"),
        ({"comedy": ["temp*"], "late": ["t*"]}, "tempest.txt: it is in the classes 'comedy' and 'late': name it once"),
    ],
)
def test_classes_that_do_not_fit_are_refused(folder: Path, classes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(folder, classes=classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masked": 0.1, "packing": True}, r"data\.packing and data\.masked do not go together"),
        ({"classes": {"one": ["*"]}}, "data.classes has 'one' alone"),
    ],
)
def test_windows_serve_one_purpose(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextData(path="x", **options)


def test_a_training_goes_on_with_what_it_would_have_hidden(folder: Path) -> None:
    change = {
        "model": {"name": "bert", "layers": 1, "width": 8, "heads": 2},
        "task": {"name": "masked_lm"},
        "data": {"name": "text", "path": str(folder), "context": CONTEXT, "masked": 0.15, "batch_size": 8},
        "train": {"steps": 6, "xla": False},
    }
    whole_run = losses(small_session(**change), 6)
    stopped = small_session(**change)
    first = losses(stopped, 4)
    kept = {name: values.numpy() for name, values in stopped.state.tensors().items()}
    resumed = small_session(**change)
    resumed.state.restore(kept)
    assert first + losses(resumed, 2) == whole_run
