import pytest

from tests.trainer.sessions import small_config
from trainer.group import Group, check_group

TWO = Group(1, ("127.0.0.1:1", "127.0.0.1:2"))
TOGETHER = {"strategy": {"name": "multi_worker_mirrored"}}
ALONE = {"strategy": {"name": "one_device"}}


def test_rank_zero_is_the_chief():
    assert Group(0, TWO.addresses).is_chief and not TWO.is_chief and TWO.size == 2


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_without_an_address_is_refused(rank):
    with pytest.raises(ValueError, match=f"rank {rank} must be one of the 2"):
        Group(rank, TWO.addresses)


@pytest.mark.parametrize(
    ("config", "group", "message"),
    [
        (TOGETHER, None, "strategy.name=multi_worker_mirrored must run in a group of workers"),
        (ALONE, TWO, "strategy.name=one_device cannot spread a step over 2 workers: set strategy.name=multi_worker"),
    ],
)
def test_a_strategy_that_does_not_go_with_the_group_is_refused(config, group, message):
    with pytest.raises(ValueError, match=message):
        check_group(small_config(**config), group)


def test_what_goes_together_is_accepted():
    check_group(small_config(**TOGETHER), TWO)
    check_group(small_config(**ALONE), None)
    check_group(small_config(**ALONE), Group(0, ("127.0.0.1:1",)))
