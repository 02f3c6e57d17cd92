import io
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.data.image_decoding import decode_images
from trainer.data.image_faults import image_fault

RNG = np.random.default_rng(0)


def encoded(pixels: np.ndarray, form: str = "PNG", mode: str | None = None, **options) -> bytes:
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, form, **options)
    return file.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that survives JPEG: a red ramp down, a green one to the right."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y / height, 255 * x / width, 0 * x], -1).astype(np.uint8)


def decode(*images: bytes, size=(4, 4), channels=3, resize="crop") -> tuple[np.ndarray, np.ndarray]:
    pixels, decoded = decode_images(tf.constant(list(images), tf.string), size, channels, resize)
    return pixels.numpy(), decoded.numpy()


def test_an_image_of_the_right_size_is_kept_exactly() -> None:
    pixels = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    read, decoded = decode(encoded(pixels), size=(5, 7))
    assert decoded.tolist() == [True]
    np.testing.assert_array_equal(read[0], pixels.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(
    ("form", "tolerance"), [("JPEG", 0.03), ("PNG", 0.005), ("WEBP", 0.04), ("BMP", 0.005), ("GIF", 0.12)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_is_decoded(form: str, tolerance: float, channels: int) -> None:
    pixels = smooth(32, 32)
    options = {"quality": 95} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    read, decoded = decode(encoded(pixels, form, **options), size=(32, 32), channels=channels)
    expected = pixels / 255 if channels == 3 else (pixels @ [0.299, 0.587, 0.114])[..., None] / 255
    assert decoded.all()
    assert np.abs(read[0] - expected).mean() < tolerance


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA"])
def test_every_kind_of_png_gives_three_colours(mode: str) -> None:
    grey = np.repeat(smooth(16, 16)[..., :1], 3, -1)
    read, decoded = decode(encoded(grey, mode=mode), size=(16, 16))
    assert decoded.all()
    # A palette holds few greys: what it is exact about is the picture in the palette's colours.
    expected = np.asarray(Image.fromarray(grey).convert(mode).convert("RGB")) / 255
    np.testing.assert_allclose(read[0], expected, atol=1e-6)


def test_sixteen_bits_are_scaled_rather_than_clipped() -> None:
    sixteen = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    read, _ = decode(encoded(sixteen), size=(8, 8), channels=1)
    np.testing.assert_allclose(read[0, ..., 0], sixteen / 65535, atol=1 / 255)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(("height", "width"), [(40, 100), (100, 40), (333, 500), (1300, 900)])
def test_the_largest_centred_part_is_kept(form: str, height: int, width: int) -> None:
    """At all scales at which a JPEG is decoded, the same part as of a PNG."""
    read, _ = decode(encoded(smooth(height, width), form, **({"quality": 95} if form == "JPEG" else {})), size=(20, 20))
    side = min(height, width)
    middle = (np.arange(20) + 0.5) * side / 20
    rows, columns = (height - side) / 2 + middle, (width - side) / 2 + middle
    np.testing.assert_allclose(read[0, :, :, 0], np.repeat(rows[:, None] / height, 20, 1), atol=0.03)
    np.testing.assert_allclose(read[0, :, :, 1], np.repeat(columns[None] / width, 20, 0), atol=0.03)


def test_stretching_keeps_the_whole_image() -> None:
    read, _ = decode(encoded(smooth(40, 100)), size=(20, 20), resize="stretch")
    middle = (np.arange(20) + 0.5) / 20
    np.testing.assert_allclose(read[0, 10, :, 1], middle, atol=0.02)
    np.testing.assert_allclose(read[0, :, 10, 0], middle, atol=0.03)


def test_what_cannot_be_decoded_leaves_the_others_alone() -> None:
    good = [encoded(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(3)]
    alone, _ = decode(*good)
    jpeg = encoded(smooth(64, 64), "JPEG")
    read, decoded = decode(good[0], b"", good[1], b"no image", jpeg[: len(jpeg) // 2], good[2])
    assert decoded.tolist() == [True, False, True, False, False, True]
    np.testing.assert_array_equal(read[[0, 2, 5]], alone)
    assert not read[[1, 3, 4]].any()


def test_a_batch_of_which_nothing_can_be_decoded() -> None:
    read, decoded = decode(b"", b"x")
    assert decoded.tolist() == [False, False]
    assert not read.any()


def test_shapes_are_static_in_a_graph() -> None:
    traced = tf.function(lambda images: decode_images(images, (8, 6), 3, "crop"))
    pixels, decoded = traced.get_concrete_function(tf.TensorSpec([5], tf.string)).outputs
    assert (pixels.shape, decoded.shape) == ((5, 8, 6, 3), (5,))


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", r"the image is empty \(0 bytes\)"),
        (b"hello", "not an image of a known format"),
        (encoded(smooth(64, 64), "JPEG")[:500], "the JPEG image of 500 bytes is cut off"),
        (encoded(smooth(64, 64))[:-40], r"the PNG image of \d+ bytes cannot be decoded"),
    ],
)
def test_the_fault_is_named(data: bytes, rule: str) -> None:
    assert not decode(data)[1].any()
    assert re.search(rule, image_fault(data))
