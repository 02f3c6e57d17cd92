import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.observe.trace import Trace, read_trace


def test_spans_say_what_where_and_how_long(tmp_path: Path):
    trace = Trace(tmp_path / "3.jsonl", rank=3)
    with trace.span("evaluate", step=500), trace.span("data"):
        pass
    trace.add("startup", start=12.25, duration=2.5)
    trace.close()
    data, evaluate, startup = read_trace(trace.path)
    assert (evaluate["name"], evaluate["step"], evaluate["rank"]) == ("evaluate", 500, 3)
    assert "step" not in data
    assert evaluate["start"] <= data["start"] and evaluate["duration"] >= data["duration"] >= 0
    assert startup == {"name": "startup", "start": 12.25, "duration": 2.5, "rank": 3}


def test_a_phase_that_raises_is_timed(tmp_path: Path):
    trace = Trace(tmp_path / "0.jsonl")
    with pytest.raises(KeyError), trace.span("checkpoint"):
        raise KeyError
    trace.close()
    assert [span["name"] for span in read_trace(trace.path)] == ["checkpoint"]


def test_spans_beyond_the_detailed_ones_are_bundled_with_exact_totals(tmp_path: Path):
    trace = Trace(tmp_path / "0.jsonl", detailed=10)
    for index in range(100):
        trace.add("step", start=float(index), duration=0.5, step=index)
    trace.add("data", start=7.0, duration=0.25)
    trace.flush()
    trace.close()
    lines = read_trace(trace.path)
    assert len(lines) == 12
    bundle = lines[10]
    assert (bundle["start"], bundle["end"], bundle["count"], bundle["step"]) == (10.0, 99.5, 90, 10)
    assert sum(line["duration"] for line in lines if line["name"] == "step") == pytest.approx(50)
    assert "count" not in lines[11]


def test_spans_survive_sigkill(tmp_path: Path):
    program = """
import sys, pathlib
from trainer.observe.trace import Trace
trace = Trace(pathlib.Path(sys.argv[1]))
trace.add("step", 1.0, 2.0, 3)
sys.stdin.read()
"""
    path = tmp_path / "0.jsonl"
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE)
    try:
        _wait_for_line(path, child)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    assert read_trace(path) == [{"name": "step", "start": 1.0, "duration": 2.0, "step": 3, "rank": 0}]
    with path.open("ab") as file:
        file.write(b'{"name": "ste')
    again = Trace(path)
    again.add("data", 5.0, 1.0)
    again.close()
    assert [span["name"] for span in read_trace(path)] == ["step", "data"]


def _wait_for_line(path: Path, child: subprocess.Popen, within_s: float = 30) -> None:
    import time

    end = time.monotonic() + within_s
    while not (path.exists() and path.stat().st_size):
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.02)
