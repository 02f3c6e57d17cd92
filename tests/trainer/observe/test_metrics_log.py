from pathlib import Path

from trainer.observe.metrics_log import MetricsLog, read_metrics


def test_resume_leaves_one_line_a_step(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (50, 100, 150):
        log.append({"step": step, "loss": 1 / step})
    log.append({"step": 100, "split": "test", "accuracy": 0.9})
    log.close()
    with path.open("ab") as file:
        file.write(b'{"step": 200, "lo')

    resumed = MetricsLog(path)
    assert resumed.truncate_after(100) == 2
    for step in (150, 200):
        resumed.append({"step": step, "loss": 1 / step})
    resumed.close()
    lines = read_metrics(path)
    assert [(line["step"], "split" in line) for line in lines] == [
        (50, False),
        (100, False),
        (100, True),
        (150, False),
        (200, False),
    ]
    assert lines[1]["loss"] == 1 / 100


def test_a_start_without_a_checkpoint_drops_everything(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"step": 0, "split": "test", "accuracy": 0.1})
    log.append({"step": 50, "loss": 1.0})
    assert log.truncate_after(None) == 2
    assert read_metrics(log.path) == []


def test_a_line_is_readable_before_the_file_is_closed(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"step": 1, "loss": 0.5})
    assert read_metrics(log.path) == [{"step": 1, "loss": 0.5}]
