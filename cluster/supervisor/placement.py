"""Where workers are started, and which of them become members. Pure functions over the usable hosts.

A host carries as many members as it has slots. Standbys may come on top, because they use no device until they are
members; but one that is on a full host can only step in for a member of that host.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.supervisor.fleet import Host, Worker


@dataclass(frozen=True)
class Plan:
    """What is missing and what is too much.

    Attributes:
        starts: the host of each worker to start.
        surplus: workers that are not needed, none of them a member.
    """

    starts: list[str]
    surplus: list[Worker]


def capacity(hosts: Sequence[Host]) -> int:
    """How many members the hosts can carry."""
    return sum(host.slots for host in hosts)


def plan_workers(
    hosts: Sequence[Host], wanted: int, standbys: int, may_start: Callable[[str], bool], may_spare: bool = True
) -> Plan:
    """What to start so that `wanted` members and `standbys` more have a worker; without `may_spare` no more.

    Members are spread over the hosts, so that a lost host costs as few as possible and its peers hold the state.
    """
    # Not through `remains`: called for each of ten thousand workers, it is most of a tick.
    load: dict[str, int] = {}
    free: list[tuple[int, int, Host]] = []
    seated = 0
    for host in hosts:
        count, slots = 0, host.slots
        for one in host.workers.values():
            if one.doomed_at is None and one.stop_by is None and not one.leaves:
                count += 1
        load[host.name] = count
        if count < slots:
            seated += count
            free.append((count, host.order, host))
        else:
            seated += slots
    starts: list[str] = []
    if seated < wanted:
        free = [entry for entry in free if may_start(entry[2].name)]
        heapq.heapify(free)
    while seated < wanted and free:
        _, order, host = heapq.heappop(free)
        starts.append(host.name)
        seated += 1
        load[host.name] += 1
        if load[host.name] < host.slots:
            heapq.heappush(free, (load[host.name], order, host))
    # Whoever is missing because a start has to wait is not replaced by a further standby elsewhere.
    spare = sum(load.values()) - wanted
    if may_spare and seated >= wanted and spare < standbys:
        room = [(load[host.name] - host.slots, host.order, host) for host in hosts if may_start(host.name)]
        room = [entry for entry in room if entry[0] < standbys]
        heapq.heapify(room)
        while spare < standbys and room:
            over, order, host = heapq.heappop(room)
            starts.append(host.name)
            spare += 1
            if over + 1 < standbys:
                heapq.heappush(room, (over + 1, order, host))
    return Plan(starts, _surplus(hosts, spare - standbys) if seated >= wanted else [])


def candidates(hosts: Sequence[Host], survivors: bool, starting: bool = False) -> int:
    """How many workers on these hosts could be members of one generation now.

    Args:
        hosts: the usable hosts.
        survivors: whether the members of the last generation count as well.
        starting: whether those count that are not ready yet.
    """
    if not survivors and not starting:  # which the books know, without a look at every worker
        return sum([host.num_seated for host in hosts])
    return sum(
        min(host.slots, sum(_is_fit(worker, survivors, starting) for worker in host.workers.values())) for host in hosts
    )


def choose_members(hosts: Sequence[Host], size: int, survivors: bool) -> list[Worker]:
    """The members of a generation, in the order of their ranks.

    Survivors keep their order and come first, so that rank 0 holds the state whenever one does. New members are
    spread over the hosts, and ordered by host, so that neighbours in rank are neighbours in the network.
    """
    old: list[Worker] = []
    layers: list[tuple[int, int, Worker]] = []
    for host in hosts:
        if not survivors and not host.num_standbys:
            continue
        fit = [worker for worker in host.workers.values() if _is_fit(worker, survivors)]
        if len(fit) > 1:
            # Survivors first within a host, so that they are the ones that get its slots.
            fit.sort(key=lambda worker: (worker.rank < 0, worker.rank, worker.number))
        for layer, worker in enumerate(fit[: host.slots]):
            if worker.rank >= 0:
                old.append(worker)
            else:
                layers.append((layer, host.order, worker))
    old = sorted(old, key=lambda worker: worker.rank)[:size]
    layers.sort(key=lambda entry: entry[:2])
    new = sorted(layers[: size - len(old)], key=lambda entry: (entry[1], entry[0]))
    return old + [worker for _, _, worker in new]


def _is_fit(worker: Worker, survivors: bool, starting: bool = False) -> bool:
    is_starting = starting and worker.address is None and worker.remains
    return worker.is_standby or is_starting or (survivors and worker.formed_at is not None and worker.remains)


def _surplus(hosts: Sequence[Host], too_many: int) -> list[Worker]:
    if too_many <= 0:
        return []
    idle = [worker for host in hosts for worker in host.workers.values() if worker.formed_at is None and worker.stays]
    # Those that are furthest from being ready are the cheapest to lose.
    idle.sort(key=lambda worker: (worker.address is not None, -worker.number))
    return idle[:too_many]
