"""Messages between an agent and its workers: JSON objects, one a line, over a stream that may cut them anywhere."""

import json
from collections.abc import Mapping
from typing import Any

# An assignment of ten thousand members takes about a megabyte. A longer line is not ours, and must not fill the memory.
_LONGEST_LINE = 16 << 20


class BadMessage(ValueError):
    """A line is not a message. It says which, and the stream goes on behind it."""


def encode(message: Mapping[str, Any]) -> bytes:
    """The line of a message.

    >>> encode({"type": "heartbeat"})
    b'{"type":"heartbeat"}\\n'
    """
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class MessageReader:
    r"""Puts messages together from the pieces that a stream hands out.

    >>> reader = MessageReader()
    >>> reader.feed(b'{"type":"heart')
    []
    >>> reader.feed(b'beat"}\n{"type":"stop"}\nrest')
    [{'type': 'heartbeat'}, {'type': 'stop'}]
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._length = 0

    def feed(self, data: bytes) -> list[dict[str, Any] | BadMessage]:
        """Takes the next piece of the stream, of any length.

        Returns:
            The messages that are whole now, in their order: each an object with a `type`, or what is wrong with it.
        """
        *ends, rest = data.split(b"\n")
        messages = []
        for end in ends:
            messages.append(_decode(b"".join([*self._pieces, end])))
            self._pieces, self._length = [], 0
        if rest:
            self._pieces.append(rest)
            self._length += len(rest)
        if self._length > _LONGEST_LINE:
            messages.append(BadMessage(f"a line of more than {_LONGEST_LINE} bytes"))
            self._pieces, self._length = [], 0
        return messages


def _decode(line: bytes) -> dict[str, Any] | BadMessage:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if isinstance(message, dict) and isinstance(message.get("type"), str):
        return message
    return BadMessage(f"not a message: {line[:200]!r}")
