"""What a server asks itself before anybody else can."""

import asyncio
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest

from delivery.serving.batcher import Batcher
from delivery.serving.clients import create_token
from delivery.serving.gateway import Gateway
from delivery.serving.metrics import ServingMetrics
from delivery.serving.rehearsal import rehearse
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


@pytest.mark.parametrize("is_told", [False, True], ids=["open", "with tokens and logs"])
def test_every_model_is_asked_over_both_protocols_and_nothing_of_it_is_left(
    is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = list[tuple[str, str, bool]]()
    counted = Gateway.counted

    def noted(gateway, call):
        asked.append((call.protocol, call.authorization[:16], call.trace.id != ""))
        return counted(gateway, call)

    async def rehearsed() -> tuple[int, str, int, dict[int, float]]:
        logs = {name: tmp_path / name for name in ("clients", "audit_log", "json_log")} if is_told else {}
        model = {"name": "double", "path": tmp_path / "double"}
        settings = ServingSettings.model_validate({"models": [model], "trust": {"allow_unsigned": True}, **logs})
        metrics, catalogue, seen = ServingMetrics(), Catalogue(["double"]), Seen()
        await VersionKeeper(settings, catalogue, metrics, [seen]).load_all()
        before = generate_latest(metrics.registry).decode()
        answers = await rehearse(settings, catalogue)
        version = catalogue.model("double").default()
        assert version is not None and version.loaded.request is not None
        version.batcher._threads.shutdown(wait=True)  # an observer is told after an answer
        after = generate_latest(metrics.registry).decode()
        ours = [line for line in after.splitlines() if line.startswith("phalanx") and line not in before]
        return answers, "\n".join(ours), seen.rows, version.batcher.times._means

    (tmp_path / "double").mkdir()
    save(tmp_path / "double" / "1", 2.0)
    create_token(tmp_path / "clients", "somebody")
    monkeypatch.setattr(Gateway, "counted", noted)
    folders = set(tmp_path.iterdir())
    answers, told, observed, times = asyncio.run(rehearsed())
    assert answers == 40 and len(asked) == 40
    token = "Bearer rehearsal" if is_told else ""
    assert set(asked) == {("grpc", token, is_told), ("rest", token, is_told)}
    assert told == "" and observed == 0 and set(tmp_path.iterdir()) == folders
    assert times[1] > 0


def test_what_a_version_will_be_counted_by_is_shown_from_0_on(tmp_path: Path):
    metrics = ServingMetrics()
    metrics.expect("double", 3)
    labels = 'code="OK",method="predict",model="double",protocol="rest",version="3"'
    assert f"phalanx_serving_requests_total{{{labels}}} 0.0" in generate_latest(metrics.registry).decode()


def test_a_rehearsal_that_fails_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    async def failing(*_: object) -> int:
        raise RuntimeError("no")

    async def rehearsed() -> int:
        settings = ServingSettings.model_validate(
            {"models": [{"name": "double", "path": tmp_path}], "trust": {"allow_unsigned": True}}
        )
        catalogue = Catalogue(["double"])
        await VersionKeeper(settings, catalogue, ServingMetrics()).load_all()
        return await rehearse(settings, catalogue)

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
