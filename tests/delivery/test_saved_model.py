import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from delivery.saved_model import DESCRIPTION, ExportRefused, ExportResult, export_saved_model
from trainer.data.source import Feature, Schema


def _export(trained, folder: Path, **options) -> ExportResult:
    return export_saved_model(trained.model, trained.task, trained.schema, folder, batch=trained.batch, **options)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_raw_pixels_give_the_trained_models_answers_for_any_batch(image_classifier: Callable, tmp_path: Path):
    trained = image_classifier()
    result = _export(trained, tmp_path / "export")
    assert result.path == tmp_path / "export" / "1"
    assert set(result.signatures) == {"serving_default", "classify", "classify_tensors"}
    loaded = tf.saved_model.load(str(result.path))
    pixels = np.rint(trained.batch["image"] * 255).astype(np.uint8)
    logits = np.asarray(trained.model(trained.batch["image"], training=False))
    for size in (1, 7, 20):
        for name in ("serving_default", "classify"):
            answers = loaded.signatures[name](image=tf.constant(pixels[:size]))
            np.testing.assert_allclose(answers["logits"], logits[:size], atol=1e-4)
            np.testing.assert_allclose(answers["probabilities"], _softmax(logits[:size]), atol=1e-5)
            assert answers["classes"].numpy().tolist() == logits[:size].argmax(-1).tolist()
            names = [label.decode() for label in answers["labels"].numpy()]
            assert names == [("cat", "dog", "owl")[label] for label in logits[:size].argmax(-1)]
        answers = loaded.signatures["classify_tensors"](image=tf.constant(trained.batch["image"][:size]))
        np.testing.assert_allclose(answers["logits"], logits[:size], atol=1e-4)
        assert "labels" not in answers


