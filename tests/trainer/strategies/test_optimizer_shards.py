"""Workers that hold shares of the optimizer's state draw the curve of one that holds all, whoever dies, to the bit."""

import shutil

import numpy as np
import pytest

from tests.trainer.strategies.elastic_workers import Accusation, Died, Workers, break_down, curve
from trainer.strategies.optimizer_shards import OptimizerShards, ShardsLost, deal_units, holders_of

STEPS = 8
PLAIN = {
    "optimizer": {"name": "adamw", "clip_norm": 0.5, "weight_decay": 0.01},
    "train": {"steps": STEPS, "ema": 0.9},
}
SHARDED = {**PLAIN, "elastic": {"shard_optimizer": True}, "checkpoint": {"every": "3st"}}


def shards_of(workers: Workers, name: str) -> OptimizerShards:
    shards = workers.workers[name].session.strategy._shards
    assert shards is not None
    return shards


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return Workers(tmp_path_factory.mktemp("alone"), ["a"], **PLAIN).train()


def test_each_of_four_holds_half_and_no_bit_changes(undisturbed, tmp_path, long):
    workers = Workers(tmp_path, list("abcd"), **SHARDED).train()
    assert workers.digests == undisturbed.digests
    assert curve(workers) == curve(undisturbed)
    everything = sum(unit.num_bytes for unit in shards_of(workers, "w0").units)
    held = [shards_of(workers, name).held_bytes for name in workers.workers]
    assert sum(held) == 2 * everything  # an owner and a stand-by each
    assert max(held) < everything
    for name in workers.workers:
        state = workers.workers[name].session.state
        there = {one for one in state.variables if state.variables[one].numpy().size}
        assert there == state.variables.keys() - state.absent


def break_off(workers: Workers, name: str, step: int, where: str) -> None:
    """Has a worker die within a step: before or after an operation of its shards."""
    worker = workers.workers[name]
    worker.session.strategy.train_loop(worker.session.step, worker.session.state)
    shards = shards_of(workers, name)
    whole = getattr(shards, where)

    def broken() -> None:
        if worker.session.state.step >= step:
            raise Died
        whole()

    setattr(shards, where, broken)


def test_neither_a_worker_that_computes_wrongly_nor_a_death_changes_a_bit(undisturbed, tmp_path):
    options = {"shard_optimizer": True, "check_every": "2st"}
    workers = Workers(tmp_path, list("abc"), **{**SHARDED, "elastic": options})
    break_off(workers, "w0", 6, "updated")
    break_down(workers.workers["w1"], 3)
    workers.train()
    # The step after three is the fourth, which is compared before anything of it is applied.
    assert {one._replace(accuser="") for one in workers.accusations} == {Accusation("", ("w1",), 3, True)}
    assert "w1" not in {one.accuser for one in workers.accusations}
    assert workers.sizes == [3, 2, 1]
    assert workers.digests == undisturbed.digests
    assert curve(workers) == curve(undisturbed)


# Before all have the sum, after that with the sum not applied, and between the update and the exchange.
@pytest.mark.parametrize("where", ["meet", "updated", "exchange"])
@pytest.mark.parametrize("name", ["w0", "w2"])
def test_a_death_within_a_step_costs_nothing(undisturbed, tmp_path, where, name, long):
    workers = Workers(tmp_path, list("abc"), **SHARDED)
    break_off(workers, name, 4, where)
    workers.train()
    assert workers.sizes == [3, 2]
    assert workers.digests == undisturbed.digests
    assert curve(workers) == curve(undisturbed)


def test_one_goes_on_alone_and_the_checkpoint_fits_a_run_without_shards(undisturbed, tmp_path, long):
    workers = Workers(tmp_path, list("abc"), **SHARDED)
    workers.workers["w1"].dies_at, workers.workers["w0"].dies_at = 2, 4
    workers.train()
    assert workers.sizes == [3, 2, 1] and workers.digests == undisturbed.digests
    # Three steps more, with all of the state in one worker.
    more = {**PLAIN, "train": {**PLAIN["train"], "steps": STEPS + 3}}
    alone = Workers(tmp_path, ["a"], **more).train()
    copied = shutil.copytree(undisturbed.folder.path, tmp_path / "copied")
    longer = Workers(copied, ["a"], **more).train()
    assert alone.digests == longer.digests


def test_where_both_holders_are_gone_the_others_end_and_say_so(tmp_path, long):
    workers = Workers(tmp_path, list("abcd"), **SHARDED)
    owner = 0
    both = [f"w{rank}" for rank in holders_of(owner, list("abcd"))]
    for name in both:
        break_off(workers, name, 4, "meet")
    workers.dies_together = both
    with pytest.raises(ShardsLost, match="is gone with both workers that held it"):
        workers.train()


def test_the_largest_are_dealt_first_and_the_shares_are_even():
    sizes = np.random.default_rng(0).integers(1, 1000, 60).tolist()
    for num in (1, 2, 3, 7):
        owners = deal_units(sizes, ["a"] * num)
        loads = [sum(size for size, owner in zip(sizes, owners, strict=True) if owner == rank) for rank in range(num)]
        assert max(loads) - min(loads) <= max(sizes)
