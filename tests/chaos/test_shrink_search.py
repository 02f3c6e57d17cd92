"""The whole search for the smallest model: it prunes, fine-tunes and converts more than the suite has time for."""

import json
from pathlib import Path

import numpy as np
import pytest

from delivery.shrink.reference import Reference
from launch.cli import run
from launch.config import load_config
from tests.delivery.shrink.digits_run import train_digits
from trainer.run_folder import RunFolder

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.processes


def test_a_search_finds_the_smallest_model_and_measures_it(
    chaos_long: bool, tmp_path: Path, capfd: pytest.CaptureFixture
):
    if not chaos_long:
        pytest.skip("takes minutes: make chaos")
    digits_run = train_digits(tmp_path)
    options = ["--quantize", "int8", "--quantize", "int4", "--budget", "8kB", "--keep", "0.9"]
    assert run(["export", str(digits_run), "--to", "litert", *options]) == 0
    folder = digits_run / "export" / "litert"
    results = json.loads((folder / "results.json").read_text())
    accepted = {one["name"]: one for one in results["artefacts"] if one["refused"] is None}
    chosen = accepted[results["chosen"]]
    assert chosen["bytes"] == min(one["bytes"] for one in accepted.values() if one["bytes"] <= 8000)
    assert chosen["share_kept"] >= 0.9 and chosen["latency_ms"] > 0 and chosen["compressed_bytes"] < chosen["bytes"]
    assert (folder / "model.tflite").read_bytes() == (folder / chosen["file"]).read_bytes()
    assert {path.name for path in folder.glob("*.tflite")} == {one["file"] for one in accepted.values()} | {
        "model.tflite"
    }
    assert "chosen" in capfd.readouterr().out and "<svg" in (folder / "results.svg").read_text()

    # The file itself, beside the table.
    from ai_edge_litert.interpreter import Interpreter

    reference = Reference(load_config(digits_run / "config.yaml"), RunFolder(digits_run))
    call = Interpreter(str(folder / "model.tflite")).get_signature_runner("serving_default")
    images = reference.samples["image"]
    outputs = np.stack([call(image=images[i : i + 1])["outputs"][0] for i in range(len(images))])
    assert reference.quality_of(outputs).value == chosen["value"]
