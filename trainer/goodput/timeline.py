"""The wall time as a row of tiles: each begins where the one before it ends, and has one phase."""

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from trainer.goodput.phases import PRODUCTIVE


@dataclass(slots=True)
class Tile:
    """A stretch of time in one phase.

    Attributes:
        start, end: in seconds, of one clock for all tiles.
        phase: see `phases`.
        waits: within a productive stretch, the seconds that each rank waited, by phase and rank.
    """

    start: float
    end: float
    phase: str
    waits: dict[tuple[str, int], float] = field(default_factory=dict)

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.start

    def seconds(self) -> dict[str, float]:
        """The seconds of this tile by phase; they add up to its length.

        All ranks wait in each step for the slowest: what counts is the rank that waited longest.
        """
        if not self.waits:
            return {self.phase: self.length}
        longest: dict[str, float] = {}
        for (phase, _), seconds in self.waits.items():
            longest[phase] = max(longest.get(phase, 0.0), seconds)
        whole = sum(longest.values())
        scale = min(1.0, self.length / whole) if whole > 0 else 0.0
        parts = {phase: seconds * scale for phase, seconds in longest.items()}
        return {self.phase: max(0.0, self.length - sum(parts.values())), **parts}


class Timeline:
    """Tiles in order, without gaps but for those that were asked for.

    Attributes:
        tiles: oldest first.
        skipped: seconds that belong to no tile: somebody had stopped the run.
    """

    def __init__(self) -> None:
        self.tiles: list[Tile] = []
        self.skipped = 0.0
        self._end: float | None = None

    @property
    def end(self) -> float | None:
        """Until when all is told; None at the beginning."""
        return self._end

    def begin(self, at: float) -> None:
        """Sets where the first tile begins."""
        if self._end is None:
            self._end = at

    def extend(self, until: float, phase: str) -> float:
        """Adds the time up to `until`; times that lie before the end add nothing.

        Returns:
            The seconds added.
        """
        if self._end is None:
            self._end = until
        start, added = self._end, until - self._end
        if added <= 0:
            return 0.0
        last = self.tiles[-1] if self.tiles else None
        # A productive tile without an end would make what is charged to it spread over days.
        if last is not None and last.phase == phase and last.end == start and last.length < 60.0:
            last.end = until
        else:
            self.tiles.append(Tile(start, until, phase))
        self._end = until
        return added

    def skip(self, until: float) -> None:
        """Leaves the time up to `until` out."""
        if self._end is not None and until > self._end:
            self.skipped += until - self._end
            self._end = until

    def charge(self, phase: str, rank: int, start: float, end: float, seconds: float) -> None:
        """Notes that a rank waited so many seconds between two times, as far as it was in productive tiles.

        What it was spread over is taken to be even.
        """
        width = end - start
        for tile in self._between(start, end):
            if tile.phase != PRODUCTIVE:
                continue
            share = 1.0 if width <= 0 else (min(end, tile.end) - max(start, tile.start)) / width
            key = (phase, rank)
            tile.waits[key] = tile.waits.get(key, 0.0) + max(0.0, share) * seconds

    def relabel(self, start: float, end: float, phases: Collection[str], phase: str) -> float:
        """Gives another phase to what lies between two times and has one of `phases`.

        Returns:
            The seconds that changed.
        """
        self._split(start)
        self._split(end)
        changed = 0.0
        for tile in self._between(start, end):
            if tile.phase in phases and tile.start >= start and tile.end <= end:
                tile.phase, tile.waits = phase, {}
                changed += tile.length
        return changed

    def _split(self, at: float) -> None:
        index = self._index(at)
        if index is None:
            return
        tile = self.tiles[index]
        if not tile.start < at < tile.end:
            return
        share = (at - tile.start) / tile.length
        rest = Tile(at, tile.end, tile.phase, {key: value * (1 - share) for key, value in tile.waits.items()})
        tile.end, tile.waits = at, {key: value * share for key, value in tile.waits.items()}
        self.tiles.insert(index + 1, rest)

    def _between(self, start: float, end: float) -> Iterator[Tile]:
        index = self._index(start)
        for tile in self.tiles[0 if index is None else index :]:
            if tile.start > end:
                return
            yield tile

    def _index(self, at: float) -> int | None:
        """The last tile that begins at or before a time."""
        index = bisect_right(self.tiles, at, key=lambda tile: tile.start) - 1
        return index if index >= 0 else None
