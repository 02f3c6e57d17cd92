from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from trainer.checkpoint.format import STATE, write_checkpoint
from trainer.checkpoint.host_buffer import ArraySpec
from trainer.warm_start import Skipped, WarmStartError, plan_warm_start, read_weights

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([1, 2, 3], np.float32)
AVAILABLE = {"mlp/dense/kernel": KERNEL, "mlp/dense/bias": BIAS, "mlp/head/kernel": np.ones((3, 10), np.float32)}
WANTED = {
    "mlp/dense/kernel": ArraySpec((2, 3), "float32"),
    "mlp/dense/bias": ArraySpec((3,), "float32"),
    "mlp/head/kernel": ArraySpec((3, 7), "float32"),
}


def test_what_fits_is_loaded_and_the_rest_explained():
    plan = plan_warm_start(AVAILABLE, WANTED)
    assert plan.sources == {path: path for path in ("mlp/dense/kernel", "mlp/dense/bias")}
    assert plan.loaded["mlp/dense/kernel"].tolist() == KERNEL.tolist()
    reason = "its shape is (3, 7), that of mlp/head/kernel is (3, 10)"
    assert plan.skipped == [Skipped("mlp/head/kernel", reason)]
    assert plan.unused == ["mlp/head/kernel"]


def test_patterns_choose():
    plan = plan_warm_start(AVAILABLE, WANTED, include=["dense"], exclude=["bias$"])
    assert list(plan.loaded) == ["mlp/dense/kernel"]
    assert plan.skipped == [
        Skipped("mlp/dense/bias", "warm_start.exclude has bias$"),
        Skipped("mlp/head/kernel", "no pattern of warm_start.include matches it"),
    ]


def test_the_name_of_the_model_may_differ():
    wanted = {path.replace("mlp", "net_1"): spec for path, spec in WANTED.items()}
    plan = plan_warm_start(AVAILABLE, wanted)
    assert plan.sources == {f"net_1/dense/{name}": f"mlp/dense/{name}" for name in ("kernel", "bias")}


def test_a_model_may_have_no_name_in_its_paths():
    plan = plan_warm_start(AVAILABLE, {"dense/bias": WANTED["mlp/dense/bias"], "head/bias": WANTED["mlp/dense/bias"]})
    assert plan.sources == {"dense/bias": "mlp/dense/bias"}
    assert plan.skipped == [Skipped("head/bias", "there is no array of that path")]


def test_layers_of_different_names_are_never_mixed_up():
    available = {"block1/dense/kernel": KERNEL, "block1/dense/bias": BIAS, "head/bias": BIAS}
    wanted = {"block1/dense/kernel": ArraySpec((2, 3), "float32"), "block2/dense/kernel": ArraySpec((2, 3), "float32")}
    assert list(plan_warm_start(available, wanted).loaded) == ["block1/dense/kernel"]
    with pytest.raises(WarmStartError, match="there is no array of that path"):
        plan_warm_start({"dense/bias": BIAS}, {"head/bias": ArraySpec((3,), "float32")})


def test_floats_are_converted_and_other_types_are_not():
    wanted = {"a/k": ArraySpec((3,), "float32"), "a/n": ArraySpec((3,), "float32")}
    plan = plan_warm_start({"a/k": BIAS.astype(ml_dtypes.bfloat16), "a/n": np.arange(3)}, wanted)
    assert plan.loaded["a/k"].dtype == np.float32
    assert plan.loaded["a/k"].tolist() == [1, 2, 3]
    assert plan.skipped == [Skipped("a/n", "its type is float32, that of a/n is int64")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"include": ["encoder"]},
            "'encoder', which matches no variable of the model: they are named mlp/dense/kernel",
        ),
        ({"exclude": ["["]}, "exclude has '\\[', which is no regular expression"),
        ({"include": ["head"]}, r"would load nothing \(mlp/dense/kernel: no pattern"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(arguments: dict, message: str):
    with pytest.raises(WarmStartError, match=message):
        plan_warm_start(AVAILABLE, WANTED, **arguments)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for step in (1, 2):
        arrays = {f"model/{path}": np.asarray(array + step) for path, array in AVAILABLE.items()}
        write_checkpoint(folder, step, {**arrays, "ema/mlp/dense/bias": BIAS - step, "step": np.array(step)}, {})
    return folder.parent


def test_weights_come_from_a_run_its_checkpoints_or_one_of_them(run: Path):
    for place, step in [
        (run, 2),
        (run / "checkpoints", 2),
        (run / "checkpoints/step-00000002", 2),
        (run / "checkpoints/step-00000001", 1),
    ]:
        weights = read_weights(place)
        assert weights.keys() == AVAILABLE.keys()
        assert weights["mlp/dense/bias"].tolist() == (BIAS + step).tolist()


def test_averaged_weights_can_be_asked_for(run: Path):
    weights = read_weights(run, averaged=True)
    assert {path: array.tolist() for path, array in weights.items()} == {"mlp/dense/bias": (BIAS - 2).tolist()}
    write_checkpoint(run / "checkpoints", 3, {"model/mlp/dense/bias": BIAS}, {})
    with pytest.raises(WarmStartError, match=r"holds no averaged weights \(it was trained without train\.ema\)"):
        read_weights(run, averaged=True)


def test_another_runs_damaged_checkpoint_is_passed_over_and_left_in_place(run: Path):
    newest = run / "checkpoints" / "step-00000002"
    (newest / STATE).unlink()
    assert read_weights(run)["mlp/dense/bias"].tolist() == (BIAS + 1).tolist()
    assert newest.is_dir()
    with pytest.raises(WarmStartError, match=f"cannot be read: .*is damaged: {STATE} is missing"):
        read_weights(newest)


def test_places_without_weights_are_named(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "broken.keras").write_text("")
    for name, message in [
        ("nowhere", "does not exist"),
        ("nowhere.keras", "does not exist"),
        ("notes.txt", "is not a run folder, a checkpoint or a .keras file"),
        (".", "holds no checkpoint"),
        ("broken.keras", "cannot be loaded"),
    ]:
        with pytest.raises(WarmStartError, match=message):
            read_weights(tmp_path / name)


def test_weights_come_from_a_keras_file(tmp_path: Path):
    import keras

    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3, name="dense"), keras.layers.BatchNormalization()]
    )
    model.save(tmp_path / "model.keras")
    weights = read_weights(tmp_path / "model.keras")
    plan = plan_warm_start(weights, {"mlp/dense/kernel": ArraySpec((2, 3), "float32")})
    assert plan.loaded["mlp/dense/kernel"].tolist() == model.variables[0].numpy().tolist()
    assert any(path.endswith("moving_mean") for path in weights)
