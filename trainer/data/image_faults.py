"""What is wrong with an encoded image, found out without TensorFlow."""

import io

from PIL import Image

_FORMATS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WebP", b"BM": "BMP", b"GIF8": "GIF"}
_JPEG_END = b"\xff\xd9"


def is_cut_off(data: bytes) -> bool:
    """Whether the end of a JPEG is missing; the few without an end marker are decoded to find out."""
    if not data.startswith(b"\xff\xd8\xff") or data.endswith(_JPEG_END) or data.rstrip(b"\0").endswith(_JPEG_END):
        return False
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
    except Exception:  # Each version of Pillow has errors of its own.
        return True
    return False


def image_fault(data: bytes) -> str:
    """Says why an image that was not decoded could not be: the rule that it breaks."""
    if not data:
        return "the image is empty (0 bytes)"
    format_name = next((name for start, name in _FORMATS.items() if data.startswith(start)), None)
    if format_name is None:
        return f"it is not an image of a known format ({', '.join(_FORMATS.values())})"
    image = f"the {format_name} image of {len(data)} bytes"
    if format_name == "JPEG" and not data.rstrip(b"\0").endswith(_JPEG_END):
        return f"{image} is cut off: its end marker is missing"
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
    except Exception as error:  # Each format of Pillow has errors of its own.
        return f"{image} cannot be decoded ({error})"
    return f"{image} is damaged, or of a kind that TensorFlow does not decode"


def is_image(data: bytes) -> bool:
    """Whether this begins like an image of a known format."""
    return any(data.startswith(start) for start in _FORMATS)


def undecodable(data: bytes) -> str | None:
    """The rule that an image breaks that cannot be decoded; None for a sound one. Decodes all of it."""
    if is_image(data):
        try:
            with Image.open(io.BytesIO(data)) as opened:
                opened.load()
            return None
        except Exception:  # Each format of Pillow has errors of its own.
            pass
    return image_fault(data)
