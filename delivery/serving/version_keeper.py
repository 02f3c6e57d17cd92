"""Loads new versions beside the old ones, moves the requests over in one step, and lets the old ones finish."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from delivery.drift.gauges import DriftCollector
from delivery.package.verification import PackageRefused, verified_copy
from delivery.serving.batch_computation import compute
from delivery.serving.batcher import Batcher
from delivery.serving.drift_watch import DriftWatch
from delivery.serving.errors import ModelRefused
from delivery.serving.heap import release_garbage, set_aside
from delivery.serving.json_log import JsonLog
from delivery.serving.loaded_model import LoadedModel, bytes_on_disk
from delivery.serving.metrics import ServingMetrics
from delivery.serving.observation import BatchObserver
from delivery.serving.settings import ModelSettings, ServingSettings
from delivery.serving.version_folders import Wanted, wanted
from delivery.serving.versions import Catalogue, ServedModel, ServedVersion, State
from delivery.serving.warmup import warm_up

if TYPE_CHECKING:
    from delivery.serving.spans import Spans

log = logging.getLogger("phalanx.serving")
_LOADING_FACTOR = 2  # while a model is read, its files and its variables are both in memory


class VersionKeeper:
    """Makes the catalogue what the folders say.

    Args:
        settings: Of the server.
        catalogue: Is changed.
        metrics: Counts loads.
        observers: For the batchers.
        json_log, spans: For the batchers too.
    """

    def __init__(
        self,
        settings: ServingSettings,
        catalogue: Catalogue,
        metrics: ServingMetrics,
        observers: Sequence[BatchObserver] = (),
        json_log: JsonLog | None = None,
        spans: Spans | None = None,
    ) -> None:
        self._settings, self._catalogue, self._metrics = settings, catalogue, metrics
        self._json_log, self._spans = json_log, spans
        self._drift = DriftWatch()
        self._observers = (self._drift, *observers)
        metrics.registry.register(DriftCollector(self._drift.monitors))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._failed: set[tuple[str, int]] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._said: dict[str, str] = {}

    async def load_all(self) -> None:
        """Loads every model for the first time.

        Raises:
            ModelRefused: One cannot be served.
            PackageRefused: One is not trusted.
        """
        for model in self._settings.models:
            for outcome in ("loaded", "refused"):
                self._metrics.loads.labels(model.name, outcome)  # from 0 on, so that the first refusal is a rise
            await self._follow(model, await self._in_thread(wanted, model), first=True)

    async def watch(self) -> None:
        """Looks for new versions until it is cancelled. What goes wrong is said and leaves the old ones in place."""
        while True:
            await asyncio.sleep(self._settings.watch_every_s)
            for model in self._settings.models:
                try:
                    await self._follow(model, await self._in_thread(wanted, model))
                    self._said.pop(model.name, None)
                except (ModelRefused, OSError, ValueError) as error:
                    if self._said.get(model.name) != str(error):  # once, not every second
                        log.error("model folder cannot be followed", extra={"model": model.name, "error": str(error)})
                    self._said[model.name] = str(error)

    async def _in_thread(self, function, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _follow(self, settings: ModelSettings, want: Wanted, first: bool = False) -> None:
        model = self._catalogue.model(settings.name)
        for number, folder in want.folders.items():
            known = model.versions.get(number)
            if (known is None or known.state == State.END) and (model.name, number) not in self._failed:
                await self._load(model, number, folder, must_work=first)
        served = {number for number, version in model.versions.items() if version.state == State.AVAILABLE}
        routing = want.routing
        if routing.default in served and routing != model.routing:
            log.info("routing changed", extra={"model": model.name, "default": routing.default})
            model.routing = routing
        kept = {*want.folders, model.routing.default, *model.routing.labels.values()}
        for number in served - kept:
            task = asyncio.create_task(self._retire(model.versions[number]))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _load(self, model: ServedModel, number: int, folder: Path, must_work: bool) -> None:
        version = ServedVersion(model.name, number)
        model.versions[number] = version
        version.state = State.LOADING
        started = time.monotonic()
        batcher = Batcher(
            model.name,
            number,
            self._settings.batching,
            self._metrics,
            self._observers,
            json_log=self._json_log,
            spans=self._spans,
        )
        try:
            loaded = await self._in_thread(self._read, model.name, number, folder, batcher)
        except (ModelRefused, PackageRefused, OSError) as error:
            batcher.close()
            version.fail(str(error))
            self._failed.add((model.name, number))
            self._metrics.loads.labels(model.name, "refused").inc()
            log.error("version refused", extra={"model": model.name, "version": number, "error": str(error)})
            if must_work:
                raise
            return
        self._metrics.expect(model.name, number)
        version.open(loaded, batcher)
        set_aside()
        seconds = time.monotonic() - started
        self._metrics.loads.labels(model.name, "loaded").inc()
        self._metrics.load_seconds.labels(model.name, str(number)).set(seconds)
        self._metrics.available.labels(model.name, str(number)).set(1)
        self._metrics.origin.labels(model.name, str(number), *loaded.origin.values()).set(1)
        facts = {"model": model.name, "version": number, "seconds": round(seconds, 3), **loaded.origin}
        log.info("version loaded", extra=facts)

    def _read(self, name: str, number: int, folder: Path, batcher: Batcher) -> LoadedModel:
        size = bytes_on_disk(folder)
        limit = self._settings.limits.memory or _memory_limit()
        used = psutil.Process().memory_info().rss
        if used + _LOADING_FACTOR * size > limit:
            raise ModelRefused(
                f"version {number} of {name} needs about {_LOADING_FACTOR * size} bytes to load, {used} are in use and "
                f"limits.memory is {limit}: raise it, or serve fewer models"
            )
        with self._trusted(name, folder) as place:
            loaded = LoadedModel(place)
            sizes = self._settings.batching.sizes
            warm_up(loaded, place, sizes, batcher.times, self._settings.limits.tensor_bytes)
            if loaded.request is not None:
                signature = loaded.signature("")
                batcher.warm(partial(compute, signature, [loaded.request], [signature.rows(loaded.request)], sizes))
            self._drift.begin(name, number, place)
        return loaded

    @contextlib.contextmanager
    def _trusted(self, name: str, folder: Path):
        """The folder to load from: a verified copy that nobody else can change."""
        if self._settings.trust.allow_unsigned and not self._settings.trust.keys:
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="phalanx-serving-") as private:
            yield verified_copy(folder, self._settings.trust.keys, Path(private) / "model", name=name).path

    async def _retire(self, version: ServedVersion) -> None:
        self._metrics.available.labels(version.model, str(version.number)).set(0)
        origin = version.loaded.origin
        await version.close()
        self._metrics.origin.remove(version.model, str(version.number), *origin.values())
        self._drift.end(version.model, version.number)
        release_garbage()  # a graph is full of cycles
        log.info("version unloaded", extra={"model": version.model, "version": version.number})


def _memory_limit() -> int:
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        limit = psutil.virtual_memory().total
    return int(0.9 * min(limit, psutil.virtual_memory().total))
