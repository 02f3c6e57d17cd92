"""The report's tables: checkpoints, evaluations, events, config, environment."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from trainer.observe.number_text import format_bytes, format_duration, format_number
from trainer.report.markup import Markup, element, join
from trainer.report.reading import RunRecord, SavedCheckpoint, is_number

MOST_ROWS = 60
_IN_OTHER_SECTIONS = ("checkpoint_saved", "evaluated", "goodput", "records_skipped")
NOTHING = "\N{EN DASH}"
_BAD = ("failed", "checkpoint_failed", "checkpoint_damaged", "began_anew", "rolled_back")
_NOTABLE = ("resumed", "stopped")


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    text_columns: Sequence[int] = (),
    class_: str | None = None,
) -> Markup:
    """A table of figures, right-aligned but for `text_columns`; scrolls by itself on a narrow page."""
    classes = ["text" if index in text_columns else None for index in range(len(headers))]
    head = element("tr", *[element("th", name, class_=c) for name, c in zip(headers, classes, strict=True)])
    body = [element("tr", *[element("td", v, class_=c) for v, c in zip(row, classes, strict=True)]) for row in rows]
    whole = element("table", element("thead", head), element("tbody", *body), class_=class_)
    return element("div", whole, class_="scroll")


def shortened(rows: list[Any]) -> tuple[list[Any], str]:
    """The last rows and a sentence about those left out."""
    if len(rows) <= MOST_ROWS:
        return rows, ""
    return rows[-MOST_ROWS:], f"The last {MOST_ROWS} of {len(rows):,}."


def checkpoints(saved: Sequence[SavedCheckpoint], began: float | None) -> tuple[Markup, str]:
    """The table of checkpoints and one sentence about them."""
    rows, note = shortened(list(saved))
    cells = [
        (
            f"{item.step:,}",
            element("span", item.state, class_=f"state {item.state}"),
            format_bytes(item.size) if item.size else NOTHING,
            NOTHING if item.duration is None else format_duration(item.duration),
            NOTHING if item.stall is None else format_duration(item.stall),
            _since(item.time, began),
        )
        for item in reversed(rows)
    ]
    kept = [item for item in saved if item.state == "kept"]
    disk = format_bytes(sum(item.size or 0 for item in kept))
    sentence = f"{len(saved):,} written, {len(kept)} kept ({disk})."
    return table(
        ("step", "state", "size", "write", "stall", "at"), cells, text_columns=(1,), class_="compact"
    ), f"{sentence} {note}".strip()


def evaluations(record: RunRecord) -> Markup:
    """All evaluations, newest first, under a fold."""
    rows, note = shortened(record.evaluations)
    names = record.evaluation_metrics()
    several = len(record.splits()) > 1
    cells = []
    for line in reversed(rows):
        values = [format_number(line[name]) if is_number(line.get(name)) else NOTHING for name in names]
        cells.append((f"{line['step']:,}", *([line["split"]] if several else []), *values))
    headers = ("step", *(["split"] if several else []), *(name.replace("_", " ") for name in names))
    summary = element("summary", note or f"All evaluations ({len(record.evaluations):,})")
    return element("details", summary, table(headers, cells, text_columns=(1,) if several else (), class_="compact"))


def events(journal: Sequence[Mapping[str, Any]], began: float | None) -> tuple[Markup, str]:
    """The journal without what other sections show, and one sentence about what was left out."""
    shown = [event for event in journal if event["event"] not in _IN_OTHER_SECTIONS]
    rows, note = shortened(shown)
    several = len({event.get("generation") for event in journal}) > 1
    several_ranks = len({event["rank"] for event in journal if "rank" in event}) > 1
    cells = []
    for event in rows:
        name = event["event"]
        tone = "bad" if name in _BAD else "notable" if name in _NOTABLE else "good" if name == "finished" else None
        label = element("span", name.replace("_", " "), class_=f"event {tone}" if tone else "event")
        generation = [event.get("generation", "")] if several else []
        cells.append((_since(event.get("time"), began), *generation, label, _details(event, several_ranks)))
    headers = ("at", *(["generation"] if several else []), "event", "")
    wide = (len(headers) - 2, len(headers) - 1)
    return table(headers, cells, text_columns=wide, class_="events several" if several else "events"), note


def _details(event: Mapping[str, Any], several_ranks: bool) -> Markup:
    apart = ("time", "event", "generation") if several_ranks else ("time", "event", "generation", "rank")
    pairs = [(key, value) for key, value in event.items() if key not in apart]
    return join(
        *[
            element("span", element("i", key.replace("_", " ")), " ", _measure(key, value), class_="pair")
            for key, value in pairs
            if value is not None
        ]
    )


def clock(seconds: float) -> str:
    """A time since the start, to the second.

    >>> clock(34.6), clock(3 * 86_400 + 3_661)
    ('0:00:34', '3d 1:01:01')
    """
    days, rest = divmod(int(seconds), 86_400)
    text = f"{rest // 3600}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}d {text}" if days else text


def _measure(key: str, value: Any) -> str:
    """A field of an event, with the unit that its name implies."""
    if is_number(value) and key in ("duration", "stall", "seconds", "cost", "mtbf"):
        return format_duration(value)
    if is_number(value) and key == "bytes":
        return format_bytes(value)
    return format_number(value) if isinstance(value, float) else _value(value)


def _since(time: float | None, began: float | None) -> Markup:
    if time is None or began is None:
        return element("span", NOTHING)
    moment = datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    elapsed = max(time - began, 0.0)
    return element("span", clock(elapsed), title=moment)


def settings(content: Mapping[str, Any], loose_title: str) -> Markup:
    """Nested settings as small tables side by side, one for each section.

    Args:
        content: what a config or an environment file holds.
        loose_title: the title over what belongs to no section.
    """
    loose = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
    groups = [(loose_title, loose)] if loose else []
    groups += [(key, value) for key, value in content.items() if isinstance(value, Mapping) and value]
    cards = []
    for title, group in groups:
        rows = [
            element("div", element("dt", key.replace("_", " ")), element("dd", _value(value)))
            for key, value in _flat(group)
        ]
        heading = element("h3", title.replace("_", " "))
        cards.append(element("section", heading, element("dl", *rows), class_="card"))
    return element("div", *cards, class_="cards")


def _flat(group: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in group.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value) or value == int(value):
            return f"{value:g}"
        return f"{value:.6g}"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(str(item) for item in value) or "none"
    return json.dumps(value, ensure_ascii=False) if value else "none"
