from pathlib import Path

import pytest

from trainer.report.reading import read_run


def test_reads_what_the_recorders_wrote(finished_run: Path):
    record = read_run(finished_run)
    assert record.name == "mnist"
    assert record.config["model"]["hidden"] == [128]
    assert record.environment["host"] == "workbench"
    assert record.training_metrics() == ["loss", "accuracy"]
    assert record.splits() == ["test"]
    assert [line["step"] for line in record.training] == list(range(50, 6251, 50))
    assert list(record.spans) == [0]
    states = {item.step: item.state for item in record.checkpoints}
    assert states == {1000: "removed", 2000: "removed", 3000: "damaged", 4000: "removed", 4200: "kept"} | {
        5000: "kept",
        6000: "kept",
    }
    assert all(item.size == 12_347 for item in record.checkpoints)


def test_damaged_files_are_as_good_as_missing(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("a: [unclosed")
    (tmp_path / "environment.json").write_bytes(b"\xff\xfe")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "lo')
    record = read_run(tmp_path)
    assert (record.config, record.environment, record.training) == ({}, {}, [])


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no run folder at .*nowhere"):
        read_run(tmp_path / "nowhere")
