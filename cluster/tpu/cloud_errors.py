"""What an answer of Google's APIs means, whatever its code: wrong for good, no room now, or try again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from cluster.tpu.provider import (
    NameTaken,
    NoCapacity,
    NoQuota,
    RequestRefused,
    TpuError,
    Unavailable,
    WrongCredentials,
)

# google.rpc.Code, in which operations and queued resources report.
_STATUS = {
    3: "INVALID_ARGUMENT",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}
_CAPACITY = re.compile(r"no more capacity|insufficient capacity|stockout|not enough resources|no available", re.I)
_QUOTA = re.compile(r"quota", re.I)
_RATE = re.compile(r"per minute|rate limit|rate exceeded|too many requests|requests per", re.I)


def error_of_answer(status: int, content: bytes | str) -> TpuError:
    """The error of an HTTP answer that is none of success.

    Args:
        status: Of HTTP.
        content: The body, usually Google's JSON of an error.
    """
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
    try:
        error: Any = json.loads(text).get("error", {})
    except (ValueError, AttributeError):
        error = {}
    if isinstance(error, str):  # of the token server
        error = {"message": error}
    message = error.get("message") or text.strip()[:200] or "no message"
    return _classified(status, error.get("status", ""), message)


def error_of_status(error: Mapping[str, Any]) -> TpuError:
    """The error in which an operation ended."""
    status = _STATUS.get(int(error.get("code", 0)), "")
    return _classified(0, status, error.get("message", "no message"))


def _classified(http: int, status: str, message: str) -> TpuError:
    message = message.rstrip(".")
    if http == 401 or status == "UNAUTHENTICATED":
        return WrongCredentials(
            f"the Cloud TPU API does not accept the credentials ({message}): run gcloud auth application-default "
            "login, or let GOOGLE_APPLICATION_CREDENTIALS name the key of a service account"
        )
    if (http == 403 and not _QUOTA.search(message)) or status == "PERMISSION_DENIED":
        return WrongCredentials(
            f"the credentials may not do that ({message}): give their account the role TPU Admin, and enable the Cloud "
            "TPU API in the project"
        )
    if _CAPACITY.search(message):
        return NoCapacity(f"there is no room in this zone now ({message}): name more zones, or queue the request")
    # Too many requests for a while, and too many chips for good, have one status.
    if _QUOTA.search(message) and not _RATE.search(message):
        return NoQuota(f"the project's quota is used up ({message}): ask for more, or name another zone or type")
    if http in (408, 429, 500, 502, 503, 504) or status in ("UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED"):
        return Unavailable(f"the Cloud TPU API asks for patience ({message}): try again")
    if http == 409 or status == "ALREADY_EXISTS":
        return NameTaken(f"there is something of that name ({message}): choose another name, or delete it")
    return RequestRefused(f"the Cloud TPU API refuses the request ({message}): change it")
