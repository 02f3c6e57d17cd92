"""Blocks that somebody else reads: the same bytes as the training's own pipeline gives, and the same errors."""

import json

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.data import SyntheticData
from trainer.config.data_streams import ImagesData
from trainer.data.checks import DataError
from trainer.data.mixture import sample_order
from trainer.data.pipeline import steps_of_block, train_blocks
from trainer.data.registry import open_source
from trainer.data.service import BlockAnswers, served_blocks
from trainer.data.shard import WHOLE, Shard

SEED = 7


class Elsewhere:
    """Somebody whose answers have passed through another process's memory, the later ones first."""

    def __init__(self, answers: BlockAnswers) -> None:
        self._answers = answers
        self.warn = print

    def blocks(self, num_blocks, request, read_here):
        requests = [json.loads(json.dumps(request(number))) for number in range(num_blocks)]
        read = [self._answers(request) for request in reversed(requests)]
        for arrays, notes in reversed(read):
            yield {name: values.copy() for name, values in arrays.items()}, json.loads(json.dumps(notes))


def both(data, shard=WHOLE, *, first_step=3, num_steps=5, most=4):
    """The blocks of the pipeline, and those that came from elsewhere."""
    source = open_source(data, "train")
    order = sample_order(data, source, SEED)
    block_steps = steps_of_block(source, order, most)
    shared = {"first_step": first_step, "num_steps": num_steps, "block_steps": block_steps, "shard": shard}
    own = list(train_blocks(source, order, augment=data.augment, seed=SEED, **shared))
    answers = BlockAnswers(source, order, data.augment, SEED)
    service = Elsewhere(BlockAnswers.of(data, SEED))
    return own, list(served_blocks(service, answers, source=source, **shared)), source


def assert_equal(own, served):
    assert len(own) == len(served) > 0
    for expected, found in zip(own, served, strict=True):
        assert list(expected) == list(found)
        for name in expected:
            assert found[name].dtype == expected[name].dtype and isinstance(found[name], type(expected[name]))
            np.testing.assert_array_equal(found[name].numpy(), expected[name].numpy())


@pytest.mark.parametrize("shard", [WHOLE, Shard(1, 2, 4)])
def test_blocks_in_memory_are_equal_to_the_bit_with_augmentation_and_across_an_epoch(shard):
    augment = ("flip", "shift=2", "brightness=0.2")
    data = SyntheticData(shape=(8, 8, 3), num_samples=50, batch_size=8, augment=augment)
    own, served, _ = both(data, shard, first_step=4, num_steps=9)
    assert "sample_weight" in own[0], "the last batch of an epoch is padded"
    assert_equal(own, served)


def test_smaller_last_batches_keep_their_size():
    own, served, _ = both(SyntheticData(num_samples=50, batch_size=16, remainder="keep"), num_steps=2)
    assert_equal(own, served)
    assert {values.shape[1] for block in served for values in block.values()} == {2, 16}


@pytest.fixture
def pictures(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 255, (20, 24, 3)).astype(np.uint8)
            (tmp_path / name / f"{number}.jpeg").write_bytes(tf.io.encode_jpeg(pixels).numpy())
    return tmp_path


def test_images_from_files_are_equal_to_the_bit_and_records_left_out_elsewhere_are_known_here(pictures):
    (pictures / "dog" / "3.jpeg").write_bytes(b"\xff\xd8\xff cut off")
    data = ImagesData(path=str(pictures), image_size=(16, 16), batch_size=8, held_out_fraction=0.1, skip_bad_records=1)
    own, served, source = both(data, num_steps=4)
    assert_equal(own, served)
    assert len(source.skipped) == 1 and "3.jpeg" in source.skipped.records()[0].file


def test_a_record_that_cannot_be_read_is_the_same_error(pictures):
    (pictures / "dog" / "3.jpeg").write_bytes(b"no picture at all")
    data = ImagesData(path=str(pictures), image_size=(16, 16), batch_size=8, held_out_fraction=0.1)
    answers = BlockAnswers.of(data, SEED)
    with pytest.raises(DataError, match=r"3\.jpeg.*not an image of a known format"):
        for first in range(3):
            answers({"first": first, "steps": 1, "shard": list(WHOLE)})


def test_more_records_left_out_by_all_together_than_are_allowed_end_the_training(pictures):
    data = ImagesData(path=str(pictures), image_size=(16, 16), batch_size=8, held_out_fraction=0.1, skip_bad_records=1)
    source = open_source(data, "train")
    answers = BlockAnswers.of(data, SEED)

    class Unlucky(Elsewhere):
        def blocks(self, num_blocks, request, read_here):
            for number, (arrays, _) in enumerate(super().blocks(num_blocks, request, read_here)):
                yield arrays, [[("a.jpeg", f"record {number}", "it is damaged")]]

    blocks = served_blocks(
        Unlucky(answers), answers, first_step=0, num_steps=2, block_steps=1, shard=WHOLE, source=source
    )
    next(blocks)
    with pytest.raises(DataError, match=r"data\.skip_bad_records=1"):
        next(blocks)