@pytest.mark.processes
def test_loads_and_serves_without_keras(image_classifier: Callable, tmp_path: Path):
    trained = image_classifier()
    result = _export(trained, tmp_path / "export")
    program = """
import sys
import importlib.machinery
class NoKeras:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras", "tf_keras"):
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise ImportError(spec.name + " is blocked")
sys.meta_path.insert(0, NoKeras())
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
pixels = np.load(sys.argv[2])
print(loaded.signatures["serving_default"](image=tf.constant(pixels))["classes"].numpy().tolist())
assert not any(name.split(".")[0] == "keras" for name in sys.modules)
"""
    pixels = tmp_path / "pixels.npy"
    np.save(pixels, np.rint(trained.batch["image"] * 255).astype(np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", program, str(result.path), str(pixels)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    classes = np.asarray(trained.model(trained.batch["image"], training=False)).argmax(-1)
    assert json.loads(done.stdout) == classes.tolist()


def test_categories_are_sent_as_strings_and_unknown_ones_count_as_missing(table_regressor, tmp_path: Path):
    result = _export(table_regressor, tmp_path / "export")
    loaded = tf.saved_model.load(str(result.path))
    batch = table_regressor.batch
    names = np.array(["never seen", "AA", "UA", "Ünïcode"], object)
    answers = loaded.signatures["regress"](
        carrier=tf.constant(names[batch["carrier"]]),
        month=tf.constant(batch["month"]),
        distance=tf.constant(batch["distance"]),
    )
    expected = table_regressor.model({name: batch[name] for name in ("carrier", "month", "distance")}, training=False)
    assert len(np.unique(np.round(expected, 4))) > 8
    np.testing.assert_allclose(answers["values"], expected, rtol=1e-4, atol=1e-4)


def test_a_missing_number_counts_as_the_mean(table_regressor, tmp_path: Path):
    result = _export(table_regressor, tmp_path / "export")
    loaded = tf.saved_model.load(str(result.path))
    answers = loaded.signatures["regress"](
        carrier=tf.constant(["AA"] * 3),
        month=tf.constant([5] * 3),
        distance=tf.constant([np.nan, 1000.0, 3000.0]),
    )["values"].numpy()
    assert answers[0] == answers[1] != answers[2]


def test_tokens_may_be_fewer_than_the_context_and_not_more(language_model, tmp_path: Path):
    result = _export(language_model, tmp_path / "export")
    loaded = tf.saved_model.load(str(result.path))
    tokens = language_model.batch["tokens"][:, :12]
    expected = np.asarray(language_model.model(tokens, training=False))
    for length in (1, 5, 12):
        answers = loaded.signatures["predict"](tokens=tf.constant(tokens[:3, :length]))
        np.testing.assert_allclose(answers["logits"], expected[:3, :length], atol=1e-4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 12 tokens"):
        loaded.signatures["predict"](tokens=tf.zeros([1, 13], tf.int32))


def test_averaged_weights_are_exported_when_given(image_classifier: Callable, tmp_path: Path):
    trained = image_classifier()
    averaged = [tf.Variable(0.5 * variable.numpy()) for variable in trained.model.trainable_variables]
    result = _export(trained, tmp_path / "export", trainable=averaged)
    answers = tf.saved_model.load(str(result.path)).signatures["classify_tensors"](
        image=tf.constant(trained.batch["image"])
    )
    live = np.asarray(trained.model(trained.batch["image"], training=False))
    assert np.abs(answers["logits"] - live).max() > 0.1
    for variable, value in zip(trained.model.trainable_variables, averaged, strict=True):
        variable.assign(value)
    np.testing.assert_allclose(answers["logits"], trained.model(trained.batch["image"], training=False), atol=1e-4)


def test_a_model_trained_in_16_bits(image_classifier: Callable, tmp_path: Path):
    result = _export(image_classifier(precision="mixed_bfloat16"), tmp_path / "export", precision="mixed_bfloat16")
    assert result.largest_difference <= 5e-2


def test_numbers_that_are_no_pixels_are_sent_as_they_are(image_classifier: Callable, tmp_path: Path):
    result = _export(image_classifier(scale=4.0), tmp_path / "export")
    assert set(result.signatures) == {"serving_default", "classify"}
    loaded = tf.saved_model.load(str(result.path))
    assert loaded.signatures["classify"].structured_input_signature[1]["image"].dtype == tf.float32


class Noise(keras.layers.Layer):
    """Draws new numbers at every call, in use as in training."""

    def call(self, x):
        return x + tf.random.uniform(tf.shape(x))


def test_a_model_that_answers_differently_from_call_to_call_is_refused(image_classifier: Callable, tmp_path: Path):
    trained = image_classifier()
    _export(trained, tmp_path / "export")
    before = {path: path.read_bytes() for path in (tmp_path / "export").rglob("*") if path.is_file()}
    trained.model = keras.Model(trained.model.input, Noise()(trained.model.output))
    with pytest.raises(ExportRefused, match=r"output probabilities .* differs by .* nothing was exported"):
        _export(trained, tmp_path / "export")
    assert {path: path.read_bytes() for path in (tmp_path / "export").rglob("*") if path.is_file()} == before


def test_features_outside_the_schema_are_refused(table_regressor, tmp_path: Path):
    features = dict(table_regressor.schema.features)
    features["carrier"] = Feature((), "int32", vocabulary=("AA", "AA ", "AB"), num_values=4)
    table_regressor.task.input_features["distance"] = Feature((), "int32")
    table_regressor.schema = Schema(features, "delay", 100)
    with pytest.raises(ExportRefused, match="the preprocessing of input distance"):
        _export(table_regressor, tmp_path / "export")
    assert not list((tmp_path / "export").iterdir())


def test_samples_that_reading_left_out_take_no_part(image_classifier: Callable, tmp_path: Path):
    trained = image_classifier()
    trained.batch["image"][3] = np.nan
    trained.batch["sample_weight"] = np.ones(20, np.float32)
    trained.batch["sample_weight"][3] = 0
    assert _export(trained, tmp_path / "export").num_samples == 19
    trained.batch["sample_weight"][:] = 0
    with pytest.raises(ValueError, match="no held-out sample"):
        _export(trained, tmp_path / "export")


def test_the_description_tells_signatures_and_classes(image_classifier: Callable, tmp_path: Path):
    result = _export(image_classifier(), tmp_path / "export", description={"run": "mnist", "step": 625})
    facts = json.loads((result.path / DESCRIPTION).read_text())
    assert (facts["run"], facts["step"], facts["class_names"]) == ("mnist", 625, ["cat", "dog", "owl"])
    assert facts["signatures"]["classify"]["inputs"] == {"image": {"dtype": "uint8", "shape": [None, 8, 8, 1]}}
    assert facts["signatures"]["classify"]["outputs"]["probabilities"] == {"dtype": "float32", "shape": [None, 3]}
    assert result.size == sum(path.stat().st_size for path in result.path.rglob("*") if path.is_file())


def test_a_second_export_replaces_the_first(image_classifier: Callable, tmp_path: Path):
    trained = image_classifier()
    first = _export(trained, tmp_path / "export")
    trained.model.variables[-1].assign([9.0, 0.0, 0.0])
    second = _export(trained, tmp_path / "export")
    assert first.path == second.path
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["1"]
    answers = tf.saved_model.load(str(second.path)).signatures["classify_tensors"](
        image=tf.constant(trained.batch["image"])
    )
    np.testing.assert_allclose(answers["logits"], trained.model(trained.batch["image"], training=False), atol=1e-4)


def test_what_a_kill_left_is_cleared_and_the_replaced_export_comes_back(image_classifier: Callable, tmp_path: Path):
    trained = image_classifier()
    folder = tmp_path / "export"
    _export(trained, folder)
    # As a kill between the two renames of a replacement leaves it.
    os.rename(folder / "1", folder / ".unfinished-1.before")
    (folder / ".unfinished-1").mkdir()
    trained.model = keras.Model(trained.model.input, Noise()(trained.model.output))
    with pytest.raises(ExportRefused):
        _export(trained, folder)
    assert [path.name for path in folder.iterdir()] == ["1"]
    tf.saved_model.load(str(folder / "1"))


@pytest.mark.processes
def test_a_kill_in_the_middle_leaves_nothing_that_looks_whole(tmp_path: Path, image_classifier: Callable):
    program = """
import pathlib, sys
import keras, numpy as np
from delivery.saved_model import export_saved_model
from trainer.config.task import ClassificationTask
from trainer.data.source import Feature, Schema
from trainer.tasks.registry import build_task
features = {"image": Feature((8, 8, 1), "float32"), "label": Feature((), "int32")}
schema = Schema(features, "label", 9, 3)
inputs = keras.Input((8, 8, 1), name="image")
x = keras.layers.Dense(2000)(keras.layers.Flatten()(inputs))
x = keras.layers.Dense(2000)(x)
model = keras.Model(inputs, keras.layers.Dense(3)(x))
batch = {"image": np.zeros((2, 8, 8, 1), np.float32)}
export_saved_model(model, build_task(ClassificationTask(), schema), schema, pathlib.Path(sys.argv[1]), batch=batch)
"""
    folder = tmp_path / "export"
    child = subprocess.Popen([sys.executable, "-c", program, str(folder)], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while not list(folder.glob(".unfinished-*/*")):
            assert child.poll() is None and time.monotonic() < end
            time.sleep(0.005)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert [path.name for path in folder.iterdir()] == [".unfinished-1"]
    _export(image_classifier(), folder)
    assert [path.name for path in folder.iterdir()] == ["1"]
