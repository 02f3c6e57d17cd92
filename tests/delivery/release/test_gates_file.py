from pathlib import Path

import pytest

from delivery.release.gates_file import GatesRefused, read_gates

GOOD = """
data: {name: digits}
metric: accuracy
size: {at_most: 1.5MB}
latency: {p50: 5ms, p99: 1s}
slices: {by: [label]}
"""


def _read(text: str, tmp_path: Path):
    (tmp_path / "gates.yaml").write_text(text)
    return read_gates(tmp_path / "gates.yaml")


def test_units_become_numbers(tmp_path: Path):
    gates = _read(GOOD, tmp_path)
    assert (gates.size.at_most, gates.latency.p50, gates.latency.p99) == (1.5e6, 5.0, 1000.0)
    assert gates.metrics.confidence == 0.95 and gates.parity.tolerance == 1e-3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD + "speed: 3", "speed is no setting of a gate"),
        (GOOD.replace("p50", "p51"), r"latency\.p51 is no setting of a gate"),
        (
            GOOD.replace("1.5MB", "1.5"),
            r"size\.at_most=1\.5: must be a number with one of the units B, kB, MB, GB, as 10MB",
        ),
        (GOOD.replace("5ms", "0ms"), r"latency\.p50=0\.0: input should be greater than 0"),
        (GOOD.replace("metric: accuracy", "metric: beauty"), "metric=beauty: "),
        (GOOD.replace("metric: accuracy", ""), "metric is missing: add it"),
        (GOOD.replace("[label]", "[]"), r"slices\.by"),
        (GOOD + "metrics: {confidence: 1.5}", r"metrics\.confidence=1\.5: "),
        (GOOD + "metrics: {margin: .inf}", r"metrics\.margin=inf: "),
        ("a: [", "is no YAML"),
        ("", "holds no gates"),
        ("!!python/object/apply:os.system [id]", "is no YAML"),
    ],
)
def test_what_is_wrong_is_said(text: str, sentence: str, tmp_path: Path):
    with pytest.raises(GatesRefused, match=sentence):
        _read(text, tmp_path)


def test_all_problems_come_at_once(tmp_path: Path):
    with pytest.raises(GatesRefused) as refused:
        _read("metric: beauty\nspeed: 3", tmp_path)
    assert len(str(refused.value).splitlines()) == 3
