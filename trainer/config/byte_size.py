"""Sizes in bytes as people write them: "1GiB", "500MB", 4096."""

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


def parse_byte_size(text: object) -> int:
    """Reads a size.

    >>> parse_byte_size("1.5KiB")
    1536

    Raises:
        ValueError: `text` is not a size.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text) if isinstance(text, str) else None
    if match is None or match[2].upper() not in UNITS:
        raise ValueError(
            f'{text!r} is not a size: write a number of bytes or one with a unit, such as "512MB" or "1GiB"'
        )
    return int(float(match[1]) * UNITS[match[2].upper()])


def format_byte_size(size: int) -> str:
    """Writes a size with the largest unit that keeps it exact.

    >>> format_byte_size(1073741824)
    '1GiB'
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % UNITS[unit.upper()] == 0:
            return f"{size // UNITS[unit.upper()]}{unit}"
    return f"{size}B"


ByteSize = Annotated[
    int,
    BeforeValidator(parse_byte_size, json_schema_input_type=int | str),
    PlainSerializer(format_byte_size, return_type=str),
]
