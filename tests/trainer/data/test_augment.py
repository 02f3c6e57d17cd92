import numpy as np
import pytest
import tensorflow as tf

from trainer.config.augmentation import AUGMENTATIONS, MIXES, parse_augmentation
from trainer.data.augment import CHANGES, build_augmentation
from trainer.data.counter_random import hash_word, hash_words, normal, sample_keys, uniform
from trainer.data.source import Feature, Schema

SCHEMA = Schema({"image": Feature((9, 9, 2), "float32"), "label": Feature((), "int32")}, "label", 64)
KEYS = sample_keys(1, tf.fill([64], tf.constant(5, tf.int64)), tf.range(64, dtype=tf.int64))
IMAGES = np.random.default_rng(0).random((64, 9, 9, 2), np.float32)


def apply(*augmentations: str) -> np.ndarray:
    augment = build_augmentation(augmentations, SCHEMA)
    assert augment is not None
    return augment({"image": tf.constant(IMAGES), "label": tf.zeros(64, tf.int32)}, KEYS)["image"].numpy()


def test_every_name_of_the_config_is_built():
    assert CHANGES.keys() == AUGMENTATIONS.keys() - set(MIXES)


@pytest.mark.parametrize("name", CHANGES)
def test_changes_keep_shape_and_range_and_differ_by_sample(name):
    changed = apply(name)
    assert changed.shape == IMAGES.shape and changed.dtype == np.float32
    assert changed.min() >= 0 and changed.max() <= 1
    assert not np.array_equal(changed, IMAGES)
    assert np.array_equal(changed, apply(name))


@pytest.mark.parametrize(("name", "axis"), [("flip", 2), ("flip_vertical", 1)])
def test_flip_mirrors_half_of_the_samples(name, axis):
    changed, mirrored = apply(name), np.flip(IMAGES, axis)
    flipped = [np.array_equal(one, other) for one, other in zip(changed, mirrored, strict=True)]
    kept = [np.array_equal(one, other) for one, other in zip(changed, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 16 < sum(flipped) < 48


def test_shift_moves_whole_pixels_both_ways():
    changed = apply("shift=2")
    moves = set()
    for image, moved in zip(IMAGES, changed, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        found = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(moved, padded[2 - down : 11 - down, 2 - right : 11 - right])
        ]
        assert len(found) == 1
        moves.update(found)
    assert {down for down, _ in moves} == {right for _, right in moves} == {-2, -1, 0, 1, 2}


def test_crop_of_everything_is_the_image():
    assert np.allclose(apply("crop=1.0"), IMAGES, atol=1e-6)


def test_resized_crop_keeps_a_share_of_the_area():
    # Where pixels say their place, the differences of the result are the zoom.
    rows, columns = np.meshgrid(np.linspace(0, 1, 33), np.linspace(0, 1, 33), indexing="ij")
    places = np.tile(np.stack([rows, columns], -1).astype(np.float32), (64, 1, 1, 1))
    augment = build_augmentation(["resized_crop=0.3"], Schema({"image": Feature((33, 33, 2), "float32")}, None, 64))
    assert augment is not None
    cropped = augment({"image": tf.constant(places)}, KEYS)["image"].numpy()
    height = cropped[:, -1, 0, 0] - cropped[:, 0, 0, 0]
    width = cropped[:, 0, -1, 1] - cropped[:, 0, 0, 1]
    assert cropped.min() >= -1e-6 and cropped.max() <= 1 + 1e-6
    assert (height * width).min() >= 0.3 * 0.99 and (height * width).max() > 0.8
    assert 0.74 < (width / height).min() < 0.8 and 1.25 < (width / height).max() < 1.34
    assert len(set(cropped[:, 0, 0, 0].tolist())) > 30


def test_erase_clears_one_square():
    erased = (apply("erase=0.34") == 0) & (IMAGES > 0)
    assert np.all(erased[..., 0].sum(axis=(1, 2)) == 9)


def test_noise_has_its_standard_deviation():
    augment = build_augmentation(["noise=0.1"], SCHEMA)
    assert augment is not None
    grey = augment({"image": tf.fill([64, 9, 9, 2], 0.5)}, KEYS)["image"].numpy()
    assert np.std(grey) == pytest.approx(0.1, rel=0.03)


def test_order_of_augmentations_counts():
    assert not np.array_equal(apply("shift=2", "erase"), apply("erase", "shift=2"))


def test_samples_without_images_are_refused():
    with pytest.raises(ValueError, match=r"needs images .* the samples hold carrier: leave data.augment empty"):
        build_augmentation(["flip"], Schema({"carrier": Feature((), "int32")}, None, 3))
    assert build_augmentation([], SCHEMA) is None


@pytest.mark.parametrize("text", ["flop", "flip=1", "shift=1.5", "shift=0", "noise=x", "crop=nan"])
def test_wrong_augmentations_are_refused(text):
    with pytest.raises(ValueError, match="augmentation"):
        parse_augmentation(text)


def test_uniform_and_normal_have_their_moments():
    keys = sample_keys(0, tf.zeros([4096], tf.int64), tf.range(4096, dtype=tf.int64))
    flat, bell = uniform(keys, 0, (8,)).numpy(), normal(keys, 0, (8,)).numpy()
    assert flat.min() >= 0 and flat.max() < 1
    assert flat.mean() == pytest.approx(0.5, abs=0.01) and flat.var() == pytest.approx(1 / 12, rel=0.02)
    assert bell.mean() == pytest.approx(0, abs=0.02) and bell.var() == pytest.approx(1, rel=0.02)
    assert abs(np.corrcoef(flat[:, 0], flat[:, 1])[0, 1]) < 0.06
    assert abs(np.corrcoef(flat[:-1, 0], flat[1:, 0])[0, 1]) < 0.06


def test_numbers_depend_on_every_part_of_the_key():
    def key(seed: int, step: int, position: int) -> int:
        return int(sample_keys(seed, tf.constant([step], tf.int64), tf.constant([position], tf.int64))[0])

    keys = [key(0, 0, 0), key(1, 0, 0), key(2**32, 0, 0), key(0, 1, 0), key(0, 2**32, 0), key(0, 0, 1), key(-1, 0, 0)]
    assert len(set(keys)) == len(keys)
    draws = {float(uniform(KEYS, draw)[0]) for draw in range(16)}
    assert len(draws) == 16


def test_hash_of_python_integers_is_the_same():
    words = [0, 1, 2**31, 2**32 - 1, 123456789]
    assert hash_words(tf.constant(words, tf.uint32)).numpy().tolist() == [hash_word(word) for word in words]
