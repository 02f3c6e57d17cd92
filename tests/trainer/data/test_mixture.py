import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tests.trainer.sessions import losses, small_session
from trainer.config.data import CsvData
from trainer.config.mixture import MixtureData
from trainer.data.array_schema import describe_arrays
from trainer.data.arrays import source_of_arrays
from trainer.data.checks import DataError
from trainer.data.custom import CallableSource
from trainer.data.mixture import MixtureSource, open_mixture
from trainer.data.mixture_order import MixtureOrder, pattern_of
from trainer.data.pipeline import evaluation_batches, train_batches, train_blocks
from trainer.data.shard import Shard
from trainer.data.source import Feature, Schema, Source

LENGTHS = (2500, 40, 9)


def order_of(*phases, batch_size=16, seed=5, lengths=LENGTHS, shuffle=True) -> MixtureOrder:
    return MixtureOrder(sum(lengths), batch_size, seed, shuffle, "drop", lengths, phases)


def drawn_by(order: MixtureOrder, first: int, num_steps: int) -> np.ndarray:
    return order.batches(tf.constant(first, tf.int64), num_steps)[0].numpy()


def sources_of(index: np.ndarray, lengths=LENGTHS) -> np.ndarray:
    return np.searchsorted(np.cumsum(lengths), index, side="right")


@pytest.mark.parametrize("weights", [(0.7, 0.2, 0.1), (1, 1, 1), (5, 0, 3), (0.123, 0.456, 0.421), (1, 2**0.5, 3)])
def test_each_source_has_exactly_its_share(weights):
    pattern = pattern_of(weights)
    counts = np.bincount(pattern, minlength=3)
    assert counts / len(pattern) == pytest.approx(np.array(weights) / sum(weights), abs=1e-4)
    if len(pattern) < 10_000:
        assert counts / len(pattern) == pytest.approx(np.array(weights) / sum(weights), rel=1e-12)
    # In any stretch from the start a source is at most one sample off its share.
    shares = np.cumsum(pattern[:, None] == np.arange(3), axis=0) - np.arange(1, len(pattern) + 1)[:, None] * (
        counts / len(pattern)
    )
    assert np.abs(shares).max() <= 1


def test_the_samples_that_were_read_have_the_shares_and_the_counts_that_are_said():
    order = order_of((0, (0.7, 0.2, 0.1)))
    found = drawn_by(order, 0, 100)
    counts = np.bincount(sources_of(found).ravel(), minlength=3)
    assert counts.tolist() == [1120, 320, 160] == list(order.drawn(100))
    for step in (1, 7, 33):
        assert np.bincount(sources_of(found[:step]).ravel(), minlength=3).tolist() == list(order.drawn(step))


def test_a_source_gives_all_of_its_samples_before_one_comes_again():
    found = drawn_by(order_of((0, (0.7, 0.2, 0.1))), 0, 400).ravel()
    begin = 0
    for which, length in enumerate(LENGTHS):
        own = found[sources_of(found) == which] - begin
        epochs = [own[start : start + length] for start in range(0, len(own) - length + 1, length)]
        assert epochs and all(sorted(epoch) == list(range(length)) for epoch in epochs)
        if len(epochs) > 1:
            assert (epochs[0] != epochs[1]).any()
        begin += length
    plain = drawn_by(order_of((0, (1, 1, 1)), shuffle=False), 0, 3).ravel()
    assert (plain[sources_of(plain) == 2] - 2540).tolist() == [i % 9 for i in range(16)]


def test_a_schedule_changes_the_shares_at_its_step_and_goes_on_in_every_source():
    order = order_of((0, (1, 0, 0)), (13, (0.5, 0.25, 0.25)), (40, (0, 0, 1)))
    found = drawn_by(order, 0, 60)
    which = sources_of(found)
    assert (which[:13] == 0).all() and (which[40:] == 2).all()
    assert np.bincount(which[13:40].ravel()).tolist() == [27 * 8, 27 * 4, 27 * 4]
    own = found[which == 2] - 2540
    assert len(own) == order.drawn(60)[2] == 27 * 4 + 20 * 16
    assert all(sorted(own[start : start + 9]) == list(range(9)) for start in range(0, len(own) - 9, 9))


