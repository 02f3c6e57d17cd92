"""Refuses REST requests that would wait too long for the interpreter, before their body is looked at.

The queue of a model (`delivery/serving/batcher.py`) knows how long the model takes. Where messages are small it is not
the model that is short but the one thread that reads and writes them, and its queue is the event loop, which nobody
counts. By Little's law (1961) a request waits as long as those before it take: how many are in flight, times the
processor time that this thread spends on an answer, with all that it does beside, while it has many to give.

To refuse costs time too, a fifth of an answer or more. So refusals are written at half the pace of answers, and who is
refused faster waits for his turn: a connection of HTTP/1.1 sends nothing meanwhile, so a flood is slowed down to what
can be refused beside the answers, on a fast machine as on a slow one.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
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

_SMOOTHING = 0.3
_WINDOW = 32
"""Answers that are measured together: they come in waves, and one alone says nothing."""
_BUSY = 8
"""Requests in flight from which on the thread's time is spent on them, and not on what else the process does."""
_TURNS = 2
"""Times that a request waits for those before it: to be read, which it has behind it here, and to be answered."""
_SLOWER = 1.5
"""Time that passes for each of processor time: other threads have the interpreter, and others the core, in between."""
_ANSWERS_A_REFUSAL, _ANSWERS_A_REFUSAL_IDLE = 2.0, 0.5
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
        spent: Seconds that this thread has had a processor, as `time.thread_time`.
    """

    def __init__(
        self,
        app: App,
        settings: ServingSettings,
        metrics: ServingMetrics,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._app, self._clock, self._spent = app, clock, spent
        self._bound = settings.batching.latency_bound_ms / 1000
        self._most = settings.limits.concurrent
        self._is_draining, self._turns = False, deque[tuple[asyncio.Future[None], float]]()
        self._in_flight, self._peak, self._answers, self._ended, self._begun = 0, 0, 0, 0, 0.0
        self._interval = self._bound / (_TURNS * _UNTIL_KNOWN)
        self._next_refusal = clock()
        self._timer: asyncio.TimerHandle | None = None
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
            self._peak, self._answers, self._ended, self._begun = 0, 0, 0, self._spent()
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        statuses: list[int] = []

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._in_flight -= 1
            self._note(statuses[0] if statuses else HTTPStatus.INTERNAL_SERVER_ERROR)

    def _note(self, status: int) -> None:
        # A request that is wrong is over quickly, and says nothing of how long an answer takes. One that is late has
        # been in vain: the answers are all that the time was spent for.
        is_answer = status < HTTPStatus.BAD_REQUEST
        self._answers += is_answer
        self._ended += is_answer or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if self._ended < _WINDOW and self._in_flight:
            return
        now = self._spent()
        if self._peak >= _BUSY and self._ended >= _BUSY:
            took = _SLOWER * (now - self._begun) / max(self._answers, 1)
            # Bounded, so that so many always get in, whatever the machine did meanwhile.
            took = min(took, self._bound / (_TURNS * _BUSY))
            self._interval += _SMOOTHING * (took - self._interval)
        self._answers, self._ended, self._begun = 0, 0, now

    def drain(self) -> None:
        """Refuses those that wait for it now, and from now on at once: the server is to end."""
        self._is_draining = True
        while self._turns:
            self._next_turn()

    def _pause_s(self) -> float:
        """Between two refusals. With room left it is short: those that were refused may come again."""
        has_room = self.expected_s < self._bound / 8
        return self._interval * (_ANSWERS_A_REFUSAL_IDLE if has_room else _ANSWERS_A_REFUSAL)

    async def _turn(self) -> None:
        """Waits until it may be refused."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._turns.append((turn, self._clock()))
        if self._timer is None:
            self._timer = loop.call_later(self._pause_s(), self._next_turn)
        await turn

    def _next_turn(self) -> None:
        now, self._timer = self._clock(), None
        turn, _ = self._turns.popleft()
        if not turn.done():  # its client may have left
            turn.set_result(None)
        self._next_refusal = now + self._pause_s()
        if self._turns and not self._is_draining:
            waited = now - self._turns[0][1]
            pause = 0.0 if waited > _LONGEST_TURN_S else self._pause_s()
            self._timer = asyncio.get_running_loop().call_later(pause, self._next_turn)

    async def _refuse(self, send: Send) -> None:
        self._refused.inc()
        self._metrics.requests_of(UNKNOWN, "", UNKNOWN, "rest", "RESOURCE_EXHAUSTED").inc()
        expected = max(self.expected_s, 0.05)
        now = self._clock()
        if self._is_draining or (not self._turns and now >= self._next_refusal):
            self._next_refusal = now + self._pause_s()
        else:
            await self._turn()
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
