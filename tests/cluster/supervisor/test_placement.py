from cluster.supervisor.fleet import Fleet, Host
from cluster.supervisor.placement import candidates, choose_members, plan_workers


def fleet_of(**slots: int) -> Fleet:
    fleet = Fleet()
    for host, number in slots.items():
        fleet.join(host, number, now=0.0)
    return fleet


def hosts_of(fleet: Fleet) -> list[Host]:
    return list(fleet.hosts.values())


def start_ready(fleet: Fleet, *hosts: str) -> None:
    for host in hosts:
        fleet.ready(fleet.start(host, now=0.0), "10.0.0.1:4711")


def everywhere(host: str) -> bool:
    return True


def test_members_are_spread_and_standbys_come_on_top() -> None:
    fleet = fleet_of(a=2, b=2)
    assert plan_workers(hosts_of(fleet), 4, 2, everywhere).starts == ["a", "b", "a", "b", "a", "b"]


def test_hosts_where_nothing_may_start_now_are_passed_over() -> None:
    fleet = fleet_of(a=2, b=2)
    plan = plan_workers(hosts_of(fleet), 4, 1, lambda host: host == "b")
    assert plan.starts == ["b", "b"], "and no standby takes the place of a member that is to come"


def test_surplus_is_taken_from_those_that_are_not_ready_and_the_newest() -> None:
    fleet = fleet_of(a=4)
    start_ready(fleet, "a", "a", "a")
    fleet.start("a", now=1.0)
    plan = plan_workers(hosts_of(fleet), 1, 1, everywhere)
    assert [worker.name for worker in plan.surplus] == ["w4", "w3"] and not plan.starts


def test_members_are_never_surplus() -> None:
    fleet = fleet_of(a=4)
    start_ready(fleet, "a", "a", "a")
    fleet.act(list(fleet.workers.values()), now=0.0)
    assert plan_workers(hosts_of(fleet), 1, 0, everywhere).surplus == []


def test_candidates_are_bounded_by_slots() -> None:
    fleet = fleet_of(a=1, b=2)
    start_ready(fleet, "a", "a", "b")
    assert candidates(hosts_of(fleet), survivors=False) == 2


def test_neighbours_in_rank_are_neighbours_in_the_network() -> None:
    fleet = fleet_of(a=2, b=2)
    start_ready(fleet, "b", "a", "b", "a")
    members = choose_members(hosts_of(fleet), 4, survivors=False)
    assert [worker.host for worker in members] == ["a", "a", "b", "b"]
    assert [worker.host for worker in choose_members(hosts_of(fleet), 2, survivors=False)] == ["a", "b"]


def test_survivors_keep_their_order_and_come_first() -> None:
    fleet = fleet_of(a=2, b=2)
    start_ready(fleet, "a", "a", "b", "b")
    fleet.act(list(fleet.workers.values()), now=0.0)
    fleet.remove("w1")
    start_ready(fleet, "a")
    members = choose_members(hosts_of(fleet), 4, survivors=True)
    assert [worker.name for worker in members] == ["w2", "w3", "w4", "w5"]
