"""Models for TF.js: where the runtime is, what is refused, and what Node.js answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delivery.shrink.child import ChildFailed
from delivery.web.tf_js import PACKAGES, TfJsMissing, find_tf_js
from delivery.web.tf_js_form import TfJsForm
from launch.cli import run

WEIGHTS = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that is looked at."""
    for package in PACKAGES:
        (tmp_path / "node_modules" / "@tensorflow" / package).mkdir(parents=True)
        (tmp_path / "node_modules" / "@tensorflow" / package / "package.json").write_text('{"version": "4.22.0"}')
    (tmp_path / "converter" / "tensorflowjs-4.22.0.dist-info").mkdir(parents=True)
    (tmp_path / "node").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_what_is_missing_or_of_another_version_is_said(installation: Path, monkeypatch: pytest.MonkeyPatch):
    assert find_tf_js(str(installation)).node == installation / "node"
    (installation / "node").unlink()
    with pytest.raises(TfJsMissing, match="no node on the PATH"):
        find_tf_js(str(installation))
    (installation / "converter" / "tensorflowjs-4.22.0.dist-info").rmdir()
    with pytest.raises(TfJsMissing, match="no converter tensorflowjs"):
        find_tf_js(str(installation))
    core = installation / "node_modules" / "@tensorflow" / "tfjs-core" / "package.json"
    core.write_text('{"version": "4.21.0"}')
    with pytest.raises(TfJsMissing, match=r"version 4\.21\.0, the page needs 4\.22\.0"):
        find_tf_js(str(installation))
    core.unlink()
    monkeypatch.setenv("PHALANX_TF_JS", str(installation))
    with pytest.raises(TfJsMissing, match="no @tensorflow/tfjs-core"):
        find_tf_js()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "web", "--runtime", "onnx"], "must be one of litert, tfjs"),
        (["--to", "web", "--runtime", "tfjs", "--quantize", "int8"], "choose one of float32, float16, dynamic"),
        (["--to", "web", "--runtime", "tfjs", "--litert-js", "there"], "--litert-js is for --runtime litert"),
        (["--to", "web"], "--tf-js is for --runtime tfjs"),
        (["--to", "litert", "--runtime", "tfjs"], "are for --to web, not litert"),
        (["--runtime", "tfjs"], "are for --to litert or web"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_a_run_is_looked_for(
    options: list[str], message: str, installation: Path, capfd: pytest.CaptureFixture
):
    assert run(["export", "no-such-run", "--tf-js", str(installation), *options]) == 2
    assert message in " ".join(capfd.readouterr().err.split())


@pytest.fixture(scope="module")
def form() -> TfJsForm:
    try:
        return find_tf_js().form
    except TfJsMissing as missing:
        pytest.skip(str(missing))


def product(folder: Path, op: str = "MatMul") -> Path:
    """A model as the converter writes it, of one product with `WEIGHTS`; `samples.npz` lies beside it."""
    of_floats = {"dtype": {"type": "DT_FLOAT"}}
    nodes: list[dict[str, Any]] = [
        {"name": "image", "op": "Placeholder", "attr": of_floats},
        {"name": "weights", "op": "Const", "attr": of_floats},
        {"name": "outputs", "op": op, "input": ["image", "weights"], "attr": {}},
    ]
    weights = [{"name": "weights", "shape": WEIGHTS.shape, "dtype": "float32"}]
    manifest = [{"paths": ["group1-shard1of1.bin"], "weights": weights}]
    model = folder / "float32.tfjs"
    model.mkdir()
    topology = {"node": nodes, "versions": {"producer": 2599}}
    (model / "model.json").write_text(json.dumps({"modelTopology": topology, "weightsManifest": manifest}))
    (model / "group1-shard1of1.bin").write_bytes(WEIGHTS.tobytes())
    np.savez(folder / "samples.npz", image=np.arange(12, dtype=np.float32).reshape(4, 3))
    return model


def test_node_answers_sample_by_sample_and_says_what_each_took(form: TfJsForm, tmp_path: Path):
    outputs, seconds = form.answers(tmp_path, product(tmp_path))
    np.testing.assert_allclose(outputs, np.arange(12).reshape(4, 3) @ WEIGHTS)
    assert seconds.shape == (4,) and np.all((seconds > 0) & (seconds < 60))


def test_a_model_without_its_weights_or_with_an_unknown_operation_is_not_run(form: TfJsForm, tmp_path: Path):
    model = product(tmp_path, op="NoSuchOp")
    with pytest.raises(ChildFailed, match="NoSuchOp"):
        form.answers(tmp_path, model)
    (model / "group1-shard1of1.bin").write_bytes(WEIGHTS.tobytes()[:8])
    with pytest.raises(ChildFailed, match="values"):
        form.answers(tmp_path, model)
