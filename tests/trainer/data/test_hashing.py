from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.data import CsvData
from trainer.data.hashing import hashed, names_of_buckets
from trainer.data.tables import open_table

LINES = ["merchant,amount,kind", *(f"m{i % 50},{i},{'ab'[i % 2]}" for i in range(200)), ",7,a"]


def test_a_name_has_its_number_for_ever():
    # What other versions and machines give too: a run's data and an exported model must agree with them.
    names = tf.constant(["", "AA", "Ünïcode", "m1"])
    assert hashed(names, 1000).numpy().tolist() == [0, 736, 342, 426]


def test_every_bucket_has_a_name():
    names = names_of_buckets(range(101), 100)
    assert hashed(tf.constant([names[i] for i in range(101)]), 100).numpy().tolist() == list(range(101))


def opened(tmp_path, **options):
    (tmp_path / "sales.csv").write_text("\n".join(LINES) + "\n")
    data = CsvData(
        path=str(tmp_path / "sales.csv"), held_out_path=str(tmp_path / "sales.csv"), target="kind", **options
    )
    source = open_table(data, "train")
    return source.schema.features, source.read(tf.range(source.schema.num_samples, dtype=tf.int64))


def test_a_column_without_a_vocabulary(tmp_path):
    features, batch = opened(tmp_path, hash_buckets={"merchant": 20})
    feature = features["merchant"]
    assert (feature.vocabulary, feature.num_values, feature.hash_buckets) == (None, 21, 20)
    numbers = batch["merchant"].numpy()
    expected = hashed(tf.constant([f"m{i % 50}" for i in range(200)] + [""]), 20).numpy()
    np.testing.assert_array_equal(numbers, expected)
    # The name that stands for a number is one of its own.
    assert feature.bucket_names is not None and set(feature.bucket_names) == set(expected[:-1])
    for number, name in feature.bucket_names.items():
        assert hashed(tf.constant([name]), 20).numpy()[0] == number
    assert max(Counter(numbers).values()) < 60


def test_a_hashed_column_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.hash_buckets names 'amount', .* use those that are \(merchant\)"):
        opened(tmp_path, hash_buckets={"amount": 20})
