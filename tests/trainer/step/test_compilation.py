"""What XLA compiles where the config leaves it open."""

import keras
import pytest

from trainer.config.train import TrainConfig
from trainer.step import compilation
from trainer.step.compilation import compiled_scope


def convolutional() -> keras.Model:
    inner = keras.Sequential([keras.layers.Conv2D(2, 3)])
    return keras.Sequential([keras.Input([8, 8, 1]), inner, keras.layers.Flatten(), keras.layers.Dense(2)])


def dense() -> keras.Model:
    return keras.Sequential([keras.Input([4]), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("model", "flags", "scope"),
    [
        (convolutional, ["avx2", "avx512f"], "update"),
        (convolutional, ["avx2"], "step"),
        (convolutional, [], "step"),
        (dense, ["avx2", "avx512f"], "step"),
    ],
)
def test_only_convolutions_on_a_processor_that_onednn_has_kernels_for_stay_outside_of_xla(
    monkeypatch: pytest.MonkeyPatch, model, flags: list[str], scope: str
) -> None:
    monkeypatch.setattr(compilation, "_processor_flags", lambda: flags)
    assert compiled_scope(TrainConfig(steps=1, xla=True), model()) == scope


def test_a_named_scope_is_kept_and_without_xla_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "_processor_flags", lambda: ["avx512f"])
    assert compiled_scope(TrainConfig(steps=1, xla=True, xla_scope="step"), convolutional()) == "step"
    assert compiled_scope(TrainConfig(steps=1, xla_scope="step"), convolutional()) is None
