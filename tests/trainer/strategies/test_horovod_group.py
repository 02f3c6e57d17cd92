import socket

import psutil
import pytest

from trainer.group import Group
from trainer.strategies.horovod_group import NotTogether, environment_of, interface_of, meet, places

FOUR = ("10.0.0.1:1", "10.0.0.2:1", "10.0.0.1:2", "10.0.0.3:1")


@pytest.mark.parametrize(
    ("rank", "local", "cross"),
    [(0, (0, 2), (0, 3)), (1, (0, 1), (1, 3)), (2, (1, 2), (0, 1)), (3, (0, 1), (2, 3))],
)
def test_places_are_counted_by_host(rank, local, cross):
    found = places(FOUR, rank)
    assert (found.rank, found.size) == (rank, 4)
    assert (found.local_rank, found.local_size) == local and (found.cross_rank, found.cross_size) == cross


def test_the_group_meets_at_the_chiefs_own_address_with_a_time_limit():
    environment = environment_of(Group(2, FOUR), "eth7", 11)
    assert environment["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "10.0.0.1"
    assert environment["HOROVOD_GLOO_RENDEZVOUS_PORT"] == "1"
    assert environment["HOROVOD_GLOO_TIMEOUT_SECONDS"] == "11"
    assert environment["HOROVOD_GLOO_IFACE"] == "eth7" and environment["HOROVOD_HOSTNAME"] == "10.0.0.1"
    assert (environment["HOROVOD_RANK"], environment["HOROVOD_LOCAL_RANK"]) == ("2", "1")
    assert environment["HOROVOD_FUSION_THRESHOLD"] == "0", "what is joined must not depend on time"
    assert environment_of(Group(0, ("[::1]:5", "[::1]:6")), "lo")["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "[::1]"


def test_the_interface_is_the_one_with_the_address():
    name = interface_of("127.0.0.1", psutil.net_if_addrs())
    assert "127.0.0.1" in {each.address for each in psutil.net_if_addrs()[name]}
    with pytest.raises(NotTogether, match=r"no network interface of this host has the address 192\.0\.2\.1"):
        interface_of("192.0.2.1", psutil.net_if_addrs())


def test_whoever_does_not_come_is_named_when_the_time_is_up():
    with socket.socket() as held:  # bound, not listening: the chief that has not come
        held.bind(("127.0.0.1", 0))
        chief = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(NotTogether, match=rf"in 0\.1 s: 0 of {chief}, 1 of 127\.0\.0\.1:1$"):
            meet(Group(1, (chief, "127.0.0.1:1")), 0.1)
