import pytest

from trainer.config.strategy import StrategyConfig
from trainer.group import Group
from trainer.parameter_server.roles import Roles
from trainer.parameter_server.server import is_server


@pytest.mark.parametrize(("size", "servers"), [(2, 1), (3, 2), (1, 1)])
def test_a_group_in_which_nobody_computes_is_refused(size, servers):
    with pytest.raises(ValueError, match=f"cluster.workers={size} must be at least {servers + 2}"):
        Roles(size, servers)


def test_every_rank_has_the_task_at_its_address():
    roles, addresses = Roles(6, 2), [f"host:{port}" for port in range(6)]
    cluster = roles.cluster(addresses)
    for rank, address in enumerate(addresses):
        job, number = roles.task(rank)
        assert cluster[job][number] == address
    assert roles.workers == len(cluster["worker"]) == 3


def test_only_the_coordinator_trains():
    config, addresses = StrategyConfig(name="parameter_server"), ("a:1", "b:1", "c:1")
    assert [is_server(config, Group(rank, addresses)) for rank in range(3)] == [False, True, True]
    assert not is_server(StrategyConfig(name="multi_worker_mirrored"), Group(1, addresses))
    assert not is_server(config, None)
