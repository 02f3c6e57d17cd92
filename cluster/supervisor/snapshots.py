"""Which host's memory holds which snapshot, and from which of them a generation may go on.

A generation that goes on from step s gives up all that earlier generations did beyond s. A snapshot of theirs with a
higher step, found or told of later, belongs to a past that did not happen and must not be restored.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.assignment import SnapshotPlace


@dataclass(frozen=True)
class _Snapshot:
    step: int
    generation: int


class SnapshotBook:
    """The newest snapshot in each host's memory.

    Attributes:
        checkpoint_step: the highest step known to be in a complete checkpoint; -1: none.
    """

    def __init__(self) -> None:
        self.checkpoint_step = -1
        self._held: dict[str, _Snapshot] = {}
        self._newest = _Snapshot(-1, -1)  # of those told of
        self._distrusted: dict[str, tuple[int, int]] = {}  # generation and step
        # (generation, the step it went on from), generations that never said it left out: they did nothing.
        self._starts: list[tuple[int, int]] = []

    def take(self, host: str, generation: int, step: int) -> None:
        """A host's memory holds a snapshot; an older one there is overwritten."""
        held = self._held.get(host)
        newest = self._distrusted.get(host, (-1, -1)) if held is None else (held.generation, held.step)
        is_news = (generation, step) > newest
        if is_news and self._is_past_of_now(generation, step):
            # All hosts take the same ones: thousands of equal objects would only be more to look after.
            if (generation, step) != (self._newest.generation, self._newest.step):
                self._newest = _Snapshot(step, generation)
            self._held[host] = self._newest

    def lose(self, host: str) -> None:
        """A host's memory is gone, or nobody is there to tell of it; whoever comes back tells what it still holds."""
        self._held.pop(host, None)

    def begin(self, generation: int, step: int) -> None:
        """A generation went on from a step."""
        self._starts.append((generation, step))
        # A checkpoint beyond it was lost or damaged, or will be written again.
        self.checkpoint_step = min(self.checkpoint_step, step)
        self._held = {host: one for host, one in self._held.items() if self._is_past_of_now(one.generation, one.step)}

    def save(self, generation: int, step: int) -> None:
        """A generation's checkpoint of this step is complete."""
        if self._is_past_of_now(generation, step):
            self.checkpoint_step = max(self.checkpoint_step, step)

    def distrust(self, place: SnapshotPlace) -> None:
        """A generation could not go on from this snapshot: it is not tried again."""
        held = self._held.get(place.host)
        if held is not None and held.step == place.step:
            del self._held[place.host]
            # What it is told of late was overwritten by that one.
            self._distrusted[place.host] = (held.generation, held.step)

    def distrust_host(self, host: str) -> None:
        """What this host holds may be wrong; what it takes later is looked at anew."""
        held = self._held.pop(host, None)
        if held is not None:
            self._distrusted[host] = (held.generation, held.step)

    def newest(self, hosts: Iterable[str]) -> SnapshotPlace | None:
        """The newest snapshot that may be restored from one of these hosts; the first of them that holds it.

        Returns:
            None when there is none, or when a checkpoint is newer.
        """
        best: SnapshotPlace | None = None
        for host in hosts:
            held = self._held.get(host)
            if held is not None and (best is None or held.step > best.step):
                best = SnapshotPlace(held.step, host)
        return None if best is None or best.step < self.checkpoint_step else best

    def may_restore(self, generation: int, step: int) -> bool:
        """Whether a snapshot, found in some memory, belongs to the past of the newest generation."""
        return self._is_past_of_now(generation, step)

    def _is_past_of_now(self, taken_by: int, step: int) -> bool:
        for generation, start in reversed(self._starts):
            if generation <= taken_by:
                return True
            if start < step:
                return False
        return True
