"""Contributions that are added up on the workers' devices: real trainings, with stand-ins for NCCL and for GPUs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.cluster.process_group.nccl_stand_in import Fabric
from tests.trainer.strategies.elastic_workers import Workers, curve
from trainer.config.elastic import ElasticConfig
from trainer.strategies.contribution_layout import ContributionLayout
from trainer.strategies.device_sums import DeviceSums, NcclNotUsable

# A large tensor, which is a piece of its own, and small ones, which are joined.
LARGE = {
    "model": {"name": "mlp", "hidden": [64]},
    "data": {"name": "synthetic", "shape": [300], "num_classes": 4, "num_samples": 48, "batch_size": 12},
}
TRAIN = {"steps": 4, "virtual_workers": 3, "steps_per_loop": 2, "log_every": 2}


def workers(folder, hosts: str, **elastic) -> Workers:
    return Workers(folder, list(hosts), elastic=elastic, train=TRAIN, optimizer={"name": "adam"}, **LARGE)


@pytest.fixture
def fabric(monkeypatch: pytest.MonkeyPatch) -> Fabric:
    """From now on workers have a device that is taken for a GPU."""
    made, number = Fabric(), itertools.count()

    def of(options: ElasticConfig) -> DeviceSums:
        return DeviceSums(options.nccl, "CPU:0", made.library(f"GPU-{next(number)}"))

    monkeypatch.setattr(DeviceSums, "of", of)
    return made


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Workers:
    """One worker, in its host's memory."""
    return workers(tmp_path_factory.mktemp("plain"), "a").train()


def test_devices_workers_and_deaths_change_no_bit(plain, fabric, tmp_path):
    several = workers(tmp_path, "aab", check_every="2st")
    several.workers["w1"].dies_at = 2
    assert several.train().digests == plain.digests and curve(several) == curve(plain)
    assert several.sizes[:2] == [3, 2]
    made = [rank for what, rank in fabric.log if what == "made"]
    assert sorted(made[:5]) == [0, 0, 1, 1, 2], "of three members, and then of two"
    assert not several.accusations


def test_shares_of_the_optimizer_are_updated_from_sums_on_devices(plain, fabric, tmp_path, chaos_long):
    if not chaos_long:
        pytest.skip("takes seconds: --chaos-long")
    assert workers(tmp_path, "ab", shard_optimizer=True).train().digests == plain.digests
    assert fabric.log


def test_the_fast_way_learns_the_same_but_for_roundings(plain, fabric, tmp_path):
    found = workers(tmp_path, "ab", nccl="fast").train()
    assert fabric.log
    losses = [[line["loss"] for line in curve(each) if "loss" in line] for each in (found, plain)]
    assert len(losses[0]) >= 2
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_members_that_cannot_be_connected_go_on_in_memory_or_say_so(plain, fabric, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(DeviceSums, "of", lambda options: DeviceSums(options.nccl, "CPU:0", fabric.library("GPU-7")))
    assert workers(tmp_path / "auto", "ab").train().digests == plain.digests
    assert "in the hosts' memory, and not between GPUs: ranks 0 and 1 use the same GPU" in capfd.readouterr().err
    with pytest.raises(NcclNotUsable, match=r"elastic\.nccl=exact cannot be had: ranks 0 and 1 use the same GPU"):
        workers(tmp_path / "exact", "ab", nccl="exact").train()


def test_without_a_gpu_nothing_is_asked_for_unless_the_config_says_so():
    assert DeviceSums.of(ElasticConfig()) is None
    assert DeviceSums.of(ElasticConfig(nccl="off")) is None
    assert DeviceSums.of(ElasticConfig(compression="bfloat16")) is None
    assert DeviceSums.of(ElasticConfig(nccl="exact")).offer(None) is None  # type: ignore[union-attr,arg-type]


def test_vectors_in_a_graph_are_those_that_are_packed_in_memory():
    shapes = [([3], tf.float32), ([200, 100], tf.float32), ([2], tf.int64), ([4, 5], tf.float32)]
    layout = ContributionLayout([tf.TensorSpec(shape, dtype) for shape, dtype in shapes], 2)
    tensors = [tf.cast(tf.reshape(tf.range(1, 1 + int(np.prod(shape))), shape), dtype) for shape, dtype in shapes]
    packed = {dtype: np.zeros(length, dtype.as_numpy_dtype) for dtype, length in layout.lengths.items()}
    layout.pack(layout.join(tensors), [7.0, 8.0], packed)
    made = tf.function(layout.vectors)(layout.join(tensors), tf.constant([7.0, 8.0]))
    assert [vector.numpy().tolist() for vector in made] == [vector.tolist() for vector in packed.values()]