def test_any_step_is_the_same_however_it_is_reached():
    order = order_of((0, (0.7, 0.2, 0.1)), (13, (0.3, 0.3, 0.4)))
    whole = drawn_by(order, 0, 50)
    for first, num_steps in ((0, 1), (11, 5), (49, 1), (13, 37)):
        assert (drawn_by(order, first, num_steps) == whole[first : first + num_steps]).all()
    assert (drawn_by(order_of((0, (0.7, 0.2, 0.1)), seed=6), 0, 50) != whole).any()


def numbered(begin: int, length: int, streaming: bool = False) -> Source:
    """Samples whose feature is a number of their own."""
    values = np.arange(begin, begin + length, dtype=np.float32)
    if streaming:
        schema = Schema({"x": Feature((), "float32"), "label": Feature((), "int32")}, "label", length, 2)

        def read(index: np.ndarray) -> dict[str, np.ndarray]:
            assert len(index), "a source must not be asked for nothing"
            return {"x": np.where(index == 3, np.nan, values[index]), "label": index % 2}

        return CallableSource("made:up", schema, read, 10)
    arrays = {"x": values, "label": np.arange(length) % 2}
    return source_of_arrays(arrays, describe_arrays(arrays, "made", "label"), "made", np.arange(length), 0)


def mixed(*sources: Source) -> MixtureSource:
    return MixtureSource(sources, [f"source {i}" for i in range(len(sources))], [1.0] * len(sources))


@pytest.mark.parametrize("streaming", [False, True])
def test_batches_do_not_depend_on_the_number_of_readers_or_the_start(streaming):
    source = mixed(numbered(0, 50), numbered(1000, 7, streaming), numbered(5000, 3))
    order = order_of((0, (0.5, 0.3, 0.2)), (9, (0.1, 0.8, 0.1)), lengths=source.lengths, batch_size=8)

    def values(shard: Shard, first: int, num_steps: int) -> np.ndarray:
        batches = train_batches(source, order, first_step=first, num_steps=num_steps, shard=shard)
        return np.array([batch["x"].numpy() for batch in batches])

    whole = values(Shard(0, 1, 1), 0, 20)
    for parts in (2,) if streaming else (4,):
        cut = [values(Shard(part, part + 1, parts), 0, 20) for part in range(parts)]
        assert (np.concatenate(cut, axis=1) == whole).all()
    assert (values(Shard(0, 1, 1), 12, 8) == whole[12:]).all()
    blocks = train_blocks(source, order, first_step=0, num_steps=20, block_steps=5)
    assert (np.concatenate([block["x"].numpy() for block in blocks]) == whole).all()
    index = drawn_by(order, 0, 20)
    expected = np.where(index < 50, index, np.where(index < 57, index - 50 + 1000, index - 57 + 5000))
    if streaming:
        expected[index == 53] = 0  # a record that is left out, with weight 0
        assert [one.record for one in source.skipped.records()] == ["sample 3"] and source.may_skip
    assert (whole == expected).all()


def test_the_held_out_samples_are_those_of_all_sources():
    source = mixed(numbered(0, 5), numbered(100, 4))
    read = [batch["x"].numpy()[batch["sample_weight"].numpy() > 0] for batch in evaluation_batches(source, 4)]
    assert np.concatenate(read).tolist() == [0, 1, 2, 3, 4, 100, 101, 102, 103]
    assert source.progress((10, 2)) == (
        "samples of the mixture: 10 of source 0 (2.00 times all of it); 2 of source 1 (0.50 times all of it)"
    )
    assert source.locate(6) == "made, row 1" and source.schema.num_samples == 9


