"""What a run says about the records that it leaves out: at the first one, at the end, and in its journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.data.source import SkippedRecord, Source

if TYPE_CHECKING:
    from trainer.recorder import Recorder

EVENT = "records_skipped"
MOST_KEPT = 20  # records named in the journal
MOST_SHOWN = 5


@dataclass(frozen=True)
class Skipped:
    """How many records a run left out, and the first ones of them, sorted.

    Attributes:
        count: of different records, of all splits.
        limit: `data.skip_bad_records`.
        records: at most `MOST_KEPT`.
    """

    count: int
    limit: int
    records: tuple[SkippedRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"count": self.count, "limit": self.limit, "records": [one._asdict() for one in self.records]}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Skipped:
        """From what `to_json` gave."""
        return cls(fields["count"], fields["limit"], tuple(SkippedRecord(**one) for one in fields["records"]))

    def lines(self) -> list[str]:
        """For people: a sentence, and a line for each of the first records."""
        what = "1 record" if self.count == 1 else f"{self.count} records"
        shown = [f"  {place_and_rule(one)}" for one in self.records[:MOST_SHOWN]]
        more = [f"  and {self.count - len(shown)} more"] if self.count > len(shown) else []
        return [f"{what} left out, of {self.limit} that data.skip_bad_records allows:", *shown, *more]


def place_and_rule(record: SkippedRecord) -> str:
    """`train.csv, row 7: it has 2 columns, the header has 3`."""
    return f"{record.file}{', ' if record.record else ''}{record.record}: {record.rule}"


def skipped_of(sources: Iterable[Source]) -> Skipped | None:
    """What the sources have left out so far, a record that several of them met counted once; None for nothing."""
    lists = [source.skipped for source in sources]
    found = sorted({record for one in lists for record in one.records()})
    return Skipped(len(found), max(one.limit for one in lists), tuple(found[:MOST_KEPT])) if found else None


def read_skipped(journal: Sequence[Mapping[str, Any]]) -> Skipped | None:
    """What a run has left out, from its journal; None for nothing.

    A run that goes on meets again only the records that still lie before it, so the largest count is the run's.
    """
    events = [event for event in journal if event["event"] == EVENT]
    if not events:
        return None
    return Skipped.from_json(max(events, key=lambda event: event["count"]))


class SkippedWatch:
    """Tells of the records that a training leaves out.

    Args:
        sources: of the training: the one it learns from and the held-out one.
        recorder: told of them.
    """

    def __init__(self, sources: Sequence[Source], recorder: Recorder) -> None:
        self._recorder = recorder
        # Whoever reads everything at the start finds on every worker the same.
        self._sources = [source for source in sources if recorder.is_chief or not source.in_memory]
        self._told = 0

    def look(self) -> None:
        """Says at the first record that it was left out, and notes the list when it has grown."""
        if sum(len(source.skipped) for source in self._sources) == self._told:
            return
        is_first, self._told = not self._told, sum(len(source.skipped) for source in self._sources)
        found = skipped_of(self._sources)
        assert found is not None, "lists only grow"
        if is_first:
            self._recorder.warn(
                f"left out {place_and_rule(found.records[0])} (data.skip_bad_records={found.limit}; all are listed at "
                "the end)"
            )
        self._recorder.event(EVENT, **found.to_json())

    def conclude(self) -> None:
        """Says how many were left out, and which."""
        self.look()
        if found := skipped_of(self._sources):
            for line in found.lines():
                self._recorder.warn(line)
