"""What `export_run` puts into a package."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from delivery.package.training_sample import read_training_sample
from delivery.package.verification import check_package, verify
from delivery.run_export import export_run
from trainer.data.registry import open_source
from trainer.run_folder import RunFolder, RunFolderError


def test_the_package_of_a_run_is_whole_and_signed(exported_run):
    checked = verify(exported_run.package, exported_run.keys)
    assert (checked.manifest.name, checked.manifest.version) == ("digits", 1)
    assert set(checked.signatures) == {"serving_default", "classify", "classify_tensors"}
    files = {str(path.relative_to(exported_run.package)) for path in exported_run.package.rglob("*") if path.is_file()}
    assert files == {*checked.manifest.files, "manifest.json", "manifest.sig"}
    assert {
        "saved_model.pb",
        "assets.extra/tf_serving_warmup_requests",
        "assets.extra/training_sample.npz",
        "assets.extra/model_card.json",
        "assets.extra/model_card.md",
        "assets.extra/phalanx.json",
    } <= files


def test_warm_up_sends_real_samples_to_every_signature_and_the_model_answers(exported_run):
    loaded = tf.saved_model.load(str(exported_run.package))
    sizes: dict[str, list[int]] = {}
    for record in tf.data.TFRecordDataset(str(exported_run.package / "assets.extra/tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
        answers = loaded.signatures[request.model_spec.signature_name](**inputs)
        assert len(answers["classes"]) == len(inputs["image"])
        assert np.ptp(inputs["image"].numpy().astype(float)) > 0
        assert request.model_spec.name == "digits"
        sizes.setdefault(request.model_spec.signature_name, []).append(len(inputs["image"]))
    assert sizes == {name: [1, 8, 32] for name in ("serving_default", "classify", "classify_tensors")}


def test_the_training_sample_holds_raw_training_features_and_what_the_model_answers_to_them(
    exported_run, exported_config
):
    features, answers = read_training_sample(exported_run.package / "assets.extra/training_sample.npz")
    source = open_source(exported_config.data, "train")
    assert features["image"].dtype == np.uint8 and len(features["image"]) == min(2000, source.schema.num_samples)
    known = {
        np.rint(image * 255).astype(np.uint8).tobytes()
        for image in source.read(tf.range(len(features["image"])))["image"].numpy()
    }
    assert {image.tobytes() for image in features["image"]} <= known
    loaded = tf.saved_model.load(str(exported_run.package))
    again = loaded.signatures["serving_default"](image=tf.constant(features["image"]))
    np.testing.assert_array_equal(answers["classes"], again["classes"])
    np.testing.assert_allclose(answers["probabilities"], again["probabilities"], atol=1e-5)


def test_the_model_card_tells_data_config_metrics_by_class_limits_and_environment(exported_run, exported_config):
    card = json.loads((exported_run.package / "assets.extra/model_card.json").read_text())
    held_out = open_source(exported_config.data, "held_out")
    labels = held_out.read(tf.range(held_out.schema.num_samples, dtype=tf.int64))["label"].numpy()
    assert {name: row["support"] for name, row in card["held_out"]["by_class"].items()} == {
        str(number): int((labels == number).sum()) for number in range(10)
    }
    hits = sum(row["recall"] * row["support"] for row in card["held_out"]["by_class"].values() if row["support"])
    assert hits / len(labels) == pytest.approx(card["held_out"]["metrics"]["accuracy"])
    assert card["evaluation"]["step"] == card["model"]["step"] == 30
    assert card["config"]["optimizer"]["learning_rate"] == 0.01
    assert card["environment"]["packages"]["tensorflow"] == tf.__version__
    assert "host" not in card["environment"] and any("lowest F1" in limit for limit in card["limits"])
    text = (exported_run.package / "assets.extra/model_card.md").read_text()
    assert text.startswith("# digits 1\n") and text.count("\n| ") > 10


def _weights(package: Path) -> np.ndarray:
    loaded = tf.saved_model.load(str(package))
    images = tf.constant(np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 8, 8, 1))
    return loaded.signatures["classify_tensors"](image=images)["logits"].numpy()


def test_the_checkpoint_and_the_averaged_weights_are_chosen(exported_run, exported_config, tmp_path):
    folder = RunFolder(exported_run.folder)
    by_choice = {}
    for version, options in {
        2: {"checkpoint": 10},
        3: {"checkpoint": "best"},
        4: {"ema": False},
    }.items():
        result = export_run(exported_config, folder, version=version, name="other", **options)
        assert check_package(result.path, name="other", version=version).manifest.key is None
        by_choice[version] = _weights(result.path)
        card = json.loads((result.path / "assets.extra/model_card.json").read_text())
        by_choice[f"step {version}"] = card["model"]["step"]
    last = _weights(exported_run.package)
    assert by_choice["step 2"] == 10 and by_choice["step 4"] == 30
    assert np.abs(by_choice[2] - last).max() > 1e-3 and np.abs(by_choice[4] - last).max() > 1e-4
    evaluations = [json.loads(line) for line in folder.metrics.read_text().splitlines() if '"split"' in line]
    best = max(evaluations, key=lambda line: (line["accuracy"], line["step"]))
    assert by_choice["step 3"] == best["step"]


def test_a_checkpoint_that_is_not_there_is_refused(exported_run, exported_config):
    with pytest.raises(RunFolderError, match="no checkpoint of step 17: there are 10, 20, 30"):
        export_run(exported_config, RunFolder(exported_run.folder), version=9, checkpoint=17)
    assert not (exported_run.folder / "export" / "9").exists()


def test_averaged_weights_of_a_run_without_them_are_refused(exported_run, exported_config):
    train = exported_config.train.model_copy(update={"ema": None})
    config = exported_config.model_copy(update={"train": train})
    with pytest.raises(ValueError, match=r"keeps no averaged weights to export: train it with train\.ema"):
        export_run(config, RunFolder(exported_run.folder), version=9, ema=True)


def test_a_package_of_a_table_holds_its_names_as_plain_strings(table_regressor, tmp_path):
    from delivery.package.training_sample import check_training_sample, write_training_sample

    names = np.array([["AA"], ["Ünïcode"]], object)
    write_training_sample(tmp_path / "sample.npz", {"carrier": names}, {"values": np.ones((2, 1), np.float32)})
    check_training_sample((tmp_path / "sample.npz").read_bytes())
    features, answers = read_training_sample(tmp_path / "sample.npz")
    assert features["carrier"].tolist() == names.tolist() and answers["values"].shape == (2, 1)
