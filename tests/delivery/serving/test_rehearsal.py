"""What a server asks itself before anybody else can."""

import asyncio
import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from delivery.serving.batcher import Batcher
from delivery.serving.gateway import Gateway
from delivery.serving.metrics import ServingMetrics
from delivery.serving.rehearsal import rehearse
from delivery.serving.rest_service import build_app
from delivery.serving.settings import BatchingSettings, ServingSettings
from delivery.serving.version_keeper import VersionKeeper
from delivery.serving.versions import Catalogue
from tests.delivery.serving.serving_process import save


class Seen:
    """An observer of every batch."""

    def __init__(self) -> None:
        self.rows = 0

    def takes(self, model: str, version: int, signature: str) -> bool:
        return True

    def observe(self, batch) -> None:
        self.rows += batch.rows


def test_every_model_is_asked_over_both_protocols_and_nothing_is_counted_or_observed(tmp_path: Path):
    async def rehearsed() -> tuple[int, str, int]:
        settings = ServingSettings.model_validate(
            {"models": [{"name": "double", "path": tmp_path}], "trust": {"allow_unsigned": True}}
        )
        metrics, catalogue, seen = ServingMetrics(), Catalogue(["double"]), Seen()
        # Nobody has a token, and every answer would have to be let in.
        clients = type("Nobody", (), {"recognise": lambda *_: pytest.fail("a client was asked for")})()
        gateway = Gateway(settings, catalogue, metrics, clients)
        await VersionKeeper(settings, catalogue, metrics, [seen]).load_all()
        gateway.rehearses = True
        answers = await rehearse(gateway, build_app(gateway))
        version = catalogue.model("double").default()
        assert version is not None and version.loaded.request is not None
        version.batcher._threads.shutdown(wait=True)  # an observer is told after an answer
        counted = metrics.requests.collect()[0].samples
        return answers, str(counted), seen.rows

    save(tmp_path / "1", 2.0)
    answers, counted, observed = asyncio.run(rehearsed())
    assert answers == 40
    assert counted == "[]" and observed == 0


def test_a_rehearsal_that_fails_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    async def failing(*_: object) -> int:
        raise RuntimeError("no")

    async def rehearsed() -> int:
        settings = ServingSettings.model_validate(
            {"models": [{"name": "double", "path": tmp_path}], "trust": {"allow_unsigned": True}}
        )
        metrics, catalogue = ServingMetrics(), Catalogue(["double"])
        gateway = Gateway(settings, catalogue, metrics)
        await VersionKeeper(settings, catalogue, metrics).load_all()
        return await rehearse(gateway, build_app(gateway))

    save(tmp_path / "1", 2.0)
    monkeypatch.setattr("delivery.serving.rehearsal._over_grpc", failing)
    with caplog.at_level(logging.WARNING, "phalanx.serving"):
        assert asyncio.run(rehearsed()) == 0
    assert [record.message for record in caplog.records] == ["the rehearsal failed"]


def test_every_thread_that_computes_is_warmed():
    batcher = Batcher("double", 1, BatchingSettings(parallel=3), ServingMetrics())
    threads: list[int] = []
    batcher.warm(lambda: threads.append(threading.get_ident()))
    batcher.close()
    assert len(set(threads)) == len(threads) == 3
    assert np.all(np.array(threads) != threading.get_ident())
