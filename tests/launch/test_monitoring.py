"""Dashboards and alert rules: that they can be loaded. That their metrics exist is seen beside those who give them."""

import itertools
import re
import shutil
import subprocess

import pytest
import yaml

from tests.launch.promql import MONITORING, alerts, dashboard, parse, queries, scraped, unanswered

_DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")


def test_alert_rules_have_what_prometheus_and_their_readers_need():
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) > 10
    for rule in rules:
        assert rule.keys() - {"group", "for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "warn")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert "for" not in rule or _DURATION.fullmatch(rule["for"])
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_promtool_accepts_the_rules_and_their_tests():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    for arguments in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts-test.yaml"]):
        checked = subprocess.run([promtool, *arguments], cwd=MONITORING, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_tests_of_the_rules_expect_what_the_rules_say():
    rules = {rule["alert"]: rule for rule in alerts()}
    known = set().union(*({*query.metrics} for what in ("serving", "training") for query in queries(what)))
    tests = yaml.safe_load((MONITORING / "alerts-test.yaml").read_text())["tests"]
    tried = set()
    for test in tests:
        assert {parse(test["name"], one["series"]).metrics.popitem()[0] for one in test["input_series"]} <= known
        for asked in test["alert_rule_test"]:
            rule = rules[asked["alertname"]]
            for expected in asked["exp_alerts"]:
                tried.add(rule["alert"])
                labels = expected["exp_labels"]
                assert labels["severity"] == rule["labels"]["severity"]
                for name, said in expected["exp_annotations"].items():
                    pattern = re.escape(rule["annotations"][name])
                    for label, value in labels.items():
                        pattern = pattern.replace(re.escape(f"{{{{ $labels.{label} }}}}"), re.escape(value))
                    pattern = re.sub(r"\\{\\{\\ \\\$value.*?\\}\\}", r"[0-9.]+\\S*", pattern)
                    assert re.fullmatch(pattern, said), (pattern, said)
    assert len(tried) >= 6


@pytest.mark.parametrize("what", ["serving", "training"])
def test_a_dashboard_has_panels_that_do_not_overlap_and_say_what_they_show(what):
    page = dashboard(what)
    panels = page["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["fieldConfig"]["defaults"]["unit"] and panel["targets"], panel["title"]
    names = {variable["name"] for variable in page["templating"]["list"]}
    used = {
        name
        for panel in panels
        for target in panel.get("targets", ())
        for name in re.findall(r"\$(\w+)", target["expr"])
    }
    assert used - {"__rate_interval"} <= names


def test_a_query_for_what_is_not_there_is_found_out():
    text = '# TYPE good_total counter\ngood_total{model="a"} 1\n# TYPE idle gauge\n'
    assert scraped(text) == {"good_total": {"model"}, "idle": None}
    fine = 'sum by (model) (rate(good_total{model=~"$m",job="j"}[5m])) / on (model) group_left idle{x="y"} > 0.5'
    assert unanswered([parse("a", fine, "{{model}}")], text) == []
    for wrong, shown in [
        ("god_total > 1", ""),
        ('good_total{version="1"}', ""),
        ("sum by (version) (good_total)", ""),
        ("good_total", "{{ $labels.version }}"),
    ]:
        assert len(unanswered([parse("a", wrong, shown)], text)) == 1, wrong
    assert all(queries(what) for what in ("serving", "training"))
