"""Why a request is not answered: gRPC's status codes, and what each is in HTTP."""

from __future__ import annotations

from typing import Literal

Code = Literal[
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]

# As google/rpc/code.proto has them, which TensorFlow Serving follows.
HTTP_STATUS: dict[str, int] = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}

# tf.errors.OpError.error_code counts as gRPC does.
BY_NUMBER: dict[int, Code] = {
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    15: "DATA_LOSS",
    16: "UNAUTHENTICATED",
}


class ServingError(Exception):
    """A request is refused or has failed. The message is one sentence for the client.

    Attributes:
        code: gRPC's name of the reason.
        retry_after_s: When trying again makes sense, seconds; None: not by waiting.
        http_status: Where HTTP knows better than the code; None: `HTTP_STATUS`.
    """

    def __init__(
        self, code: Code, message: str, retry_after_s: float | None = None, http_status: int | None = None
    ) -> None:
        super().__init__(message)
        self.code: Code = code
        self.retry_after_s = retry_after_s
        self.http_status = HTTP_STATUS[code] if http_status is None else http_status


class ModelRefused(Exception):
    """A model is not loaded. The message is one sentence for who runs the server."""


def invalid(message: str) -> ServingError:
    """The client's mistake."""
    return ServingError("INVALID_ARGUMENT", message)
