"""Curves as a notebook shows them."""

import math
import re
from xml.etree import ElementTree

import pytest

from launch.notebook.curves import HELD_OUT, TRAINING, draw_curves

TRAIN = [{"step": 10 * n, "loss": 1 / n, "accuracy": 1 - 1 / n, "examples_per_s": 9.0} for n in range(1, 11)]
TEST = [{"step": 100, "split": "test", "loss": 0.2, "accuracy": 0.9}]


def texts(drawing: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(drawing).iter() if element.tag.endswith("text")]


def test_the_loss_comes_first_and_both_have_their_last_values() -> None:
    drawing = draw_curves([{"accuracy": 0.0, "step": 1}, *TRAIN, *TEST])
    shown = [text for text in texts(drawing) if not re.fullmatch(r"[\d.,]+", text)]
    assert shown == ["loss", "held out 0.2000", "training 0.1000", "accuracy", "held out 0.9000", "training 0.9000"]
    assert TRAINING in drawing and HELD_OUT in drawing


def test_the_axis_ends_where_the_run_will() -> None:
    (curve,) = re.findall(rf'd="M([^"]*)"[^>]*stroke="{TRAINING}"', draw_curves(TRAIN[:2], total_steps=1000))[:1]
    x = [float(point.split()[0]) for point in curve.split("L")]
    assert x[1] - x[0] == pytest.approx((380 - 52 - 14) / 100, abs=0.11), "ten of a thousand steps"


def test_values_that_are_not_finite_leave_no_mark_and_nothing_draws_nothing() -> None:
    drawing = draw_curves([*TRAIN, {"step": 110, "loss": math.nan, "accuracy": math.inf}])
    assert not re.search(r"[a-z]{3}", "".join(re.findall(r' d="([^"]*)"', drawing)))
    assert draw_curves([]) == "" and draw_curves([{"step": 1, "time": 2.0}]) == ""
