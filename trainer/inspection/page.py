"""One self-contained HTML page of the distributions that an inspection found."""

from __future__ import annotations

from trainer.inspection.inspection import FeatureValues, Inspection
from trainer.observe.number_text import format_count, format_number
from trainer.report.bar_chart import BarChart, draw, shares
from trainer.report.document import document, section
from trainer.report.markup import Markup, element
from trainer.report.tables import NOTHING, table

MOST_CHARTS = 400
"""Features of a very wide table that are drawn; the table lists all."""

MOST_LONE_VALUES = 20
"""An integer with no more different values has a bar for each."""


def render(inspection: Inspection, name: str) -> str:
    """The page.

    Args:
        inspection: What was found.
        name: Of the run whose config was inspected.
    """
    return document(
        f"Data of {name} · Phalanx",
        _headline(inspection, name),
        *_labels(inspection),
        section("Features", _feature_note(inspection), _table(inspection)),
        *_distributions(inspection),
        *_duplicates(inspection),
        *_left_out(inspection),
    )


def _headline(inspection: Inspection, name: str) -> Markup:
    facts = [
        ("samples", format_count(inspection.total), "in the training split"),
        ("looked at", format_count(inspection.read), "all" if inspection.is_complete else "evenly by position"),
        ("features", str(len(inspection.features)), f"label {inspection.target}" if inspection.target else "no label"),
        ("duplicates", format_count(inspection.duplicates.count), "of those looked at"),
        ("left out", format_count(inspection.left_out), "records that break a rule"),
    ]
    cells = [
        element("div", element("dt", title), element("dd", value), element("dd", detail, class_="detail"))
        for title, value, detail in facts
    ]
    return element(
        "header",
        element("h1", name),
        element("p", f"The values of data.name={inspection.source}", class_="subject"),
        element("dl", *cells, class_="facts"),
    )


def _labels(inspection: Inspection) -> list[Markup]:
    if not inspection.balance:
        return []
    total = sum(inspection.balance.values())
    ordered = sorted(inspection.balance.items(), key=lambda item: -item[1])
    shown = ordered[:MOST_LONE_VALUES]
    note = f"The {len(shown)} most frequent of {len(ordered):,} classes." if len(shown) < len(ordered) else None
    return [section("Labels", note, shares(inspection.target or "", shown, total, f"{len(ordered):,} classes"))]


def _feature_note(inspection: Inspection) -> str:
    note = "Missing: NaN, infinite, or a category that is missing or unknown."
    if not inspection.is_complete:
        note += f" Of {inspection.read:,} samples out of {inspection.total:,}."
    return note


def _table(inspection: Inspection) -> Markup:
    rows = [
        (
            name,
            type_text(values),
            *(
                NOTHING if one is None else format_number(one)
                for one in (values.min, values.max, values.mean, values.std)
            ),
            f"{100 * values.missing:.3g}%",
            distinct_text(values),
        )
        for name, values in inspection.features.items()
    ]
    return table(("feature", "type", "min", "max", "mean", "std", "missing", "distinct"), rows, text_columns=(0, 1))


def type_text(values: FeatureValues) -> str:
    """`category`, or `float32 [28, 28, 1]`."""
    if values.kind in ("category", "class", "text"):
        return values.kind if not values.shape else f"{values.kind} {list(values.shape)}"
    return f"{values.dtype} {list(values.shape)}" if values.shape else values.dtype


def distinct_text(values: FeatureValues) -> str:
    """The number of different values; a dash for numbers, where most differ."""
    if values.distinct is None:
        return NOTHING
    return f"{'' if values.is_distinct_exact else 'over '}{values.distinct:,}"


def _distributions(inspection: Inspection) -> list[Markup]:
    drawn = [(name, values) for name, values in inspection.features.items() if name not in _shown_as_labels(inspection)]
    if not drawn:
        return []
    charts = [_chart(name, values) for name, values in drawn[:MOST_CHARTS]]
    note = "Height or length: share of the values."
    if len(drawn) > MOST_CHARTS:
        note += f" The first {MOST_CHARTS} of {len(drawn):,} features."
    return [section("Distributions", note, element("div", *charts, class_="charts distributions"))]


def _shown_as_labels(inspection: Inspection) -> set[str | None]:
    return {inspection.target} if inspection.balance else set()


def _chart(name: str, values: FeatureValues) -> Markup:
    few = values.distinct is not None and values.distinct <= MOST_LONE_VALUES and values.is_distinct_exact
    if values.kind in ("category", "class", "text") or (values.kind == "integer" and few):
        if values.kind == "integer":
            frequent = sorted(values.frequent, key=lambda item: int(item[0]))
        else:
            frequent = values.frequent
        left = (values.distinct or 0) - len(frequent)
        note = f"{distinct_text(values)} different" + (f", the {len(frequent)} most frequent" if left > 0 else "")
        return shares(name, frequent, values.count, note)
    if values.histogram is None:
        title = element("figcaption", element("span", name, class_="name"))
        return element("figure", title, element("p", "No finite value.", class_="empty"), class_="chart")
    histogram = values.histogram
    notes = [f"median {format_number(values.quantiles['0.5'])}"]
    if beyond := histogram.below + histogram.above:
        notes.append(f"{100 * beyond / (beyond + sum(histogram.counts)):.2g}% lie further out")
    return draw(BarChart(name, histogram.edges, histogram.counts, ", ".join(notes)))


def _duplicates(inspection: Inspection) -> list[Markup]:
    found = inspection.duplicates
    if not found.count:
        return []
    note = f"{found.count:,} samples equal an earlier one in every feature."
    if len(found.examples) < found.count:
        note += f" The first {len(found.examples)}."
    return [section("Duplicates", note, table(("record", "equals"), found.examples, (0, 1), class_="compact"))]


def _left_out(inspection: Inspection) -> list[Markup]:
    if not inspection.left_out:
        return []
    rows = [(one.file, one.record, one.rule) for one in inspection.left_out_examples]
    note = f"{inspection.left_out:,} break a rule of the source."
    if len(rows) < inspection.left_out:
        note += f" The first {len(rows)}."
    return [section("Left out", note, table(("file", "record", "rule"), rows, (0, 1, 2), class_="compact"))]
