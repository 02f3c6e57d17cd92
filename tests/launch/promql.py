"""What dashboards and alert rules ask Prometheus for, and what a scrape has."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

MONITORING = Path("launch/monitoring")
_FUNCTIONS = frozenset(
    ("avg", "changes", "deriv", "histogram_quantile", "increase", "max", "min", "rate", "sum", "vector")
)
_WORDS = frozenset(("and", "by", "group_left", "group_right", "ignoring", "on", "or", "unless", "without"))
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\}|\()?")
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
# Prometheus itself gives every target these.
_OF_TARGETS = frozenset(("job", "instance"))


@dataclass
class Query:
    """One expression.

    Attributes:
        where: The alert or the panel.
        metrics: By name, the labels that it selects them by.
        labels: That it groups by or shows.
    """

    where: str
    metrics: dict[str, set[str]] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)


def parse(where: str, text: str, shown: str = "") -> Query:
    """Takes an expression apart; `shown` has `{{label}}` or `{{ $labels.label }}`."""
    query = Query(where)
    query.labels |= set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", shown))
    text = re.sub(r"\[[^]]*\]", "", re.sub(r'"[^"]*"', '""', text))
    for labels in _GROUPING.findall(text):
        query.labels |= set(re.findall(r"\w+", labels))
    for name, more in _NAME.findall(_GROUPING.sub(" ", text)):
        if name in _FUNCTIONS | _WORDS:
            continue
        assert more != "(", f"{where}: function {name} is not known here"
        query.metrics.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", more))
    assert query.metrics, f"{where} asks for nothing"
    return query


def alerts() -> list[dict[str, Any]]:
    """The rules of alerts.yaml."""
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return [{**rule, "group": group["name"]} for group in groups for rule in group["rules"]]


def dashboard(what: str) -> dict[str, Any]:
    """The dashboard of `serving` or `training`."""
    return json.loads((MONITORING / f"grafana-{what}.json").read_text())


def queries(what: str) -> list[Query]:
    """All that is asked about `serving` or `training`: by its alerts, its panels and the choices above them."""
    found = [
        parse(rule["alert"], rule["expr"], " ".join(rule["annotations"].values()))
        for rule in alerts()
        if rule["group"] == f"phalanx-{what}"
    ]
    page = dashboard(what)
    for panel in page["panels"]:
        for target in panel.get("targets", ()):
            found.append(parse(f"panel {panel['title']}", target["expr"], target["legendFormat"]))
    for variable in page["templating"]["list"]:
        if variable["type"] == "query":
            asked, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            found.append(parse(f"variable {variable['name']}", asked, f"{{{{{label}}}}}"))
    return found


def scraped(text: str) -> dict[str, set[str] | None]:
    """The names that a scrape has, with their labels; None for one of which there is no sample yet."""
    found: dict[str, set[str] | None] = {}
    for family in text_string_to_metric_families(text):
        for suffix in _SUFFIXES.get(family.type, ("",)):
            found[family.name + suffix] = None
        for sample in family.samples:
            found[sample.name] = (found.get(sample.name) or set()) | set(sample.labels)
    return found


def unanswered(asked: list[Query], text: str) -> list[str]:
    """What the queries ask for and a scrape has not."""
    have, missing = scraped(text), list[str]()
    for query in asked:
        known = set(_OF_TARGETS)
        for name, selected in query.metrics.items():
            if name == "up":  # Prometheus's own, of every target
                continue
            if name not in have:
                missing.append(f"{query.where}: {name}")
            labels = have.get(name)
            known |= labels or set()
            if labels is not None and not selected <= labels | _OF_TARGETS:
                missing.append(f"{query.where}: {name} has no {sorted(selected - labels)}")
        if all(have.get(name) is not None for name in query.metrics if name != "up") and not query.labels <= known:
            missing.append(f"{query.where}: no label {sorted(query.labels - known)}")
    return missing
