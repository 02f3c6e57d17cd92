"""What XLA compiles where the config leaves it open."""

import keras
import pytest

from trainer.config.train import TrainConfig
from trainer.step import compilation
from trainer.step.compilation import Compilation, choose_compilation


def convolutional() -> keras.Model:
    inner = keras.Sequential([keras.layers.Conv2D(2, 3)])
    return keras.Sequential([keras.Input([8, 8, 1]), inner, keras.layers.Flatten(), keras.layers.Dense(2)])


def dense() -> keras.Model:
    return keras.Sequential([keras.Input([4]), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("model", "flags", "may_use_kernels", "chosen"),
    [
        (convolutional, ["avx2", "avx512f"], False, Compilation("update")),
        (convolutional, ["avx2", "avx512f"], True, Compilation(None, kernels=True)),
        (convolutional, ["avx2"], True, Compilation("step")),
        (convolutional, [], True, Compilation("step")),
        (dense, ["avx2", "avx512f"], True, Compilation("step")),
    ],
)
def test_only_convolutions_on_a_processor_that_onednn_has_kernels_for_stay_outside_of_xla(
    monkeypatch: pytest.MonkeyPatch, model, flags: list[str], may_use_kernels: bool, chosen: Compilation
) -> None:
    monkeypatch.setattr(compilation, "_processor_flags", lambda: flags)
    assert choose_compilation(TrainConfig(steps=1, xla=True), model(), may_use_kernels) == chosen


def test_a_named_scope_is_kept_and_without_xla_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "_processor_flags", lambda: ["avx512f"])
    named = TrainConfig(steps=1, xla=True, xla_scope="step")
    assert choose_compilation(named, convolutional(), True) == Compilation("step")
    apart = choose_compilation(TrainConfig(steps=1, xla=True), dense(), False, comes_apart=True)
    assert apart == Compilation("update"), "a program gives all gradients at its end"
    without = TrainConfig(steps=1, xla_scope="step")
    assert choose_compilation(without, convolutional(), True) == Compilation(None)


def test_gradients_that_exchange_statistics_stay_outside_of_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "_processor_flags", list)
    train = TrainConfig(steps=1, xla=True)
    assert choose_compilation(train, dense(), False, comes_apart=True) == Compilation("update")
