import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from trainer.data import rand_augment as changes
from trainer.data.counter_random import sample_keys

COUNT, HEIGHT, WIDTH = 48, 12, 10
LEVELS = np.random.default_rng(0).integers(10, 230, (COUNT, HEIGHT, WIDTH, 3))
IMAGES = tf.constant(LEVELS / 255, tf.float32)
KEYS = sample_keys(1, tf.fill([COUNT], tf.constant(5, tf.int64)), tf.range(COUNT, dtype=tf.int64))
UP = tf.ones(COUNT)


def levels(images: tf.Tensor) -> np.ndarray:
    return np.clip(images.numpy() * 255, 0, 255)


def by_pillow(change) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(image.astype(np.uint8)))) for image in LEVELS])


@pytest.mark.parametrize(
    ("change", "theirs"),
    [
        (changes._brightness, lambda image: ImageEnhance.Brightness(image).enhance(1.45)),
        (changes._colour, lambda image: ImageEnhance.Color(image).enhance(1.45)),
        (changes._contrast, lambda image: ImageEnhance.Contrast(image).enhance(1.45)),
        (changes._sharpness, lambda image: ImageEnhance.Sharpness(image).enhance(1.45)),
        (changes._posterise, lambda image: ImageOps.posterize(image, 6)),
        (changes._solarise, lambda image: ImageOps.solarize(image, 128)),
        (changes._autocontrast, ImageOps.autocontrast),
        (changes._equalise, ImageOps.equalize),
    ],
)
def test_colours_change_as_in_pillow(change, theirs):
    np.testing.assert_allclose(levels(change(IMAGES, UP, 0.5)), by_pillow(theirs), atol=1.6)


@pytest.mark.parametrize(
    ("change", "shift"), [(changes._move_x, (0, round(0.45 * WIDTH))), (changes._move_y, (round(0.45 * HEIGHT), 0))]
)
def test_moves_are_whole_pixels(change, shift):
    down, right = shift
    moved = change(IMAGES, UP, 1.0).numpy()
    expected = np.zeros_like(moved)
    expected[:, down:, right:] = IMAGES.numpy()[:, : HEIGHT - down, : WIDTH - right]
    np.testing.assert_allclose(moved, expected, atol=1e-6)


@pytest.mark.parametrize("change", [changes._rotate, changes._shear_x, changes._shear_y])
def test_what_is_turned_there_and_back_is_the_image_again(change):
    # Smooth, so that reading between the pixels loses little.
    rows, columns = np.meshgrid(np.linspace(0, 1, 32), np.linspace(0, 1, 32), indexing="ij")
    image = tf.constant((np.sin(3 * rows) * np.cos(2 * columns) / 2 + 0.5)[None, :, :, None], tf.float32)
    turned = change(image, tf.ones(1), 0.5)
    back = change(turned, -tf.ones(1), 0.5)
    middle = np.s_[0, 10:22, 10:22, 0]
    assert np.abs((turned - image).numpy()[middle]).max() > 0.01
    np.testing.assert_allclose(back.numpy()[middle], image.numpy()[middle], atol=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_is_changed_alike_alone_and_among_others_to_the_bit(channels):
    images = IMAGES[..., :channels]
    whole = changes.rand_augment(images, KEYS, 0, 7.0).numpy()
    assert whole.min() >= 0 and whole.max() <= 1 and not np.array_equal(whole, images)
    for size in (1, 7, 16):
        parts = [
            changes.rand_augment(images[i : i + size], KEYS[i : i + size], 0, 7.0).numpy()
            for i in range(0, COUNT, size)
        ]
        assert np.array_equal(np.concatenate(parts), whole)


def test_no_strength_changes_next_to_nothing():
    without = (changes._autocontrast, changes._equalise)
    for change in set(changes.CHANGES) - set(without):
        np.testing.assert_allclose(change(IMAGES, UP, 0.0).numpy(), IMAGES.numpy(), atol=1e-5)
