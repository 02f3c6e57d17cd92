"""The TFRecord format: length, checksum of the length, payload, checksum of the payload.

Layout and checksum mask: tensorflow/core/lib/io/record_writer.h and tensorflow/core/lib/hash/crc32c.h. All numbers are
little-endian: uint64 length, uint32 masked CRC32C of its 8 bytes, the payload, uint32 masked CRC32C of the payload.
"""

import struct

import google_crc32c

HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8


def masked_crc32c(data: bytes) -> int:
    """The CRC32C of `data`, rotated and shifted so that a checksum of data with checksums in it stays strong."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """Wraps a payload as it lies in a file."""
    length = _LENGTH.pack(len(payload))
    header = length + _CHECKSUM.pack(masked_crc32c(length))
    return header + payload + _CHECKSUM.pack(masked_crc32c(payload))


def payload_length(header: bytes) -> int | None:
    """Reads the 12 bytes before a payload; None when the checksum says that they are damaged."""
    length = header[:8]
    return _LENGTH.unpack(length)[0] if _CHECKSUM.unpack(header[8:12])[0] == masked_crc32c(length) else None


def payload_of(framed: bytes) -> bytes | None:
    """Takes the payload out of a whole framed record; None when the checksum of the payload does not match."""
    payload = framed[HEADER_BYTES:-FOOTER_BYTES]
    return payload if _CHECKSUM.unpack(framed[-FOOTER_BYTES:])[0] == masked_crc32c(payload) else None
