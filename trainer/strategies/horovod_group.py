"""Forms Horovod's group out of processes that somebody else has started, and adds up in it.

Of Horovod's own launchers nothing is used: ranks follow from the addresses of the workers, the chief's process answers
at its own address while the workers find each other, and the end of a worker is its supervisor's to notice.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import importlib
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psutil
import tensorflow as tf

from trainer.group import Group
from trainer.strategies.horovod_installation import check_horovod

# How long workers may take to find each other, and how long one may not answer within a reduction.
WAIT_S = 60
_LOOK_S = 0.005
_ANSWER_S = 5.0


class NotTogether(ConnectionError):
    """The workers have not found each other in time, or one of them is gone."""


class Places(NamedTuple):
    """Where a worker stands, as Horovod counts it: among all, on its host, and among those of its rank on all hosts."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int


def places(addresses: Sequence[str], rank: int) -> Places:
    """A worker's places.

    Args:
        addresses: "host:port" of every worker, by rank; those of one host have the same host.
        rank: Of the worker.

    >>> places(("10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1"), 1)
    Places(rank=1, size=3, local_rank=1, local_size=2, cross_rank=0, cross_size=1)
    >>> places(("10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1"), 2)
    Places(rank=2, size=3, local_rank=0, local_size=1, cross_rank=1, cross_size=2)
    """
    hosts = [_split(address)[0] for address in addresses]
    local_rank = hosts[:rank].count(hosts[rank])
    crossed = [host for host in dict.fromkeys(hosts) if hosts.count(host) > local_rank]
    return Places(rank, len(hosts), local_rank, hosts.count(hosts[rank]), crossed.index(hosts[rank]), len(crossed))


def environment_of(group: Group, interface: str, wait_s: int = WAIT_S) -> dict[str, str]:
    """What Horovod's library reads from the environment of a worker.

    Args:
        group: Of the worker.
        interface: Of the network, at which the worker has its address.
        wait_s: Time limit.
    """
    host, port = _split(group.addresses[0])
    own_host, _ = _split(group.addresses[group.rank])
    own_places = places(group.addresses, group.rank)._asdict()
    return {
        **{f"HOROVOD_{name.upper()}": str(value) for name, value in own_places.items()},
        "HOROVOD_HOSTNAME": own_host,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": f"[{host}]" if ":" in host else host,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_IFACE": interface,
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(wait_s),
        # What is added up together must depend on nothing but the step. One vector is all there is to join.
        "HOROVOD_FUSION_THRESHOLD": "0",
        "HOROVOD_AUTOTUNE": "0",
        "HOROVOD_HIERARCHICAL_ALLREDUCE": "0",
        "HOROVOD_HIERARCHICAL_ALLGATHER": "0",
        # An evaluation or a write may take long. Whoever hangs is the supervisor's to find.
        "HOROVOD_STALL_CHECK_DISABLE": "1",
    }


def interface_of(host: str, interfaces: Mapping[str, Sequence[Any]]) -> str:
    """The network interface that has an address.

    Args:
        host: One of this host's addresses or names.
        interfaces: As `psutil.net_if_addrs` gives them.

    Raises:
        NotTogether: There is none.
    """
    found = {_without_zone(each[4][0]) for each in socket.getaddrinfo(host, None)}
    for name, addresses in interfaces.items():
        of_network = (each for each in addresses if each.family in (socket.AF_INET, socket.AF_INET6))
        if any(_without_zone(each.address) in found for each in of_network):
            return name
    raise NotTogether(f"no network interface of this host has the address {host}: `ip address` lists what they have")


