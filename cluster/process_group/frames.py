"""Frames: a header of fixed size, and a payload behind it.

The header carries a MAC under a key that only the two ends of the connection know. The MAC covers a counter of the
frames in this direction as well, so that no frame can be forged, repeated, left out or moved. It covers the payload
through its CRC-32C, which finds damage, not intent: whoever can change packets can forge a CRC.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

_FIELDS = struct.Struct("<4sB3xIQQQI")  # magic, kind, tag, generation, operation, payload bytes, CRC-32C of the payload
_COUNTER = struct.Struct("<Q")
_MAGIC = b"PHX1"
_MAC_BYTES = 16

HEADER_BYTES = _FIELDS.size + _MAC_BYTES


@dataclass(frozen=True)
class Header:
    """What a frame says of itself.

    Attributes:
        kind: what the payload is for; the operation's own numbers.
        tag: which one of its kind it is.
        generation: the group's.
        operation: how many collective operations the group began before this one, and one more.
        num_bytes: of the payload.
        checksum: CRC-32C of the payload.
    """

    kind: int
    tag: int
    generation: int
    operation: int
    num_bytes: int
    checksum: int


def pack_header(header: Header, key: bytes, counter: int) -> bytes:
    """The header's bytes, with the MAC of the frame that is number `counter` in its direction."""
    fields = _FIELDS.pack(
        _MAGIC, header.kind, header.tag, header.generation, header.operation, header.num_bytes, header.checksum
    )
    return fields + _mac(fields, key, counter)


def unpack_header(data: bytes | bytearray, key: bytes, counter: int) -> Header | None:
    """Reads `HEADER_BYTES` bytes; None if they are not an authentic header of frame `counter`."""
    fields = bytes(data[: _FIELDS.size])
    if not hmac.compare_digest(_mac(fields, key, counter), bytes(data[_FIELDS.size :])):
        return None
    return Header(*_FIELDS.unpack(fields)[1:])


def _mac(fields: bytes, key: bytes, counter: int) -> bytes:
    return hashlib.blake2b(fields + _COUNTER.pack(counter), key=key, digest_size=_MAC_BYTES).digest()
