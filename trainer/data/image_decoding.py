"""Encoded images to pixels of one size, in the graph.

TensorFlow fails a whole batch when one image in it cannot be decoded. So the images of a batch pass through a small
dataset of their own, in which one that fails is left out and the others are not disturbed.

Shape legend: B batch, H height, W width, C channels.
"""

import tensorflow as tf


def decode_images(encoded: tf.Tensor, size: tuple[int, int], channels: int, resize: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images and brings them to one size, with bilinear interpolation.

    Of a JPEG only the part that is kept is decoded, and one far larger than `size` at 1/2, 1/4 or 1/8 of its size,
    which costs a fraction of the time.

    Args:
        encoded: JPEG, PNG, WebP, BMP or GIF (its first picture), string [B].
        size: H and W.
        channels: 3 colours or 1 grey. Transparency is dropped.
        resize: "crop" takes the largest centred part with the proportions of `size`; "stretch" takes the whole image.

    Returns:
        Pixels in [0, 1], float32 [B, H, W, C], and which images could be decoded, bool [B]. The others are zeros.
    """
    count = tf.size(encoded, tf.int64)
    shape = (*size, channels)

    def decode(row: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = _decode(image, size if resize == "crop" else None, size, channels)
        # Without antialiasing, as TensorFlow's own input pipelines do it: a JPEG is within a factor of 2 by now.
        pixels = tf.image.resize(pixels, size) / 255.0
        return row, tf.ensure_shape(pixels, shape)

    images = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded)).map(decode).ignore_errors()
    # The row beyond the last is there when all images fail, since a dataset of a single batch must have one.
    sentinel = tf.data.Dataset.from_tensors((count, tf.zeros(shape)))
    rows, pixels = images.concatenate(sentinel).batch(count + 1).get_single_element()
    rows, pixels = rows[:-1], pixels[:-1]
    decoded = tf.scatter_nd(rows[:, None], tf.ones_like(rows, tf.int32), count[None]) > 0
    whole = tf.concat([count[None], tf.constant(shape, tf.int64)], 0)
    pixels = tf.cond(tf.reduce_all(decoded), lambda: pixels, lambda: tf.scatter_nd(rows[:, None], pixels, whole))
    return tf.ensure_shape(pixels, (encoded.shape[0], *shape)), tf.ensure_shape(decoded, encoded.shape)


def _decode(data: tf.Tensor, proportions: tuple[int, int] | None, size: tuple[int, int], channels: int) -> tf.Tensor:
    """Decodes the part of an image with the given proportions, uint8 [height, width, C]."""

    def jpeg() -> tf.Tensor:
        window = _window(tf.io.extract_jpeg_shape(data)[:2], proportions)
        scale = tf.reduce_min(window[2:] // tf.constant(size))

        def decode_at(ratio: int) -> tf.Tensor:
            # The window is counted in pixels of the scaled image.
            return tf.raw_ops.DecodeAndCropJpeg(
                contents=data, crop_window=window // ratio, channels=channels, ratio=ratio
            )

        ratio_index = sum(tf.cast(scale >= ratio, tf.int32) for ratio in (2, 4, 8))
        return tf.switch_case(ratio_index, [lambda r=r: decode_at(r) for r in (1, 2, 4, 8)])

    def png() -> tf.Tensor:
        return _cropped(tf.io.decode_png(data, channels=channels), proportions)

    def other() -> tf.Tensor:
        pixels = tf.io.decode_image(data, channels=3, expand_animations=False)
        pixels = tf.ensure_shape(pixels, (None, None, 3))
        return _cropped(tf.image.rgb_to_grayscale(pixels) if channels == 1 else pixels, proportions)

    start = tf.strings.substr(data, 0, 3)
    is_png = tf.cast(tf.equal(start, b"\x89PN"), tf.int32)
    is_jpeg = 2 * tf.cast(tf.equal(start, b"\xff\xd8\xff"), tf.int32)
    return tf.switch_case(is_png + is_jpeg, [other, png, jpeg])


def _cropped(pixels: tf.Tensor, proportions: tuple[int, int] | None) -> tf.Tensor:
    top, left, height, width = tf.unstack(_window(tf.shape(pixels)[:2], proportions))
    return pixels[top : top + height, left : left + width]


def _window(shape: tf.Tensor, proportions: tuple[int, int] | None) -> tf.Tensor:
    """Gives top, left, height and width of the largest centred part, int32 [4]; without proportions, of all of it."""
    if proportions is None:
        return tf.concat([[0, 0], shape], 0)
    sides = tf.constant(proportions, tf.float32)
    scale = tf.reduce_min(tf.cast(shape, tf.float32) / sides)
    part = tf.maximum(tf.cast(tf.round(scale * sides), tf.int32), 1)
    return tf.concat([(shape - part) // 2, part], 0)
