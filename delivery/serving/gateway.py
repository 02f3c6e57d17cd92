"""The way of every request, whichever protocol it came by: version, signature, inputs, batch, answer, count."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from delivery.serving.audit_log import AuditLog
from delivery.serving.batch_computation import Arrays
from delivery.serving.clients import Clients
from delivery.serving.errors import HTTP_STATUS, ServingError
from delivery.serving.json_log import HttpRequest, JsonLog
from delivery.serving.metrics import UNKNOWN, ServingMetrics
from delivery.serving.settings import ServingSettings
from delivery.serving.signature import Signature
from delivery.serving.trace_context import NO_TRACE, Trace, continued, read_traceparent
from delivery.serving.versions import Catalogue, ServedModel, ServedVersion

if TYPE_CHECKING:
    from delivery.serving.spans import Spans

log = logging.getLogger("phalanx.serving")


@dataclass(frozen=True)
class Target:
    """What a request names.

    Attributes:
        model: Its name.
        version: None: none named.
        label: "": none named.
        signature: "": the default.
    """

    model: str
    version: int | None = None
    label: str = ""
    signature: str = ""


@dataclass
class Call:
    """One request.

    Attributes:
        protocol: grpc or rest.
        method: predict, classify, regress, metadata or status; unknown for what is not offered.
        timeout_s: Until its deadline; None: the server's own.
        trace: Where it belongs.
        authorization: The header of that name, or "".
        http: How it looks over REST, for the log.
        client: Set when it is known.
        model, version: Set as they become known.
        started: By the clock of `time.monotonic`.
    """

    protocol: str
    method: str
    timeout_s: float | None = None
    trace: Trace = NO_TRACE
    authorization: str = ""
    http: HttpRequest | None = None
    client: str = ""
    model: str = UNKNOWN
    version: str = ""
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Answered:
    """What a model said."""

    version: ServedVersion
    signature: Signature
    outputs: Arrays


class Gateway:
    """Answers requests.

    Args:
        settings: Of the server.
        catalogue: Has the models.
        metrics: Counts.
        clients: Are let in; None: everybody is.
        audit: Is told of every request.
        json_log: Is told of every request too.
        spans: So is this one.
        rehearses: Whether the server itself is who asks (`delivery/serving/rehearsal.py`): neither an observer nor a
            shadow sees it.
    """

    def __init__(
        self,
        settings: ServingSettings,
        catalogue: Catalogue,
        metrics: ServingMetrics,
        clients: Clients | None = None,
        audit: AuditLog | None = None,
        json_log: JsonLog | None = None,
        spans: Spans | None = None,
        rehearses: bool = False,
    ) -> None:
        self.settings, self.catalogue, self.metrics = settings, catalogue, metrics
        self._clients, self._audit, self._json_log, self._spans = clients, audit, json_log, spans
        self._rehearses = rehearses
        self._audit_failed = False
        self._shadows: set[asyncio.Task[None]] = set()

    @property
    def traces(self) -> bool:
        """Whether every request gets a trace, which its answer names."""
        return self._json_log is not None or self._spans is not None

    def trace(self, traceparents: Sequence[str]) -> Trace:
        """Where a request belongs that came with these headers."""
        if not self.traces:
            return read_traceparent(traceparents)
        trace = continued(traceparents)
        return trace if self._spans is None else self._spans.decided(trace)

    @contextmanager
    def counted(self, call: Call) -> Iterator[None]:
        """Lets a client in, counts its request, and turns what nobody foresaw into INTERNAL.

        Raises:
            ServingError: The request is not answered.
        """
        gauge, code, http_status = self.metrics.in_flight.labels(call.protocol), "OK", 200
        gauge.inc()
        try:
            if self._clients is not None:
                call.client = self._clients.recognise(call.authorization)
                self._clients.charge(call.client)
            yield
        except ServingError as error:
            code, http_status = error.code, error.http_status
            raise
        except asyncio.CancelledError:
            code, http_status = "CANCELLED", HTTP_STATUS["CANCELLED"]
            raise
        except Exception as error:
            code, http_status = "INTERNAL", HTTP_STATUS["INTERNAL"]
            log.exception("request failed", extra={"model": call.model, "trace": call.trace.id})
            raise ServingError("INTERNAL", "the server failed; its log says why") from error
        finally:
            gauge.dec()
            seconds = time.monotonic() - call.started
            is_audited = self._is_audited(call, code, seconds)
            if not is_audited:
                code, http_status = "UNAVAILABLE", HTTP_STATUS["UNAVAILABLE"]
            labels = (call.model, call.version, call.method, call.protocol)
            self.metrics.requests_of(*labels, code).inc()
            self.metrics.seconds_of(*labels).observe(seconds)
            if self._json_log is not None:
                self._json_log.request(call, code, http_status, seconds)
            if self._spans is not None:
                self._spans.request(call, code, http_status, seconds)
            if not is_audited:
                raise ServingError("UNAVAILABLE", "the audit log cannot be written, and nothing is answered without it")

    def _is_audited(self, call: Call, code: str, seconds: float) -> bool:
        """Tells the audit log of a request; false where it cannot be told, which is said once until it can."""
        if self._audit is None:
            return True
        names = {"client": call.client, "model": call.model, "version": call.version, "method": call.method}
        try:
            self._audit.write(**names, protocol=call.protocol, code=code, seconds=seconds, trace=call.trace.id)
        except OSError as error:
            if not self._audit_failed:
                log.error("the audit log cannot be written: nothing is answered until it can", exc_info=error)
            self._audit_failed = True
            return False
        self._audit_failed = False
        return True

    @contextmanager
    def version(self, call: Call, target: Target) -> Iterator[tuple[ServedModel, ServedVersion]]:
        """The version that a request is for, kept in memory meanwhile.

        Raises:
            ServingError: There is none.
        """
        model = self.catalogue.model(target.model)
        call.model = model.name
        with model.pick(target.version, target.label).held() as version:
            call.version = str(version.number)
            yield model, version

    async def predict(self, call: Call, target: Target, read: Callable[[Signature], dict[str, np.ndarray]]) -> Answered:
        """Answers a request.

        Args:
            call: Itself.
            target: What it names.
            read: Its inputs, checked against the signature.

        Raises:
            ServingError: It cannot be answered.
        """
        limit = self.settings.limits.deadline_s
        deadline = call.started + min(limit, limit if call.timeout_s is None else call.timeout_s)
        with self.version(call, target) as (model, version):
            signature = version.loaded.signature(target.signature)
            inputs = read(signature)
            if (rows := signature.rows(inputs)) > self.settings.limits.rows:
                raise ServingError(
                    "INVALID_ARGUMENT",
                    f"the request has {rows} rows, more than the {self.settings.limits.rows} allowed: send several",
                )
            outputs = await version.batcher.answer(signature, inputs, deadline, call.trace, not self._rehearses)
            if self._rehearses:
                return Answered(version, signature, outputs)
            if target.version is None and not target.label and (shadow := model.shadow()) not in (None, version):
                assert shadow is not None
                task = asyncio.create_task(self._copy(shadow, signature.name, inputs, outputs))
                self._shadows.add(task)
                task.add_done_callback(self._shadows.discard)
            return Answered(version, signature, outputs)

    async def _copy(self, shadow: ServedVersion, signature: str, inputs: Arrays, outputs: Arrays) -> None:
        """Asks the shadow too, unless it is busy, and compares."""
        labels = (shadow.model, str(shadow.number))
        try:
            with shadow.held():
                taken = shadow.loaded.signature(signature)
                answers = await shadow.batcher.answer(taken, inputs, time.monotonic() + 5.0, observed=False)
            same = answers.keys() == outputs.keys() and all(_agree(answers[key], outputs[key]) for key in outputs)
            outcome = "same" if same else "different"
        except ServingError as error:
            outcome = "skipped" if error.code in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED") else "failed"
        except Exception:
            log.exception("shadow failed", extra={"model": shadow.model, "version": shadow.number})
            outcome = "failed"
        self.metrics.shadow.labels(*labels, outcome).inc()


def _agree(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if np.issubdtype(one.dtype, np.floating):
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-3))
    return bool(np.array_equal(one, other))
