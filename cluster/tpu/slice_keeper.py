"""One slice for one purpose: made once, wherever there is room; watched; given back whatever happens.

The rules that keep it one slice:
- Its name follows from the run, and all retries of a request carry the same id: a second request finds the first.
- After an answer that did not come, the provider is asked what there is before anything is asked for again.
- No request goes to another zone before the slice of the last one is seen to be gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from cluster.tpu.patience import Patience
from cluster.tpu.provider import (
    EXPIRES_LABEL,
    REQUEST_LABEL,
    RUN_LABEL,
    NameTaken,
    NoCapacity,
    NoQuota,
    Slice,
    SliceRequest,
    State,
    TpuError,
    TpuProvider,
    Unavailable,
)


class NoResources(TpuError):
    """No slice was to be had in time."""


class LeftBehind(TpuError):
    """A slice could not be seen to be gone."""


class SliceKeeper:
    """Obtains, replaces and releases a slice; in a `with` it is released at the end.

    Args:
        provider: Gives it.
        requests: What to ask for, the first that works; all of one name. Labels that Phalanx needs are added.
        run: That it is made for.
        max_run_s: Seconds after which it must be gone, from when it is first asked for.
        patience: With the provider.
        say: Gets each new reason why there is no slice yet.
        queue_s: How long a request may wait in a queue before the next one is tried, where there are several.
    """

    def __init__(
        self,
        provider: TpuProvider,
        requests: Sequence[SliceRequest],
        run: str,
        max_run_s: float,
        patience: Patience | None = None,
        say: Callable[[str], object] = lambda text: None,
        queue_s: float = 600.0,
    ) -> None:
        assert requests and len({request.name for request in requests}) == 1, "requests are for one slice"
        self._provider, self._requests, self._run = provider, list(requests), run
        self._patience, self._say, self._queue_s = patience or Patience(), say, queue_s
        self._max_run_s, self._expires = max_run_s, 0.0
        self._told = ""

    def __enter__(self) -> SliceKeeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def name(self) -> str:
        """Of the slice."""
        return self._requests[0].name

    @property
    def expires(self) -> float:
        """Seconds since 1970 when it must be gone; 0 before it was asked for."""
        return self._expires

    def obtain(self, wait_s: float) -> Slice:
        """A slice that is ready: one that is there already, else a new one.

        Args:
            wait_s: Seconds after which to give up; what was asked for by then is taken back.

        Raises:
            NoResources: There was none in time.
            NameTaken: There is a slice of that name that is not the run's.
            TpuError: The provider refuses for good.
        """
        now = self._patience.clock.now
        deadline, reasons, round_ = now() + wait_s, {}, 0
        self._expires = self._expires or now() + self._max_run_s
        found = self._adopted()
        if found is not None and (ready := self._ready(found, min(deadline, self._expires))):
            return ready
        while now() < deadline:
            for request in self._requests:
                try:
                    if ready := self._made(request, deadline):
                        return ready
                    reasons[request.zone] = self._told
                except (NoCapacity, NoQuota) as error:
                    reasons[request.zone] = self._tell(str(error))
                    self._remove(request.zone)
                if now() >= deadline:
                    break
            self._patience.pause(round_)
            round_ += 1
        self.release()
        told = "; ".join(f"{zone}: {reason}" for zone, reason in reasons.items())
        raise NoResources(
            f"no slice {self.name} was ready within {wait_s:g} s ({told}): wait longer, or name more zones or types"
        )

    def ask(self) -> Slice:
        """Sends the first request, without waiting for what becomes of it; finds what is there already.

        Raises:
            NameTaken: There is a slice of that name that is not the run's.
            TpuError: The provider refuses, or has no room.
        """
        self._expires = self._expires or self._patience.clock.now() + self._max_run_s
        return self._adopted() or self._asked(self._requests[0])

    def look(self) -> Slice | None:
        """The slice as it is now; None where there is none."""
        for zone in self._zones:
            if found := self._found(zone):
                return found
        return None

    def replace(self, wait_s: float) -> Slice:
        """Another slice in place of one that is lost.

        Raises:
            NoResources: There was none in time.
        """
        self.release()
        return self.obtain(wait_s)

    def release(self) -> None:
        """Deletes whatever there is of the run under this name, in every zone, and sees that it is gone.

        Raises:
            LeftBehind: It could not be seen.
        """
        left = []
        for zone in self._zones:
            try:
                self._remove(zone)
            except TpuError as error:
                left.append(f"{self.name} in {zone} ({error})")
        if left:
            raise LeftBehind(
                f"these slices may still be there and cost money: {'; '.join(left)}: look with phalanx tpu list, and "
                "delete them with phalanx tpu delete"
            )

    @property
    def _zones(self) -> list[str]:
        return list(dict.fromkeys(request.zone for request in self._requests))

    def _adopted(self) -> Slice | None:
        """What an earlier attempt has left, at most one; what is dead is deleted."""
        kept = None
        for zone in self._zones:
            found = self._found(zone)
            if found is None:
                continue
            self._is_ours(found)
            if kept is None and not found.state.is_dead and found.state is not State.DELETING:
                kept, self._expires = found, found.expires or self._expires
            else:
                self._remove(zone)
        return kept

    def _made(self, request: SliceRequest, deadline: float) -> Slice | None:
        """A new slice that is ready; None where it failed on the way, and is gone again."""
        found = self._asked(request)
        # Of several requests the last one need not give way to another, and yet may find room elsewhere next time.
        limit = deadline
        if len(self._requests) > 1:
            limit = min(limit, self._patience.clock.now() + self._queue_s)
        return self._ready(found, min(limit, self._expires))

    def _asked(self, request: SliceRequest) -> Slice:
        """Sends a request until it is known to be there, and only once."""
        token = f"{self._patience.random.getrandbits(48):012x}"
        labels = {RUN_LABEL: self._run, EXPIRES_LABEL: str(int(self._expires)), REQUEST_LABEL: token}
        request = replace(request, labels={**request.labels, **labels})
        deadline, attempt = self._patience.clock.now() + self._patience.give_up_s, 0
        while True:
            try:
                self._provider.create(request)
            except NameTaken:
                pass  # by this very request, or by what was there before: see below
            except Unavailable:
                if self._patience.clock.now() >= deadline:
                    raise
            found = self._patience.until_answered(lambda: self._provider.find(request.name, request.zone))
            if found is not None:
                self._is_ours(found)
                if found.labels.get(REQUEST_LABEL) == token or not found.state.is_dead:
                    return found
                self._remove(request.zone)
            if self._patience.clock.now() >= deadline:
                raise Unavailable(f"the slice {request.name} does not appear in {request.zone}: try again later")
            self._patience.pause(attempt)
            attempt += 1

    def _ready(self, found: Slice, limit: float) -> Slice | None:
        """Waits until a slice is ready; else deletes it."""
        attempt = 0
        current: Slice | None = found
        while current is not None and not current.state.is_dead and current.state is not State.DELETING:
            if current.state is State.READY:
                return current
            self._tell(f"{current.zone}: {current.reason or current.state.value}")
            if self._patience.clock.now() >= limit:
                break
            self._patience.pause(attempt)
            attempt += 1
            current = self._patience.until_answered(lambda: self._provider.find(found.name, found.zone))
        if current is not None:
            self._tell(f"{current.zone}: {current.reason or current.state.value}")
        self._remove(found.zone)
        return None

    def _remove(self, zone: str) -> None:
        """Deletes the slice in a zone and waits until it is not there any more."""
        deadline, attempt = self._patience.clock.now() + self._patience.give_up_s, 0
        while True:
            found = self._found(zone)
            if found is None or found.run != self._run:
                return
            if self._patience.clock.now() >= deadline:
                raise Unavailable(f"the slice {self.name} does not disappear from {zone}: look again later")
            if found.state is not State.DELETING:
                self._patience.until_answered(lambda: self._provider.delete(self.name, zone))
            self._patience.pause(attempt)
            attempt += 1

    def _found(self, zone: str) -> Slice | None:
        """What is in a zone; that an earlier request came to nothing there means that it is empty."""
        with contextlib.suppress(NoCapacity, NoQuota):
            return self._patience.until_answered(lambda: self._provider.find(self.name, zone))
        return None

    def _is_ours(self, found: Slice) -> None:
        if found.run != self._run:
            owner = f"belongs to the run {found.run}" if found.run else "is not Phalanx's"
            raise NameTaken(f"the slice {found.name} in {found.zone} {owner}: choose another name, or delete it")

    def _tell(self, reason: str) -> str:
        if reason != self._told:
            self._told = reason
            self._say(reason)
        return reason
