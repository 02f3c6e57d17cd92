"""Encoded images to pixels of one size. Pillow decodes and resizes without the interpreter lock.

Shape legend: H height, W width, C channels.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class ImageFault(ValueError):
    """The bytes are not an image that can be used. The message is the rule that they break."""


def decode_image(data: bytes, size: tuple[int, int], channels: int = 3, resize: str = "crop") -> np.ndarray:
    """Decodes an image and brings it to one size.

    A JPEG far larger than `size` is decoded at 1/2, 1/4 or 1/8 of its size, which costs a fraction of the time; the
    rest of the way is a bilinear filter over the whole area of each new pixel.

    Args:
        data: The encoded image.
        size: Height and width of the result.
        channels: 3 colours or 1 grey. Transparency is dropped.
        resize: "crop" takes the largest centred part with the proportions of `size`; "stretch" takes the whole image.

    Returns:
        uint8 [H, W, C].

    Raises:
        ImageFault: The image is empty, cut off, of an unknown format or damaged.
    """
    if not data:
        raise ImageFault("the image is empty (0 bytes)")
    mode = "RGB" if channels == 3 else "L"
    height, width = size
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.draft(mode, (width, height))
            pixels = _eight_bit(image)
            pixels = pixels if pixels.mode == mode else pixels.convert(mode)
            if pixels.size != (width, height):
                box = _centred(pixels.size, (width, height)) if resize == "crop" else None
                pixels = pixels.resize((width, height), Image.Resampling.BILINEAR, box=box)
            return np.asarray(pixels).reshape(height, width, channels)
    except ImageFault:
        raise
    except Image.UnidentifiedImageError:
        raise ImageFault(f"it is not an image of a known format ({', '.join(FORMATS)})") from None
    except _BROKEN as error:
        raise ImageFault(f"the image cannot be decoded ({error})") from error


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scales 16 bits to 8. Pillow's own conversion would clip every value above 255 to white."""
    if image.mode == "F":
        raise ImageFault("its pixels are floating-point numbers, whose range is not known")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    return image


def _centred(size: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
    (width, height), (target_width, target_height) = size, target
    scale = min(width / target_width, height / target_height)
    cut_x, cut_y = (width - scale * target_width) / 2, (height - scale * target_height) / 2
    return cut_x, cut_y, width - cut_x, height - cut_y
