import numpy as np
import tensorflow as tf

from trainer.config.data import FlightsData
from trainer.data.flights import open_flights


def test_flights_are_split_by_day_and_complete():
    train, held_out = (open_flights(FlightsData(), split) for split in ("train", "held_out"))
    assert train.schema.num_samples + held_out.schema.num_samples == 336_776 - 9_430
    assert train.schema.features == held_out.schema.features
    assert train.schema.class_names == ("late", "on time")
    batch = train.read(tf.range(train.schema.num_samples, dtype=tf.int64))
    for name, feature in train.schema.inputs.items():
        values = batch[name].numpy().astype(float)
        assert np.isfinite(values).all()
        if feature.vocabulary is None:
            assert abs(values.mean() - feature.mean) < 1e-3 * (feature.std or 0.0)
        else:
            assert values.max() == len(feature.vocabulary)
    # 2013 began on a Tuesday: weekday 0 is Monday and the first flights are on weekday 1.
    weekday = train.schema.features["weekday"].vocabulary
    assert weekday is not None and weekday[int(batch["weekday"][0]) - 1] == "1"
    late = np.mean(batch["late"].numpy() == 0)
    assert 0.2 < late < 0.3


def test_late_minutes_move_the_label():
    source = open_flights(FlightsData(late_minutes=60), "held_out")
    labels = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))["late"].numpy()
    assert 0.03 < np.mean(labels == 0) < 0.15
