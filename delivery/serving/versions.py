"""Which versions of which models answer, and which one answers a request that names none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum

from delivery.serving.batcher import Batcher
from delivery.serving.errors import ServingError
from delivery.serving.loaded_model import LoadedModel


class State(IntEnum):
    """Of a version, with TensorFlow Serving's names and numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class ServedVersion:
    """One version of one model, from its discovery to its end.

    Attributes:
        model: The model's name.
        number: Its version.
        state: Where it is.
        error: Why it was not loaded; "" if it was.
    """

    def __init__(self, model: str, number: int) -> None:
        self.model, self.number = model, number
        self.state, self.error = State.START, ""
        self._loaded: tuple[LoadedModel, Batcher] | None = None
        self._leases = 0
        self._free = asyncio.Event()
        self._free.set()

    @property
    def loaded(self) -> LoadedModel:
        """The model itself; only while the version is held."""
        assert self._loaded is not None
        return self._loaded[0]

    @property
    def batcher(self) -> Batcher:
        """Its queue; only while the version is held."""
        assert self._loaded is not None
        return self._loaded[1]

    def open(self, loaded: LoadedModel, batcher: Batcher) -> None:
        """From now on it answers."""
        self._loaded, self.state = (loaded, batcher), State.AVAILABLE

    def fail(self, error: str) -> None:
        """It never answers."""
        self.state, self.error = State.END, error

    @contextmanager
    def held(self) -> Iterator[ServedVersion]:
        """Keeps it in memory for one request."""
        self._leases += 1
        self._free.clear()
        try:
            yield self
        finally:
            self._leases -= 1
            if not self._leases:
                self._free.set()

    async def close(self) -> None:
        """Waits for the requests that hold it, and lets its memory go."""
        self.state = State.UNLOADING
        await self._free.wait()
        if self._loaded:
            self._loaded[1].close()
        self._loaded, self.state = None, State.END


@dataclass(frozen=True)
class Routing:
    """Where the requests of a model go. Replaced as a whole, so that no request sees half a change.

    Attributes:
        default: The version for requests that name none; None: there is none yet.
        labels: Versions by label; clients name them so.
        canary: Gets `canary_percent` of the requests that name none.
        shadow: Gets a copy of those requests, and its answers go nowhere.
    """

    default: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    canary: int | None = None
    canary_percent: float = 0.0
    shadow: int | None = None


class ServedModel:
    """All versions of one model."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: dict[int, ServedVersion] = {}
        self.routing = Routing()
        self._canary_credit = 0.0

    def pick(self, version: int | None, label: str) -> ServedVersion:
        """The version that answers a request.

        Args:
            version: That it names, or None.
            label: That it names, or "".

        Raises:
            ServingError: INVALID_ARGUMENT, both are named; NOT_FOUND; UNAVAILABLE, none is loaded yet.
        """
        if version is not None and label:
            raise ServingError("INVALID_ARGUMENT", "name a version or a label of the model, not both")
        if label:
            if label not in self.routing.labels:
                raise ServingError("NOT_FOUND", f"Unrecognized servable version label: {label[:100]}")
            version = self.routing.labels[label]
        if version is not None:
            found = self.versions.get(version)
            if found is None or found.state != State.AVAILABLE:
                raise ServingError("NOT_FOUND", f"Servable not found for request: Specific({self.name}, {version})")
            return found
        found = self.versions.get(self._next() or 0)
        if found is None or found.state != State.AVAILABLE:
            raise ServingError("UNAVAILABLE", f"model {self.name} has no version loaded yet", retry_after_s=1.0)
        return found

    def default(self) -> ServedVersion | None:
        """The version that answers requests that name none, if it is loaded."""
        found = self.versions.get(self.routing.default or 0)
        return found if found is not None and found.state == State.AVAILABLE else None

    def shadow(self) -> ServedVersion | None:
        """The version that gets copies, if it is loaded."""
        found = self.versions.get(self.routing.shadow or 0)
        return found if found is not None and found.state == State.AVAILABLE else None

    def _next(self) -> int | None:
        """Spread evenly: at 10% every tenth request goes to the canary, not ten in a row of a hundred."""
        routing = self.routing
        canary = self.versions.get(routing.canary or 0)
        if canary is not None and canary.state == State.AVAILABLE:
            self._canary_credit += routing.canary_percent
            if self._canary_credit >= 100:
                self._canary_credit -= 100
                return canary.number
        return routing.default


class Catalogue:
    """All models."""

    def __init__(self, names: list[str]) -> None:
        self.models = {name: ServedModel(name) for name in names}

    def model(self, name: str) -> ServedModel:
        """The model of a name.

        Raises:
            ServingError: NOT_FOUND.
        """
        if (found := self.models.get(name)) is None:
            raise ServingError("NOT_FOUND", f"Servable not found for request: Latest({name[:100]})")
        return found

    @property
    def is_ready(self) -> bool:
        """Whether every model has a version that answers requests that name none."""
        return all(
            (version := model.versions.get(model.routing.default or 0)) is not None and version.state == State.AVAILABLE
            for model in self.models.values()
        )
