"""A worker that computes wrongly is found before its numbers are used, and the curve stays, to the bit.

One such training is always run: that of `test_optimizer_shards.py`.
"""

import pytest

from tests.trainer.strategies.elastic_workers import Accusation, Workers, break_down
from trainer.strategies.contribution_check import judge, third
from trainer.strategies.dealing import pair

STEPS = 6
CHECKED = {"elastic": {"check_every": "2st"}, "train": {"steps": STEPS}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, long):
    return Workers(tmp_path_factory.mktemp("alone"), ["a"], train={"steps": STEPS}).train().digests


def test_comparing_changes_no_bit(undisturbed, tmp_path, long):
    workers = Workers(tmp_path, ["a", "b", "a"], **CHECKED).train()
    assert workers.sizes == [3] and workers.accusations == []
    assert workers.digests == undisturbed


def test_of_three_the_one_that_computes_wrongly_is_named_and_the_step_is_taken_without_it(undisturbed, tmp_path, long):
    workers = Workers(tmp_path, ["a", "b", "c"], **CHECKED)
    break_down(workers.workers["w1"], 3)
    workers.train()
    # The step after three is the fourth, which is compared before anything of it is applied.
    assert {one._replace(accuser="") for one in workers.accusations} == {Accusation("", ("w1",), 3, True)}
    assert "w1" not in {one.accuser for one in workers.accusations}
    assert workers.sizes == [3, 2]
    assert workers.digests == undisturbed


def test_of_two_both_are_suspects(tmp_path, long):
    workers = Workers(tmp_path, ["a", "b"], **CHECKED)
    break_down(workers.workers["w1"], 3)
    workers.train()
    assert {one._replace(accuser="") for one in workers.accusations} == {Accusation("", ("w0", "w1"), 3, False)}


@pytest.mark.parametrize(
    "hosts", ["ab", "aab", "aabb", "abcabc", "aaab", "abbbb", "aabbc", "aaa"], ids=lambda hosts: hosts
)
def test_each_is_paired_with_one_other_on_another_host_where_there_are_enough(hosts):
    checkers = pair(list(hosts))
    assert sorted(checkers) == list(range(len(hosts)))
    assert all(checker != rank for rank, checker in enumerate(checkers))
    most = max(hosts.count(host) for host in hosts)
    shared = sum(hosts[rank] == hosts[checker] for rank, checker in enumerate(checkers))
    assert shared == max(0, 2 * most - len(hosts))


@pytest.mark.parametrize("size", [3, 4, 5])
def test_a_third_is_another_one(size):
    for owner in range(size):
        for checker in set(range(size)) - {owner}:
            assert third(owner, checker, size) in set(range(size)) - {owner, checker}


def test_three_that_all_differ_are_all_suspects():
    assert judge(2, [(3, "x"), (1, "y"), (0, "z")]).suspects == (0, 1, 3)
    assert not judge(2, [(3, "x"), (1, "y"), (0, "z")]).is_proven
