"""The top of the report: what came out, and what it took."""

import math
import statistics
from datetime import datetime, timezone
from typing import Any

from trainer.best_metric import lower_is_better
from trainer.observe.number_text import format_count, format_duration, format_number
from trainer.report.markup import Markup, element, join
from trainer.report.reading import RunRecord, is_number
from trainer.report.wall_time import WallTime, status

_STATUS_TEXT = {"finished": "finished", "stopped": "stopped", "failed": "failed", "unfinished": "not finished"}


def headline(record: RunRecord, wall: WallTime) -> Markup:
    """The name, the result in large figures and the facts under it."""
    state = status(record.journal)
    facts = [_result(record), *_final_losses(record), *_progress(record), *_speed(record, wall)]
    return element(
        "header",
        element(
            "p",
            element("span", _STATUS_TEXT[state], class_=f"status {state}"),
            element("span", _when(wall)),
            class_="dateline",
        ),
        element("h1", record.name),
        element("p", _subject(record), class_="subject"),
        element("dl", *[_fact(*fact) for fact in facts if fact], class_="facts"),
    )


def result_metric(record: RunRecord) -> str | None:
    """The metric that a run is judged by: the one that picks its best checkpoint, else accuracy, else the first."""
    names = record.evaluation_metrics() or record.training_metrics()
    wanted = (record.config.get("checkpoint") or {}).get("best_metric")
    for name in (wanted, "accuracy", *names[1:], *names[:1]):
        if name in names:
            return name
    return None


def _fact(name: str, value: str, detail: str = "", leading: bool = False) -> Markup:
    parts = (element("dt", name), element("dd", value), element("dd", detail, class_="detail"))
    return element("div", *parts, class_="lead" if leading else None)


def _result(record: RunRecord) -> tuple[str, str, str, bool] | None:
    metric = result_metric(record)
    if metric is None:
        return None
    lines = [line for line in record.evaluations or record.training if is_number(line.get(metric))]
    if not lines:
        return None
    last = lines[-1]
    name = f"{last.get('split', 'training')} {metric.replace('_', ' ')}"
    good = [line for line in lines if math.isfinite(line[metric])]
    detail = ""
    if len(good) > 1:
        best = (min if lower_is_better(metric) else max)(good, key=lambda line: line[metric])
        is_last = best[metric] == last[metric]
        detail = "the best of the run" if is_last else f"best {format_number(best[metric])} at step {best['step']:,}"
    return name, format_number(last[metric]), detail, True


def _final_losses(record: RunRecord) -> list[tuple[str, str, str]]:
    losses = []
    held_out = f"{record.evaluations[-1]['split']} loss" if record.evaluations else ""
    for lines, name in ((record.training, "training loss"), (record.evaluations, held_out)):
        values = [line["loss"] for line in lines if is_number(line.get("loss"))]
        if values:
            detail = f"from {format_number(values[0])}" if len(values) > 1 else ""
            losses.append((name, format_number(values[-1]), detail))
    return losses


def _progress(record: RunRecord) -> list[tuple[str, str, str]]:
    lines = record.training or record.evaluations
    if not lines:
        return []
    examples = record.training[-1].get("examples") if record.training else None
    detail = f"{format_count(examples)} samples" if is_number(examples) else ""
    return [("Steps", f"{max(line['step'] for line in lines):,}", detail)]


def _speed(record: RunRecord, wall: WallTime) -> list[tuple[str, str, str]]:
    facts = []
    if wall.duration:
        detail = f"and {format_duration(wall.pauses)} paused" if wall.pauses >= 1 else "wall time"
        facts.append(("Duration", format_duration(wall.duration), detail))
    share = record.account.goodput
    if share is not None:
        facts.append(("Goodput", f"{100 * share:.1f}%", _goodput_detail(record)))
    rates = [line["examples_per_s"] for line in record.training if is_number(line.get("examples_per_s"))]
    if rates:
        waits = [line["data_wait"] for line in record.training if is_number(line.get("data_wait"))]
        detail = f"data wait {100 * statistics.median(waits):.1f}%" if waits else "median"
        facts.append(("Samples/s", format_count(statistics.median(rates)), detail))
    return facts


def _goodput_detail(record: RunRecord) -> str:
    count = len(record.account.failures)
    if not count:
        return "time in steps that count"
    return f"{count} failure{'s' if count > 1 else ''} cost {format_duration(record.account.failure_cost_s)}"


def _subject(record: RunRecord) -> Markup:
    """`mlp on mnist_sample, classification, adam at 0.001, seed 0`: what was trained, from the config."""

    def named(section: str) -> Any:
        value = record.config.get(section)
        return value.get("name") if isinstance(value, dict) else None

    parts = []
    if named("model"):
        parts.append(f"{named('model')} on {named('data')}" if named("data") else str(named("model")))
    parts += [str(named("task")).replace("_", " ")] if named("task") else []
    if named("optimizer"):
        rate = record.config["optimizer"].get("learning_rate")
        parts.append(f"{named('optimizer')} at {rate:g}" if is_number(rate) else str(named("optimizer")))
    seed = (record.config.get("train") or {}).get("seed")
    parts += [f"seed {seed}"] if seed is not None else []
    return join(" · ".join(parts))


def _when(wall: WallTime) -> str:
    if wall.began is None:
        return "nothing recorded yet"
    return datetime.fromtimestamp(wall.began, timezone.utc).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
