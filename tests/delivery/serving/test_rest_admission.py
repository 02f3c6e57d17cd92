"""A flood of REST requests on a simulated server: one thread, virtual time, and refusals that cost something too."""

import asyncio
import json
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

import pytest

from delivery.serving.metrics import ServingMetrics
from delivery.serving.rest_admission import RestAdmission
from delivery.serving.settings import ServingSettings

# Of the one thread: reading headers, then an answer or a refusal.
READ_S, ANSWER_S, REFUSAL_S = 0.0003, 0.0017, 0.0003
DEADLINE_S = 0.25
Result = TypeVar("Result")
GIVEN = {"models": [{"name": "m", "path": "."}], "trust": {"allow_unsigned": True}}


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time goes on only where nobody has anything to do."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._now = max(self._now, self._scheduled[0]._when)
        super()._run_once()


def in_virtual_time(work: Coroutine[Any, Any, Result]) -> Result:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


class Machine:
    """One thread that does one thing after the other; what waits for it is in the order in which it came."""

    def __init__(self) -> None:
        self._free_at, self.paused_until, self._given = 0.0, 0.0, 0.0

    async def work(self, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        self._given += seconds
        self._free_at = max(self._free_at, now, self.paused_until) + seconds
        await asyncio.sleep(self._free_at - now)

    def spent(self) -> float:
        """Processor time until now: what it was given, but for what waits."""
        return self._given - max(0.0, self._free_at - max(asyncio.get_running_loop().time(), self.paused_until))


class Served:
    """The admission in front of a simulated application, and what clients saw of it."""

    def __init__(self, clients: int, seconds: float, pause: tuple[float, float] | None = None, **limits) -> None:
        self.settings = ServingSettings.model_validate(GIVEN | {"limits": limits})
        self.metrics, self.machine = ServingMetrics(), Machine()
        self.good: list[float] = []
        self.late, self.refused, self.most = 0, 0, 0
        self._in_app = 0
        self.retry: set[bytes] = set()
        in_virtual_time(self._run(clients, seconds, pause))

    async def _app(self, scope, receive, send) -> None:
        if scope.get("wrong"):
            await send({"type": "http.response.start", "status": 400, "headers": []})
            return
        self._in_app += 1
        self.most = max(self.most, self._in_app)
        await self.machine.work(ANSWER_S)
        self._in_app -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def _wrong(self) -> None:
        """A client whose requests are refused for what they are, which takes no time."""

        async def refusal(message) -> None:
            if message.get("status") == 429:
                self.refused += 1
                await self.machine.work(REFUSAL_S)

        await self._admission({"type": "http", "method": "POST", "wrong": True}, None, refusal)

    async def _answered(self, begun: float, message) -> None:
        if message["type"] != "http.response.start":
            assert "busy" in json.loads(message["body"])["error"]
        elif message["status"] == 200:
            now = asyncio.get_running_loop().time()
            if now - begun <= DEADLINE_S:
                self.good.append(now)
            else:
                self.late += 1
        else:
            assert message["status"] == 429
            self.retry.add(dict(message["headers"])[b"retry-after"])
            self.refused += 1
            await self.machine.work(REFUSAL_S)

    async def _run(self, clients: int, seconds: float, pause: tuple[float, float] | None) -> None:
        loop = asyncio.get_running_loop()
        self._admission = admission = RestAdmission(
            self._app, self.settings, self.metrics, loop.time, self.machine.spent
        )

        async def client() -> None:
            while loop.time() < seconds:
                if pause and pause[0] <= loop.time() < pause[1]:
                    self.machine.paused_until = pause[1]
                await self._wrong()
                begun = loop.time()
                await self.machine.work(READ_S)
                await admission({"type": "http", "method": "POST"}, None, partial(self._answered, begun))

        await asyncio.gather(*(client() for _ in range(clients)))


def goodput(served: Served, since: float, until: float) -> float:
    """Answers in time, as a share of what the machine could give if it refused nobody."""
    return sum(since <= at < until for at in served.good) / (until - since) * (READ_S + ANSWER_S)


@pytest.mark.parametrize("clients", [16, 64, 128, 512, 2000])
def test_a_flood_leaves_four_fifths_of_the_capacity_and_few_wait_in_vain(clients: int):
    served = Served(clients, 10)
    assert goodput(served, 2, 10) > 0.8
    assert served.late < 0.1 * len(served.good)
    # The bound of 0.2 s is 100 answers long, and each waits for the others twice.
    assert clients == 64 or (served.refused > 0) == (clients > 64)
    assert served.refused == 0 or served.retry <= {b"1"}
    refused = served.metrics.registry.get_sample_value("phalanx_serving_refused_total", {"reason": "rest"})
    assert refused == served.refused


def test_a_pause_of_the_machine_keeps_nobody_out_afterwards():
    served = Served(512, 12, pause=(3, 6))
    assert goodput(served, 8, 12) > 0.8


def test_no_more_are_in_flight_than_the_limit_says():
    assert Served(64, 1, concurrent=5).most == 5


def test_who_waits_to_be_refused_does_not_keep_a_server_from_ending():
    refused: list[int] = []

    async def endless(scope, receive, send) -> None:
        await asyncio.Event().wait()

    async def send(message) -> None:
        if message["type"] == "http.response.start":
            refused.append(message["status"])

    async def run() -> float:
        loop = asyncio.get_running_loop()
        settings = ServingSettings.model_validate(GIVEN | {"limits": {"concurrent": 1}})
        admission = RestAdmission(endless, settings, ServingMetrics(), loop.time)
        asked = [asyncio.ensure_future(admission({"type": "http", "method": "POST"}, None, send)) for _ in range(999)]
        await asyncio.sleep(0.1)
        # One in flight leaves room: two refusals in the time of an answer, which is taken for a millisecond.
        assert 150 < len(refused) < 250
        admission.drain()
        await asyncio.wait(asked[1:])
        assert refused == [429] * 998
        asked[0].cancel()
        await asyncio.wait(asked[:1])
        return loop.time()

    assert in_virtual_time(run()) < 0.2
