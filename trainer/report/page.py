"""The report as one HTML file: no network, no library, readable without its script."""

import math
import statistics
from pathlib import Path
from typing import Any

from trainer.atomic_file import write_whole
from trainer.intervals.choice import newest_choices, sentence
from trainer.observe.number_text import format_count, format_number
from trainer.report import gantt, tables, time_spent
from trainer.report.axis import finite
from trainer.report.document import document, section
from trainer.report.headline import headline
from trainer.report.line_chart import LineChart, Series, draw
from trainer.report.markup import Markup, element, escape, join
from trainer.report.reading import RunRecord, is_number, read_run
from trainer.report.wall_time import WallTime, wall_time
from trainer.skipped import read_skipped

_HELD_OUT_COLORS = ("held-out", "other")
_LOSS_ORDERS = 1.3  # a loss that falls by more than twentyfold gets a logarithmic axis


def write_report(run: Path) -> Path:
    """Writes `report.html` into a run folder, over the one before it in one atomic step.

    Works on a run in any state: finished, going on, killed, or with nothing logged yet.

    Args:
        run: the run folder.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the page cannot be written there.
    """
    path = run / "report.html"
    write_whole(path, render(read_run(run)))
    return path


def render(record: RunRecord) -> str:
    """The page of a run."""
    wall = wall_time(record)
    return document(
        f"{record.name} · Phalanx",
        headline(record, wall),
        *_curves(record),
        _time_spent(record),
        _phases(record),
        _checkpoints(record, wall),
        *_skipped_records(record),
        _events(record, wall),
        _config(record),
        _environment(record),
        script="page.js",
    )


def _curves(record: RunRecord) -> list[Markup]:
    if not record.training and not record.evaluations:
        return [section("Curves", None, element("p", "Nothing is logged yet.", class_="empty"))]
    marks = _marks(record)
    last = max(line["step"] for line in record.training + record.evaluations)
    loss = LineChart(
        "Loss", _metric_series(record, "loss"), marks=marks, orders=_LOSS_ORDERS, tall=True, last_step=last
    )
    note = f"Thin: each of the {len(record.training):,} logged values. Thick: their moving average."
    sections = [section("Loss", note if len(record.training) >= 40 else None, draw(loss))]
    names = dict.fromkeys(record.training_metrics() + record.evaluation_metrics())
    metrics = [
        LineChart(name.replace("_", " "), _metric_series(record, name), marks=marks, last_step=last)
        for name in names
        if name != "loss"
    ]
    if metrics or record.evaluations:
        charts = element("div", *[draw(chart) for chart in metrics], class_="charts") if metrics else None
        splits = " and ".join(record.splits())
        note = f"On the {splits} split and on the training batches." if splits else None
        sections.append(section("Metrics", note, charts, tables.evaluations(record) if record.evaluations else None))
    pace = [chart for chart in _pace(record, marks, last) if chart.series]
    if pace:
        note = "Measured between two logged lines."
        sections.append(section("Pace", note, element("div", *[draw(chart) for chart in pace], class_="charts small")))
    return sections


def _metric_series(record: RunRecord, name: str) -> list[Series]:
    series = []
    training = _points(record.training, name)
    if training:
        series.append(Series("training", training, "train", smooth=True))
    for index, split in enumerate(record.splits()):
        points = _points([line for line in record.evaluations if str(line["split"]) == split], name)
        if points:
            series.append(Series(split, points, _HELD_OUT_COLORS[index % len(_HELD_OUT_COLORS)], dots=True))
    return series


def _points(lines: list[dict[str, Any]], name: str, factor: float = 1.0) -> list[tuple[float, float]]:
    return [(float(line["step"]), factor * float(line[name])) for line in lines if is_number(line.get(name))]


def _pace(record: RunRecord, marks: list[tuple[float, str]], last: int) -> list[LineChart]:
    def series(name: str, field: str, color: str, factor: float = 1.0, smooth: bool = True) -> list[Series]:
        points = _points(record.training, field, factor)
        return [Series(name, points, color, smooth)] if points else []

    speed = series("all ranks", "examples_per_s", "train")
    wait = series("waiting", "data_wait", "held-out", 100.0)
    rate = series("rate", "learning_rate", "other", smooth=False)
    return [
        LineChart(
            "Throughput",
            speed,
            unit="samples/s",
            marks=marks,
            from_zero=True,
            last_step=last,
            summary=f"median {format_count(_median(speed))}",
        ),
        LineChart(
            "Data wait",
            wait,
            unit="of time",
            marks=marks,
            from_zero=True,
            percent=True,
            last_step=last,
            summary=f"median {_median(wait):.1f}%",
        ),
        LineChart("Learning rate", rate, marks=marks, from_zero=True, last_step=last, summary=_ending(rate)),
    ]


def _ending(series: list[Series]) -> str:
    points = [point for line in series for point in finite(line.points)]
    return f"ends at {format_number(points[-1][1])}" if points else ""


def _median(series: list[Series]) -> float:
    values = [value for line in series for _, value in finite(line.points)]
    return statistics.median(values) if values else math.nan


def _marks(record: RunRecord) -> list[tuple[float, str]]:
    """Steps at which the run came back from a stop, a crash or a bad loss."""
    names = {"resumed": "resumed", "rolled_back": "rolled back"}
    return [
        (float(event["step"]), names[event["event"]])
        for event in record.journal
        if event["event"] in names and is_number(event.get("step"))
    ]


def _time_spent(record: RunRecord) -> Markup:
    return section("Wall time", time_spent.note(record.account), time_spent.draw(record.account))


def _phases(record: RunRecord) -> Markup:
    if not record.spans:
        return section("Phases", None, element("p", "No trace was recorded.", class_="empty"))
    note = "Where the time of each rank went. Height: the share of that moment which the phase took."
    return section("Phases", note, gantt.draw(record.spans))


def _checkpoints(record: RunRecord, wall: WallTime) -> Markup:
    chosen = [
        element("p", f"Chosen: {sentence(choice)}.", class_="chart-note") for choice in newest_choices(record.journal)
    ]
    if not record.checkpoints:
        return section("Checkpoints", None, element("p", "None was written.", class_="empty"), *chosen)
    content, note = tables.checkpoints(record.checkpoints, wall.began)
    return section("Checkpoints", note, content, *chosen)


def _skipped_records(record: RunRecord) -> list[Markup]:
    skipped = read_skipped(record.journal)
    if skipped is None:
        return []
    rows = [(one.file, one.record, one.rule) for one in skipped.records]
    note = f"{skipped.count:,} left out, of {skipped.limit:,} that data.skip_bad_records allows."
    if skipped.count > len(rows):
        note += f" The first {len(rows)}."
    content = tables.table(("file", "record", "rule"), rows, text_columns=(0, 1, 2), class_="compact")
    return [section("Skipped records", note, content)]


def _events(record: RunRecord, wall: WallTime) -> Markup:
    if not record.journal:
        return section("Events", None, element("p", "The journal is empty.", class_="empty"))
    content, note = tables.events(record.journal, wall.began)
    return section("Events", note or None, content)


def _config(record: RunRecord) -> Markup:
    if not record.config:
        return section("Config", None, element("p", "There is no config.yaml.", class_="empty"))
    note = join("Again: ", element("code", "phalanx train config.yaml"), " with the file in this folder.")
    return section("Config", note, tables.settings(record.config, "general"))


def _environment(record: RunRecord) -> Markup:
    if not record.environment:
        return section("Environment", None, element("p", "There is no environment.json.", class_="empty"))
    return section("Environment", None, tables.settings(record.environment, escape("machine")))
