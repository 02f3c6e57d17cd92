"""Refuses REST requests that would wait too long for the interpreter, before their body is looked at.

The queue of a model (`delivery/serving/batcher.py`) knows how long the model takes. Where messages are small it is not
the model that is short but the one thread that reads and writes them, and its queue is the event loop, which nobody
counts. By Little's law (1961) a request waits as long as those before it take: how many are in flight, times what lies
between two answers while there are enough of them to keep the server busy.

To refuse costs time too, a fifth of an answer or more. So refusals are written at half the pace of answers, and who is
refused faster waits for his turn: a connection of HTTP/1.1 sends nothing meanwhile, so a flood is slowed down to what
can be refused beside the answers, on a fast machine as on a slow one.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from delivery.serving.errors import HTTP_STATUS
from delivery.serving.metrics import UNKNOWN, ServingMetrics
from delivery.serving.settings import ServingSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_SMOOTHING = 0.02
_BUSY = 8
"""Requests in flight from which on what lies between two answers says how fast the server is, not its clients."""
_TURNS = 2
"""Times that a request waits for those before it: to be read, which it has behind it here, and to be answered."""
_ANSWERS_A_REFUSAL = 2.0
_LONGEST_TURN_S = 10.0
_UNTIL_KNOWN = 100
"""Requests that may be in flight before anything is known of the server."""


class RestAdmission:
    """An ASGI application in front of another one, whose POST requests it lets in or refuses.

    Args:
        app: Answers.
        settings: Bounds.
        metrics: Counts refusals.
        clock: Seconds, as `time.monotonic`.
    """

    def __init__(
        self,
        app: App,
        settings: ServingSettings,
        metrics: ServingMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._clock = app, clock
        self._bound = settings.batching.latency_bound_ms / 1000
        self._most = settings.limits.concurrent
        self._is_draining, self._turns = False, set[asyncio.Future[None]]()
        self._in_flight, self._peak, self._interval = 0, 0, self._bound / _UNTIL_KNOWN
        self._last_answer = self._next_refusal = clock()
        self._metrics, self._refused = metrics, metrics.refused.labels("rest")

    @property
    def expected_s(self) -> float:
        """Seconds that a request which came now would take, with those in flight before it at each of its turns."""
        return _TURNS * self._in_flight * self._interval

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._most or (self._in_flight and self.expected_s > self._bound):
            await self._refuse(send)
            return
        if not self._in_flight:
            self._peak = 0
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        begun, statuses = self._clock(), list[int]()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            # A request that is wrong or late is no answer, and says nothing of how long one takes.
            if statuses and statuses[0] < HTTPStatus.BAD_REQUEST:
                self._learn(begun)
            self._in_flight -= 1

    def _learn(self, begun: float) -> None:
        now = self._clock()
        # By the peak, and from the answer before: the loop goes in waves, and between two of them nothing is in flight
        # while it reads what the next one brings. A server with little to do takes at most what a whole request took.
        is_busy = self._peak >= _BUSY
        took = now - self._last_answer if is_busy else min(now - begun, self._interval)
        # Bounded, so that so many always get in: a pause of the machine must not keep requests out for good.
        took = min(took, self._bound / (_TURNS * _BUSY))
        self._last_answer = now
        self._interval += _SMOOTHING * (took - self._interval)

    def drain(self) -> None:
        """Refuses those that wait for it now, and from now on at once: the server is to end."""
        self._is_draining = True
        for turn in self._turns:
            _come(turn)

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        timer = loop.call_later(seconds, _come, turn)
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)
        try:
            await turn
        finally:
            timer.cancel()

    async def _refuse(self, send: Send) -> None:
        self._refused.inc()
        self._metrics.requests_of(UNKNOWN, "", UNKNOWN, "rest", "RESOURCE_EXHAUSTED").inc()
        expected = max(self.expected_s, 0.05)
        now = self._clock()
        turn = min(max(now, self._next_refusal), now + _LONGEST_TURN_S)
        self._next_refusal = turn + _ANSWERS_A_REFUSAL * self._interval
        if turn > now and not self._is_draining:
            await self._wait(turn - now)
        sentence = f"the server is busy: the answer would take {expected * 1000:.0f} ms; try again later"
        body = json.dumps({"error": sentence}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(math.ceil(expected)).encode()),
        ]
        status = HTTP_STATUS["RESOURCE_EXHAUSTED"]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _come(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
