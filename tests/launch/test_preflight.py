from types import SimpleNamespace

import pytest

from launch.config import load_config
from launch.preflight import describe, try_out
from trainer.data.checks import DataError

SMALL = [
    "data.name=synthetic", "data.shape=[6]", "data.num_classes=3", "data.num_samples=64", "data.batch_size=16",
    "model.hidden=[4]", "train.deterministic=false", "train.xla=false",
]  # fmt: skip


def small(*overrides):
    return load_config("configs/mnist.yaml", [*SMALL, *overrides])


def test_figures_agree_with_each_other(tmp_path):
    found = try_out(small(f"run.dir={tmp_path}", "train.epochs=10", "checkpoint.keep=2"))
    assert (found.samples, found.steps, found.steps_per_epoch, found.batch_size) == (64, 40, 4, 16)
    assert found.held_out_samples == 1000
    assert found.kept_bytes == 3 * found.checkpoint_bytes
    assert found.checkpoint_bytes > 3 * 4 * found.parameters  # Adam keeps two numbers besides each weight
    assert found.examples_per_s == pytest.approx(16 / found.step_s)
    assert found.training_s == pytest.approx(40 * found.step_s)
    assert 0 < found.loss < 10
    assert "float32 [6]" in str(found.features)
    assert found.problems == []
    assert not found.begun


def test_a_training_of_one_step_can_be_tried(tmp_path):
    found = try_out(small(f"run.dir={tmp_path}", "train.steps=1"))
    assert found.step_s == found.first_step_s


def test_a_disk_that_is_too_small_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000))
    found = try_out(small(f"run.dir={tmp_path}"))
    (problem,) = found.problems
    assert "has 1000 B free" in problem
    assert describe(found).splitlines()[-1] == f"problem: {problem}"


def test_missing_data_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.npz"):
        try_out(load_config("configs/mnist.yaml", ["data.name=arrays", f"data.path={tmp_path / 'nowhere.npz'}"]))


def test_a_loss_that_is_not_finite_is_explained(tmp_path):
    from trainer.non_finite import NonFiniteLoss

    with pytest.raises(NonFiniteLoss, match="is not finite"):
        try_out(small("optimizer.name=sgd", "optimizer.learning_rate=1e30", "train.steps=50"))
