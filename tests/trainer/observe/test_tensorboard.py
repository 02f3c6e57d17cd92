import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.observe import tensorboard
from trainer.observe.tensorboard import TensorBoardWriter


def _read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_scalars_are_read_back_by_tensorboard(tmp_path: Path):
    writer = TensorBoardWriter(tmp_path)
    writer.scalars(50, {"train/loss": 0.5, "train/accuracy": 0.25})
    writer.scalars(100, {"train/loss": float("nan")})
    writer.close()
    events = _read(tmp_path)
    assert events.Tags()["scalars"] == ["train/loss", "train/accuracy"]
    loss = events.Scalars("train/loss")
    assert [event.step for event in loss] == [50, 100]
    assert loss[0].value == 0.5 and np.isnan(loss[1].value)


def test_a_resumed_run_draws_one_line_without_a_zigzag(tmp_path: Path):
    first = TensorBoardWriter(tmp_path)
    for step in (50, 100, 150, 200):
        first.scalars(step, {"train/loss": 1.0})
    first.close()
    second = TensorBoardWriter(tmp_path, restored_step=100)
    for step in (150, 200, 250):
        second.scalars(step, {"train/loss": 2.0})
    second.close()
    third = TensorBoardWriter(tmp_path, restored_step=200)
    third.close()
    assert first.path.name < second.path.name < third.path.name
    assert [(event.step, event.value) for event in _read(tmp_path).Scalars("train/loss")] == [
        (50, 1.0),
        (100, 1.0),
        (150, 2.0),
        (200, 2.0),
    ]


def test_a_second_start_from_nothing_forgets_the_first(tmp_path: Path):
    for value in (1.0, 2.0):
        writer = TensorBoardWriter(tmp_path)
        writer.scalars(50, {"train/loss": value})
        writer.close()
    assert [event.value for event in _read(tmp_path).Scalars("train/loss")] == [2.0]


def test_histogram_text_and_graph(tmp_path: Path):
    function = tf.function(lambda x: x + 1).get_concrete_function(tf.TensorSpec([2]))
    values = np.array([[0.0, 1.0, 2.0], [3.0, np.inf, np.nan]])
    writer = TensorBoardWriter(tmp_path)
    writer.histograms(10, {"dense/kernel": values, "all/nan": np.array([np.nan])})
    writer.text("config", "- seed: 0")
    writer.graph(function.graph.as_graph_def().SerializeToString())
    writer.close()
    events = _read(tmp_path)
    histogram = events.Histograms("dense/kernel")[0].histogram_value
    assert (histogram.num, histogram.min, histogram.max, sum(histogram.bucket)) == (4, 0.0, 3.0, 4)
    assert events.Tensors("config")[0].tensor_proto.string_val == [b"- seed: 0"]
    assert events.Graph().node


def test_a_full_disk_is_reported_once_and_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "events").symlink_to("/dev/full")
    monkeypatch.setattr(tensorboard, "_file_name", lambda folder: "events")
    failures: list[Exception] = []
    writer = TensorBoardWriter(tmp_path, on_failure=failures.append)
    for step in range(3000):
        writer.scalars(step, {"loss": 1.0})
    writer.close()
    assert len(failures) == 1 and "No space left" in str(failures[0])


@pytest.mark.processes
def test_the_tensorboard_package_is_not_imported(tmp_path: Path):
    program = (
        "import sys, pathlib; from trainer.observe.tensorboard import TensorBoardWriter as W\n"
        "w = W(pathlib.Path(sys.argv[1])); w.scalars(1, {'a': 1.0}); w.close()\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'tensorboard'])"
    )
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
