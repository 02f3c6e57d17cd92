"""Real conversions of a small real run, each in a child process as in production."""

import json
from pathlib import Path

import numpy as np
import pytest

from delivery.shrink.artefact import difference_of, make_artefact
from delivery.shrink.child import ChildFailed, run_child
from delivery.shrink.reference import Reference
from launch.cli import run
from launch.config import load_config
from trainer.run_folder import RunFolder

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.processes


def results_of(run_folder: Path) -> dict:
    return json.loads((run_folder / "export" / "litert" / "results.json").read_text())


def test_a_pruned_model_is_fine_tuned_as_a_run_and_measured(digits_run: Path, capfd: pytest.CaptureFixture):
    options = ["--quantize", "int8", "--prune", "0.5", "--keep", "0.9"]
    assert run(["export", str(digits_run), "--to", "litert", *options]) == 0
    results, folder = results_of(digits_run), digits_run / "export" / "litert"
    (artefact,) = (one for one in results["artefacts"] if one["name"].startswith("pruned"))
    assert artefact["refused"] is None
    assert artefact["share_kept"] >= 0.9 and artefact["latency_ms"] > 0
    assert artefact["compressed_bytes"] < artefact["bytes"] == (folder / artefact["file"]).stat().st_size
    assert artefact["name"] in capfd.readouterr().out and "<svg" in (folder / "results.svg").read_text()

    # What was fine-tuned is an ordinary run that began with the pruned weights.
    tuned = next(digits_run.glob("shrink/step-*/pruned-*ep"))
    events = [json.loads(line) for line in (tuned / "journal.jsonl").read_text().splitlines()]
    assert any(event["event"] == "warm_started" and not event["skipped"] for event in events)


def test_weights_that_are_few_values_stay_so_through_fine_tuning_and_compress(digits_run: Path):
    from delivery.shrink.request import Request, Ties
    from delivery.shrink.shrink import shrink_run
    from trainer.checkpoint.store import CheckpointStore
    from trainer.stop_request import StopRequest
    from trainer.training import run_training

    tuned = []

    def train(config):
        tuned.append(config)
        run_training(config, RunFolder(config.run.folder), StopRequest())

    config, folder = load_config(digits_run / "config.yaml"), RunFolder(digits_run)
    request = Request(quantize=("float32",), epochs=4, keep=0.9, ties=Ties(8, (2, 4)))
    (artefact,) = shrink_run(config, folder, request, train, lambda line: None).artefacts
    assert artefact.refused is None and artefact.name == "2of4-8values-float32"
    assert (artefact.compressed_size or 1) < 0.3 * (artefact.size or 0)  # of weights of any value 0.93 is left
    arrays = CheckpointStore(RunFolder(tuned[0].run.folder).checkpoints, 1).newest_verified().arrays
    (kernel,) = (value for name, value in arrays.items() if name.startswith("model/") and "hidden_0/kernel" in name)
    assert len(np.unique(kernel)) <= 9 and np.mean(kernel == 0) >= 0.5
    assert results_of(digits_run)["artefacts"][0]["tied"] == "2of4-8values"


def test_a_model_that_lost_its_weights_or_cannot_run_is_refused(digits_run: Path, tmp_path: Path):
    reference = Reference(load_config(digits_run / "config.yaml"), RunFolder(digits_run))
    work, target = tmp_path / "work", tmp_path / "target"
    work.mkdir()
    target.mkdir()
    reference.save(work)
    good = make_artefact(reference, work, "float32", reference.quality, 0.95, target)
    assert good.refused is None and good.difference is not None and good.difference < 1e-5

    expected, reference.outputs = reference.outputs, np.roll(reference.outputs, 1, axis=0)
    foreign = make_artefact(reference, work, "float32", reference.quality, 0.95, tmp_path)
    assert foreign.refused is not None and "answers are off" in foreign.refused and foreign.path is None
    reference.outputs = expected

    (work / "int8.tflite").write_bytes(b"no model")
    broken = make_artefact(reference, work, "int8", reference.quality, 0.95, target)
    assert broken.refused is not None and broken.refused.startswith("it cannot be run")
    assert [path.name for path in target.iterdir()] == ["float32.tflite"]
    assert difference_of(np.full(4, np.nan), np.arange(4.0)) != difference_of(np.full(4, np.nan), np.arange(4.0))  # NaN


def test_a_child_that_crashes_is_told_from_one_that_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "crashing.py").write_text("import os\nos.abort()\n")
    with pytest.raises(ChildFailed, match="SIGABRT"):
        run_child("crashing", {})
    (tmp_path / "failing.py").write_text("raise SystemExit('no such op')\n")
    with pytest.raises(ChildFailed, match="no such op"):
        run_child("failing", {})
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(ChildFailed, match="more than"):
        run_child("endless", {}, timeout_s=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quantize", "int2"], "must be one of float32"),
        (["--prune", "1.5"], "between 0 and 1"),
        (["--budget", "small"], "is not a size"),
        (["--budget", "1MB", "--prune", "0.5"], "leave one out"),
        (["--keep", "95"], "at most 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(options, message, digits_run, capfd):
    assert run(["export", str(digits_run), "--to", "litert", *options]) == 2
    assert message in capfd.readouterr().err
