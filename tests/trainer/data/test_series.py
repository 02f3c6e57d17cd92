from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.time_series import SeriesData, WeatherData
from trainer.data.checks import DataError
from trainer.data.order import SampleOrder
from trainer.data.pipeline import train_batches
from trainer.data.series import WindowSource, open_series
from trainer.data.weather import open_weather

STEPS = 50


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A column that counts the steps, one that falls and lacks some, one of names."""
    lines = ["day,up,down"]
    lines += [f"d{i},{i},{'' if i in (7, 8) else -2 * i}" for i in range(STEPS)]
    (tmp_path / "series.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "series.csv"


def opened(file: Path, split: Any = "train", **options: Any) -> WindowSource:
    return open_series(SeriesData(path=str(file), **{"past": 4, "horizon": 2, **options}), split)


def everything(source: WindowSource) -> dict[str, np.ndarray]:
    batch = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    return {name: values.numpy() for name, values in batch.items()}


def test_windows_are_what_was_and_what_came_next(file: Path) -> None:
    source = opened(file, target=["up"])
    windows = everything(source)
    assert windows["past"].shape == (35, 4, 2) and windows["coming"].shape == (35, 2, 1)
    np.testing.assert_array_equal(windows["past"][3, :, 0], [3, 4, 5, 6])
    np.testing.assert_array_equal(windows["coming"][3, :, 0], [7, 8])
    assert source.locate(3) == f"{file}, row 7"
    assert source.schema.target == "coming" and source.schema.features["coming"].continues


def test_nothing_of_the_held_out_part_is_known_to_the_training(file: Path) -> None:
    train, held_out = (opened(file, split, target=["up"]) for split in ("train", "held_out"))
    cut = 40
    assert everything(train)["coming"].max() == cut - 1
    assert everything(held_out)["coming"].min() == cut and everything(held_out)["past"][0, 0, 0] == cut - 4
    assert train.schema.features == held_out.schema.features
    channels = train.schema.features["past"].channels
    assert channels is not None and len(channels) == 2
    mean, _ = channels[0]
    assert channels[0] == pytest.approx((np.arange(cut).mean(), np.arange(cut).std()))
    assert train.schema.features["coming"].mean == pytest.approx(mean)


def test_what_is_missing_is_the_last_known_value_and_never_predicted(file: Path) -> None:
    windows = everything(opened(file, target=["down"]))
    found = {tuple(past[:, 0]): coming[:, 0] for past, coming in zip(windows["past"], windows["coming"], strict=True)}
    np.testing.assert_array_equal(found[-10, -12, -12, -12], [-18, -20])
    assert np.isfinite(windows["coming"]).all() and np.isfinite(windows["past"]).all()
    assert len(found) == 35 - 3  # those that would predict step 7 or 8


def test_a_resumed_run_reads_the_rest(file: Path) -> None:
    source = opened(file)
    order = SampleOrder(source.schema.num_samples, 8, 3)
    whole = list(train_batches(source, order, first_step=0, num_steps=12))
    for batch, again in zip(whole[7:], train_batches(source, order, first_step=7, num_steps=5), strict=True):
        np.testing.assert_array_equal(batch["past"], again["past"])
        np.testing.assert_array_equal(batch["coming"], again["coming"])


def test_npz_and_csv_hold_the_same(file: Path, tmp_path: Path) -> None:
    up = np.arange(STEPS)
    down = np.where(np.isin(up, (7, 8)), np.nan, -2.0 * up)
    np.savez(tmp_path / "series.npz", up=up, down=down, day=up.astype(str))
    one, other = everything(opened(file)), everything(opened(tmp_path / "series.npz"))
    np.testing.assert_array_equal(one["past"], other["past"])
    np.testing.assert_array_equal(one["coming"], other["coming"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": ["sideways"]}, "there is no column 'sideways', it has day, up, down: correct"),
        ({"columns": ["up", "day"]}, "column 'day': it holds no numbers: leave it out"),
        ({"past": 39}, r"the train part, 40 steps, has no whole window of 39 \+ 2 steps"),
    ],
)
def test_series_that_do_not_fit_are_refused(file: Path, options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(file, **options)


def test_the_weather_has_every_hour_of_the_year_and_a_naive_forecast_misses_it_by_degrees() -> None:
    train, held_out = (open_weather(WeatherData(), split) for split in ("train", "held_out"))
    assert 6500 < train.schema.num_samples < 7000 and 1500 < held_out.schema.num_samples < 1760
    windows = everything(held_out)
    assert windows["past"].shape[1:] == (72, 17) and windows["coming"].shape[1:] == (24, 3)
    np.testing.assert_allclose(np.hypot(windows["past"][..., -2], windows["past"][..., -1]), 1, rtol=1e-6)
    naive = np.abs(windows["coming"] - windows["past"][:, -1:, :3]).mean()
    assert naive == pytest.approx(5.6, abs=0.3)