def test_sources_of_other_schemas_are_refused_in_a_sentence():
    def made(**arrays: np.ndarray) -> Source:
        schema = describe_arrays(arrays, "made", "label")
        return source_of_arrays(arrays, schema, "made", np.arange(4), 0)

    base = made(x=np.zeros((4, 2)), label=np.arange(4) % 2)
    for other, says in (
        (made(y=np.zeros((4, 2)), label=np.arange(4) % 2), r"features \(x, label; y, label\)"),
        (made(x=np.zeros((4, 3)), label=np.arange(4) % 2), r"the shape of 'x' \(\(2,\); \(3,\)\)"),
        (made(x=np.zeros((4, 2), int), label=np.arange(4) % 2), r"the dtype of 'x' \(float32; int32\)"),
        (made(x=np.zeros((4, 2)), label=np.arange(4)), r"num classes \(2; 4\)"),
    ):
        with pytest.raises(
            DataError, match=rf"source 1: it differs from source 0 in .*{says}.*must have one schema: give"
        ):
            mixed(base, other)


def test_tables_share_the_scale_of_the_mixture(tmp_path):
    for name, values in (("a", (0, 2, 4)), ("b", (10, 12, 14))):
        rows = [f"{value},{'yn'[i % 2]}" for i, value in enumerate(values)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["size,label", *rows]) + "\n")
    one, other = (
        CsvData(path=str(tmp_path / f"{name}.csv"), held_out_path=str(tmp_path / "a.csv"), target="label")
        for name in "ab"
    )
    data = MixtureData.model_validate({"sources": [{"weight": 3, "data": one}, {"weight": 1, "data": other}]})
    size = open_mixture(data, "train").schema.features["size"]
    drawn = np.array([0, 2, 4] * 3 + [10, 12, 14])
    assert (size.mean, size.std) == pytest.approx((drawn.mean(), drawn.std()))


def test_what_says_nothing_is_refused():
    part = {"weight": 1, "data": {"name": "synthetic"}}
    for change, says in (
        ({"sources": [part]}, "two or more"),
        ({"sources": [part, part], "cache": "memory"}, "set it in data.sources"),
        ({"sources": [part, part], "remainder": "keep"}, "leave it out"),
        ({"sources": [part, {"weight": 1, "data": {"name": "mnist", "shuffle": False}}]}, r"sources\[1\].data.shuffle"),
        ({"sources": [part, part | {"weight": -1}]}, "greater than or equal to 0"),
        ({"sources": [part | {"weight": 0}, part | {"weight": 0}]}, "are all 0"),
        ({"sources": [part, part | {"weight": 1e-6}]}, "less than 0.0001 of all"),
        ({"sources": [part, part], "schedule": [{"step": 5, "weights": [1]}]}, "must be 2, one for each"),
        ({"sources": [part, part], "schedule": [{"step": s, "weights": [1, 1]} for s in (9, 5)]}, "must ascend"),
    ):  # fmt: skip
        with pytest.raises(ValidationError, match=says):
            MixtureData.model_validate(change)


MIXTURE = {
    "name": "mixture",
    "batch_size": 16,
    "sources": [
        {"weight": weight, "data": {"name": "synthetic", "num_samples": n, "held_out_samples": 8, "shape": [12],
                                    "num_classes": 3, "data_seed": n}}
        for weight, n in ((0.7, 96), (0.3, 50))
    ],
    "schedule": [{"step": 6, "weights": [0.2, 0.8]}],
}  # fmt: skip


def test_a_training_goes_on_with_the_samples_that_it_would_have_read():
    session = small_session(data=MIXTURE)
    assert session.order.steps_per_epoch == 9 and isinstance(session.order, MixtureOrder)
    assert sum(session.order.drawn(12)) == session.examples(12) == 12 * 16
    whole = [batch["features"].numpy() for batch in session.batches(0, 12)]
    rest = [batch["features"].numpy() for batch in small_session(data=MIXTURE).batches(7, 5)]
    assert all((one == other).all() for one, other in zip(whole[7:], rest, strict=True))
    curve = losses(session, 12)
    again = losses(small_session(data=MIXTURE), 12, steps_per_call=4)
    assert [np.mean(curve[start : start + 4]) for start in (0, 4, 8)] == pytest.approx(again, rel=1e-6)
