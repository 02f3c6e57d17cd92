"""Drift on real data: flights and digits, with shifts that are put in."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from delivery.drift.adwin import Adwin
from delivery.drift.gauges import DriftCollector
from delivery.drift.monitor import DriftMonitor
from delivery.drift.report import drift_page
from delivery.drift.training_sample import references_of
from delivery.package.training_sample import TRAINING_SAMPLE, write_training_sample
from launch.cli import run


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    from sklearn.datasets import load_digits

    return np.random.default_rng(0).permutation(load_digits().images.astype(np.float32) / 16)


def _feed(monitor: DriftMonitor, images: np.ndarray, classes: np.ndarray) -> None:
    for start in range(0, len(images), 10):
        monitor.observe({"image": images[start : start + 10]}, {"classes": classes[start : start + 10]})


def test_silent_without_a_shift_and_soon_alarmed_with_one(images: np.ndarray):
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 10, len(images))
    monitor = DriftMonitor(references_of({"image": images[:900], "prediction:classes": classes[:900]}))
    _feed(monitor, images[900:1050], classes[900:1050])
    assert not monitor.check().scores, "too few samples to judge"
    _feed(monitor, images[1050:], classes[1050:])
    assert monitor.check().scores and not monitor.check().alarms

    darker = rng.integers(0, len(images), 500)
    _feed(monitor, 0.7 * images[darker], classes[darker])
    alarms = monitor.check().alarms
    assert "image.mean" in alarms and "prediction:classes" not in alarms
    assert monitor.check().changes["image.mean"] >= 1, "the stream itself has changed too"

    one_class = np.full(600, 3)
    _feed(monitor, images[:600], one_class)
    assert "prediction:classes" in monitor.check().alarms


def test_memory_is_bounded_and_odd_requests_are_borne(images: np.ndarray):
    monitor = DriftMonitor(
        references_of({"image": images[:500], "carrier": np.array([b"AA", b"UA"] * 250)}), window=300
    )
    monitor.observe({"image": np.full((5, 8, 8), np.nan), "carrier": np.array(["AA"] * 5, object)}, {})
    monitor.observe({"carrier": np.zeros(3)}, {"unknown": np.zeros((3, 2))})
    monitor.observe({}, {})
    for _ in range(40):
        monitor.observe({"image": images[:50], "carrier": np.array([b"ZZ"] * 50, object)}, {})
    found = monitor.check()
    assert found.num_compared == 300 and found.num_seen == 8 + 2000
    assert found.alarms[0] == "carrier", "a name that training never saw"


def test_gauges_and_page(images: np.ndarray):
    from prometheus_client import CollectorRegistry, generate_latest

    monitor = DriftMonitor(references_of({"image": images[:900]}))
    _feed(monitor, 0.5 * images[900:1400], np.zeros(500, int))
    registry = CollectorRegistry()
    registry.register(DriftCollector(lambda: {("digits", 3): monitor}))
    text = generate_latest(registry).decode()
    assert 'phalanx_drift_alarm{model="digits",version="3"} 1.0' in text
    assert 'phalanx_drift_ks{column="image_mean",model="digits",version="3"}' in text
    page = drift_page("<digits>", monitor, monitor.check())
    assert "&lt;digits&gt;" in page and "<script" not in page and "image.mean" in page and "have drifted" in page


def test_the_command_compares_a_file(images: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture):
    sample = tmp_path / "model" / TRAINING_SAMPLE
    sample.parent.mkdir(parents=True)
    write_training_sample(sample, {"image": images[:900]}, {})
    live = tmp_path / "live.npz"
    np.savez(live, image=images[900:])
    arguments = ["drift", str(tmp_path / "model"), "--samples", str(live), "--json"]
    assert run(arguments) == 0 and json.loads(capfd.readouterr().out)["drifted"] == []
    np.savez(live, image=0.6 * images[900:])
    assert run([*arguments, "--html", str(tmp_path / "drift.html")]) == 0
    assert (
        "image.mean" in json.loads(capfd.readouterr().out)["drifted"]
        and (tmp_path / "drift.html").stat().st_size > 1000
    )
    np.savez(live, image=images[:20])
    assert run(arguments) == 2 and "at least 200" in capfd.readouterr().err
    np.savez(live, image=np.array([{}], object))
    assert run(arguments) == 2 and "Python objects" in capfd.readouterr().err


def test_adwin_sees_a_change_and_seldom_anything_else():
    rng = np.random.default_rng(0)
    steady = Adwin()
    assert not any(steady.add(value) for value in rng.uniform(0, 1, 3000))
    assert steady.count == 3000 and abs(steady.mean - 0.5) < 0.03
    changes = [steady.add(value) for value in rng.uniform(0.3, 1, 600)]
    assert any(changes[:200])
    assert steady.count < 2000 and steady.mean > 0.6