class HorovodGroup:
    """This process as a member; it waits until all are there.

    Args:
        group: All members; at least two. The chief's port may be held by a socket with SO_REUSEPORT that does not
            listen.
        wait_s: How long to wait for them.

    Raises:
        HorovodNotUsable: Horovod is not installed, or does not fit TensorFlow.
        NotTogether: They have not come in time.
    """

    def __init__(self, group: Group, wait_s: int = WAIT_S) -> None:
        self._hvd = import_horovod()
        own_host, _ = _split(group.addresses[group.rank])
        os.environ.update(environment_of(group, interface_of(own_host, psutil.net_if_addrs()), wait_s))
        os.environ.pop("HOROVOD_ELASTIC", None)
        with _rendezvous(group.addresses[0]) if group.is_chief else contextlib.nullcontext():
            # Before Horovod begins, which ends the process at its time limit and says nothing of who is missing.
            meet(group, wait_s)
            self._hvd.init()
            # Until all have come so far they ask the chief's server.
            self.sum(tf.zeros([1]), "together").numpy()

    def sum(self, tensor: tf.Tensor, name: str) -> tf.Tensor:
        """The sum of all members' tensors; inside of a graph too. The same name and shape with every member."""
        with self._place():
            return self._hvd.allreduce(tensor, op=self._hvd.Sum, name=name, ignore_name_scope=True)

    def gather(self, tensor: tf.Tensor, name: str) -> tf.Tensor:
        """Every member's tensor, [W, ...] by rank."""
        with self._place():
            return self._hvd.allgather(tensor[None], name=name, ignore_name_scope=True)

    def from_chief(self, tensor: tf.Tensor, name: str) -> tf.Tensor:
        """The chief's tensor."""
        with self._place():
            return self._hvd.broadcast(tensor, root_rank=0, name=name, ignore_name_scope=True)

    def leave(self) -> None:
        """Ends the membership of all members; called by each when nobody needs the group any more."""
        self._hvd.shutdown()

    def _place(self) -> contextlib.AbstractContextManager:
        # Without NCCL it adds up in the host's memory, wherever the gradients are.
        return contextlib.nullcontext() if self._hvd.nccl_built() else tf.device("CPU:0")


def import_horovod() -> Any:
    """Horovod's module for TensorFlow.

    Raises:
        HorovodNotUsable: It is not installed, or does not fit TensorFlow.
    """
    check_horovod()
    return importlib.import_module("horovod.tensorflow")


@contextlib.contextmanager
def _rendezvous(address: str) -> Iterator[None]:
    """Answers workers that look for each other, at this address alone.

    Horovod's own server class; Horovod itself lets it listen on every address of the host, at a port of its choice.
    """
    server = importlib.import_module("horovod.runner.http.http_server")
    host, port = _split(address)

    class Server(server.RendezvousHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

        def server_bind(self) -> None:
            # Shared with the socket that has kept the port for this worker since before anybody was told of it.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self.socket.bind(self.server_address)
            self.server_name, self.server_port = self.server_address[:2]  # without asking who that is

    listening = Server((host, port), server.RendezvousHandler, 0)
    thread = threading.Thread(target=listening.serve_forever, args=(_LOOK_S,), name="rendezvous", daemon=True)
    thread.start()
    try:
        yield
    finally:
        listening.shutdown()
        listening.server_close()


def meet(group: Group, wait_s: float) -> None:
    """Says to the chief's server that this worker is there, and waits until all are.

    Raises:
        NotTogether: They have not come in time.
    """
    deadline = time.monotonic() + wait_s
    is_known, missing = False, set(range(group.size))
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):  # the chief may not have come so far
            is_known = is_known or _answer(group, "PUT", group.rank)
            missing = {rank for rank in missing if not _answer(group, "GET", rank)} if is_known else missing
        if not missing:
            return
        if time.monotonic() > deadline:
            where = ", ".join(f"{rank} of {group.addresses[rank]}" for rank in sorted(missing))
            raise NotTogether(
                f"of {group.size} workers these have not come to Horovod's group in {wait_s:g} s: {where}"
            )
        time.sleep(_LOOK_S)


def _answer(group: Group, method: str, rank: int) -> bool:
    """Whether the chief's server has what it is asked for."""
    host, port = _split(group.addresses[0])
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
    try:
        connection.request(method, f"/members-{group.generation}/{rank}", body=b"" if method == "GET" else b"here")
        return connection.getresponse().status == http.HTTPStatus.OK
    finally:
        connection.close()


def _without_zone(address: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(str(address).partition("%")[0])


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
