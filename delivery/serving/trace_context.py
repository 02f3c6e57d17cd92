"""W3C Trace Context: the ids that tie what is logged of a request to its caller's own (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

_TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<parent>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 1
# Ids have to differ, not to be secret: the operating system gives the seed, and no call a request.
_ids = random.Random()


class Trace(NamedTuple):
    """Where a request belongs; all empty where nobody said so and nobody asked.

    Attributes:
        id: Of the trace, 32 hex digits.
        span: Of the request within this server, 16 hex digits; "" where nothing is logged.
        parent: Of the caller's span, 16 hex digits; "" where it named none.
        sampled: Whether spans are recorded: as the caller says, or as the sampler does where spans are sent.
    """

    id: str = ""
    span: str = ""
    parent: str = ""
    sampled: bool = False

    @property
    def traceparent(self) -> str:
        """The header for whoever comes next."""
        return f"00-{self.id}-{self.span}-{_SAMPLED if self.sampled else 0:02x}"


NO_TRACE = Trace()


def read_traceparent(values: Sequence[str]) -> Trace:
    """What the `traceparent` headers of a request say; `NO_TRACE` where there is none, several or an invalid one.

    Of a later version of the standard the part is read that it must share with this one.

    >>> read_traceparent(["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])
    Trace(id='4bf92f3577b34da6a3ce929d0e0e4736', span='', parent='00f067aa0ba902b7', sampled=True)
    >>> read_traceparent(["00-00000000000000000000000000000000-00f067aa0ba902b7-01"]) == NO_TRACE
    True
    """
    if len(values) != 1 or (match := _TRACEPARENT.fullmatch(values[0].strip(" \t"))) is None:
        return NO_TRACE
    if match["version"] == "00" and match["more"] is not None:
        return NO_TRACE
    return Trace(match["trace"], "", match["parent"], bool(int(match["flags"], 16) & _SAMPLED))


def continued(values: Sequence[str]) -> Trace:
    """The trace of a request, with a span of its own: the caller's trace, or a new one where it named none."""
    given = read_traceparent(values)
    # Zero stands for no id.
    return Trace(
        given.id or f"{_ids.getrandbits(128) or 1:032x}",
        f"{_ids.getrandbits(64) or 1:016x}",
        given.parent,
        given.sampled,
    )
