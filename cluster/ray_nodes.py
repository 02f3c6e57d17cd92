"""Which nodes of a Ray cluster a run takes, and how many workers fit on each. Pure functions over what Ray says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.config import RayConfig


@dataclass(frozen=True)
class Node:
    """A living node of a Ray cluster.

    Attributes:
        id: Ray's.
        name: its hostname.
        address: its own address, IPv4 or IPv6.
        total: what it has, by Ray's names of resources.
        available: what nobody has taken of it.
        leaves_at: seconds since 1970 when it goes; 0: it goes at a time that nobody said; None: it stays.
        labels: by Ray's names of labels.
    """

    id: str
    name: str
    address: str
    total: Mapping[str, float]
    available: Mapping[str, float]
    leaves_at: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def resources(config: RayConfig, slots: int) -> dict[str, float]:
    """What an agent with so many slots takes, by Ray's names.

    >>> resources(RayConfig(cpus_per_worker=2.0, gpus_per_worker=1), 3)
    {'CPU': 6.0, 'GPU': 3.0}
    """
    wanted = {"CPU": config.cpus_per_worker * slots, "GPU": float(config.gpus_per_worker * slots)}
    return {name: amount for name, amount in wanted.items() if amount}


def slots_within(config: RayConfig, room: Mapping[str, float], most: int) -> int:
    """How many workers fit into what a node has, or has left.

    Args:
        config: what each takes.
        room: what there is, by Ray's names.
        most: more are not needed.

    >>> slots_within(RayConfig(gpus_per_worker=2), {"CPU": 64.0, "GPU": 8.0}, most=16)
    4
    """
    fits = [
        math.floor(room.get(name, 0.0) / amount + 1e-9)  # ten tenths of a CPU are one
        for name, amount in resources(config, 1).items()
    ]
    # One process drives all chips of a slice.
    return min([*fits, most, 1 if config.slice else config.workers_per_node or most])


def names_of(nodes: Sequence[Node]) -> dict[str, str]:
    """What to call each node, by Ray's id: its hostname, with a part of its id where nodes share that.

    >>> one, two = (Node(id, "rack1", "10.0.0.1", {}, {}) for id in ("a1b2c3d4", "f0f0f0f0"))
    >>> names_of([one]), names_of([one, two])
    ({'a1b2c3d4': 'rack1'}, {'a1b2c3d4': 'rack1-a1b2c3', 'f0f0f0f0': 'rack1-f0f0f0'})
    """
    hostnames = [node.name for node in nodes]
    return {node.id: node.name if hostnames.count(node.name) == 1 else f"{node.name}-{node.id[:6]}" for node in nodes}


def choose(config: RayConfig, nodes: Sequence[Node], held: Sequence[int], workers: int) -> list[tuple[Node, int]]:
    """The nodes to take besides those that the run has, with their slots.

    As many are taken as the run needs to lose `spare_nodes` of them, the largest ones, and go on with all workers. The
    roomiest come first.

    Args:
        config: what each worker takes.
        nodes: that may be taken, in Ray's order.
        held: the slots of each node that the run has already.
        workers: the most workers of a generation.
    """
    room = [(node, slots_within(config, node.available, workers)) for node in nodes if node.leaves_at is None]
    room.sort(key=lambda entry: -entry[1])
    slots, chosen = list(held), []
    for node, fits in room:
        if fits < 1 or suffices(config, slots, workers):
            break
        chosen.append((node, fits))
        slots.append(fits)
    return chosen


def suffices(config: RayConfig, slots: Sequence[int], workers: int) -> bool:
    """Whether nodes with so many slots each carry the workers, also when the spare nodes are lost.

    >>> suffices(RayConfig(spare_nodes=1), [2, 2], workers=2), suffices(RayConfig(spare_nodes=1), [2], workers=2)
    (True, False)
    """
    spare = 0 if config.slice else config.spare_nodes
    return sum(sorted(slots, reverse=True)[spare:]) >= workers


def shortage(config: RayConfig, nodes: Sequence[Node], workers: int) -> str | None:
    """Why these nodes cannot carry the workers even if nothing else ran on them; None: they can.

    Args:
        config: what each worker takes.
        nodes: all that live.
        workers: the fewest workers of a generation.
    """
    slots = [slots_within(config, node.total, workers) for node in nodes]
    if sum(slots) >= workers:
        return None
    each = f"{config.cpus_per_worker:g} CPU" + (f" and {config.gpus_per_worker} GPU" if config.gpus_per_worker else "")
    listed = "; ".join(
        f"{node.name} has {node.total.get('CPU', 0):g} CPU and {node.total.get('GPU', 0):g} GPU" for node in nodes[:4]
    )
    return (
        f"{workers} workers with {each} each are needed, and the Ray cluster has room for {sum(slots)} ({listed}"
        f"{', ...' if len(nodes) > 4 else ''}): add nodes, or lower cluster.workers, cluster.ray.cpus_per_worker or "
        "cluster.ray.gpus_per_worker"
    )
