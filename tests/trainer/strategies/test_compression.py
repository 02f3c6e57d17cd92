"""Gradients that travel compressed: what is lost is lost once, whoever computes what."""

import keras
import numpy as np
import pytest

from tests.trainer.strategies.elastic_workers import Workers
from trainer.config.elastic import ElasticConfig
from trainer.strategies.compression import Compression, tables_of

LARGE = {
    "model": {"name": "mlp", "hidden": [64]},
    "data": {"name": "synthetic", "shape": [300], "num_classes": 4, "num_samples": 64, "batch_size": 16},
    "train": {"steps": 5},
}


def trained(folder, hosts: str, compression: str, dies_at: int | None = None) -> dict[str, bytes]:
    workers = Workers(folder, list(hosts), elastic={"compression": compression}, **LARGE)
    if dies_at is not None:
        workers.workers["w1"].dies_at = dies_at
    return workers.train().digests


@pytest.fixture(scope="module")
def uncompressed(tmp_path_factory) -> dict[str, bytes]:
    return trained(tmp_path_factory.mktemp("alone"), "a", "none")


def test_rounding_gives_the_same_bits_for_any_number_of_workers_and_over_a_death(uncompressed, tmp_path):
    alone = trained(tmp_path / "alone", "a", "bfloat16")
    assert alone != uncompressed
    assert trained(tmp_path / "three", "aba", "bfloat16", dies_at=2) == alone


def test_top_k_gives_the_same_bits_for_any_number_of_workers(uncompressed, tmp_path):
    alone = trained(tmp_path / "alone", "a", "top_k")
    assert alone != uncompressed
    assert trained(tmp_path / "two", "ab", "top_k") == alone


def test_tables_of_embeddings_are_found():
    inputs = keras.Input((3,), dtype="int32")
    looked_up = keras.layers.Embedding(50, 4)(keras.layers.Embedding(20, 1)(inputs)[..., 0])
    model = keras.Model(inputs, keras.layers.Dense(2)(looked_up))
    assert [model.trainable_variables[number].shape for number in tables_of(model)] == [(20, 1), (50, 4)]


def test_rows_that_nobody_looks_up_stay_and_no_bit_changes(tmp_path, chaos_long):
    if not chaos_long:
        pytest.skip("takes ten seconds: --chaos-long; the sum itself is tested in test_process_group.py")
    tokens = {
        "model": {"name": "transformer_lm", "layers": 1, "width": 16, "heads": 2},
        "data": {"name": "synthetic", "kind": "tokens", "shape": [8], "num_classes": 2000, "num_samples": 64},
        "task": {"name": "language_modelling"},
        "train": {"steps": 3},
    }
    alone, two = (Workers(tmp_path / hosts, list(hosts), **tokens) for hosts in ("a", "ab"))
    sent: list[int] = []
    endpoint = two.workers["w0"].endpoint
    end_group = endpoint._end_group
    endpoint._end_group = lambda: (sent.append(endpoint._group.num_bytes_sent if endpoint._group else 0), end_group())
    assert two.train().digests == alone.train().digests
    # The table of outputs, and half of each sum; the table of inputs adds a few rows of 64 bytes.
    assert 3 * 2000 * 16 * 4 < max(sent) < 1.3 * 3 * 2000 * 16 * 4


def test_what_a_part_keeps_back_is_added_to_its_next_gradients():
    compression = Compression(ElasticConfig(compression="top_k", top_k=0.05))
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=20_000).astype(np.float32) for _ in range(3)]
    sent = [gradient.copy() for gradient in gradients]
    compression.thin(2, [sent[0]])
    assert 0.04 < np.count_nonzero(sent[0]) / 20_000 < 0.06
    assert np.abs(sent[0][sent[0] != 0]).min() >= np.abs(gradients[0] - sent[0]).max()
    assert not np.signbit(sent[0][sent[0] == 0]).any(), "a negative zero would not come back"
    again = gradients[0].copy()
    compression.thin(2, [again])  # the group broke: the step is taken again
    assert again.tobytes() == sent[0].tobytes()
    compression.step_taken()
    compression.thin(2, [sent[1]])
    compression.step_taken()
    kept_back = gradients[0] + gradients[1] - sent[0] - sent[1]
    compression.move_to([2, 3])
    compression.thin(2, [sent[2]])
    np.testing.assert_allclose(sent[2], np.where(sent[2] != 0, kept_back + gradients[2], 0), atol=1e-6)
    compression.step_taken()
    # A part that another worker computes from now on begins with nothing.
    compression.move_to([3])
    compression.move_to([2])
    fresh = gradients[0].copy()
    compression.thin(2, [fresh])
    assert fresh.tobytes() == again.tobytes()


def test_a_step_that_does_not_count_keeps_nothing_back():
    compression = Compression(ElasticConfig(compression="top_k", top_k=0.5))
    broken = np.float32([1, np.nan, 3, np.inf])
    compression.thin(0, [broken])
    assert not np.isfinite(broken).all(), "the sum shows it"
    values = np.float32([1, 2, 3, 4])
    compression.thin(0, [values])
    assert values.tolist() == [0, 0, 3, 4]
