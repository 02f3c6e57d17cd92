"""Whole TPU slices among the nodes of a Ray cluster. Pure functions over what Ray says of its nodes.

A slice is taken with all its nodes or not at all: its chips run one program, which a missing node stops.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.config import RayConfig
from cluster.ray_nodes import Node, resources, slots_within

# Labels that Ray gives the nodes of a slice.
_NAME, _NUMBER = "ray.io/tpu-slice-name", "ray.io/tpu-worker-id"
_TYPE, _SHAPE = "ray.io/tpu-pod-type", "ray.io/tpu-topology"
_CHIPS = "TPU"


@dataclass(frozen=True)
class RaySlice:
    """A slice whose nodes are all there.

    Attributes:
        name: of the TPU.
        nodes: in the order of their numbers; the first one has the worker.
    """

    name: str
    nodes: tuple[Node, ...]

    @property
    def head(self) -> Node:
        """The node that has the worker."""
        return self.nodes[0]

    @property
    def is_free(self) -> bool:
        """Whether nobody uses a chip of it, and none of its nodes is about to go."""
        return all(
            node.available.get(_CHIPS, 0.0) >= node.total[_CHIPS] and node.leaves_at is None for node in self.nodes
        )

    def bundles(self, config: RayConfig) -> list[dict[str, float]]:
        """What a placement group takes of each node: every chip, and on the first one what the worker needs."""
        chips = [{_CHIPS: node.total[_CHIPS]} for node in self.nodes]
        return [chips[0] | resources(config, 1), *chips[1:]]

    def selectors(self) -> list[dict[str, str]]:
        """The labels of the node of each bundle."""
        return [{_NAME: self.name, _NUMBER: node.labels[_NUMBER]} for node in self.nodes]


def whole_slices(nodes: Sequence[Node], kind: str) -> list[RaySlice]:
    """The slices of a type that have all their nodes, by name.

    Args:
        nodes: that live.
        kind: type of the slice, such as "v5litepod-16".

    >>> labels = {"ray.io/tpu-slice-name": "one", "ray.io/tpu-pod-type": "v5litepod-8", "ray.io/tpu-topology": "2x4"}
    >>> chips = {"TPU": 4.0}
    >>> first, second = (
    ...     Node(id, "", "", chips, chips, labels=labels | {"ray.io/tpu-worker-id": number})
    ...     for id, number in (("a", "0"), ("b", "1"))
    ... )
    >>> [(found.name, found.head.id) for found in whole_slices([second, first], "v5litepod-8")]
    [('one', 'a')]
    >>> whole_slices([first], "v5litepod-8")
    []
    """
    members: dict[str, list[Node]] = {}
    for node in nodes:
        if node.labels.get(_TYPE) == kind and node.labels.get(_NUMBER, "").isdigit() and node.total.get(_CHIPS):
            members.setdefault(node.labels.get(_NAME, ""), []).append(node)
    slices = []
    for name, found in sorted(members.items()):
        found.sort(key=lambda node: int(node.labels[_NUMBER]))
        numbers = [int(node.labels[_NUMBER]) for node in found]
        # Ray's resource counts chips, or half chips where each of a chip's parts is a device.
        has_all_chips = sum(node.total[_CHIPS] for node in found) >= _chips(found[0].labels)
        if name and numbers == list(range(len(found))) and has_all_chips:
            slices.append(RaySlice(name, tuple(found)))
    return slices


def free_slices(slices: Sequence[RaySlice], config: RayConfig) -> list[RaySlice]:
    """Those that a run may take: nobody uses them, and the worker fits on the first node."""
    return [one for one in slices if one.is_free and slots_within(config, one.head.available, 1)]


def slice_shortage(config: RayConfig, slices: Sequence[RaySlice], nodes: Sequence[Node]) -> str | None:
    """Why no slice can serve the run even if nothing else ran on it; None: one can.

    Args:
        config: what is asked for.
        slices: the whole ones of its type.
        nodes: all that live.
    """
    if any(slots_within(config, one.head.total, 1) for one in slices):
        return None
    if slices:
        return (
            f"a worker with {config.cpus_per_worker:g} CPU is needed on the first node of a {config.slice}, and "
            f"{slices[0].name} has {slices[0].head.total.get('CPU', 0):g}: lower cluster.ray.cpus_per_worker"
        )
    types = sorted({node.labels[_TYPE] for node in nodes if _TYPE in node.labels})
    parts = sum(node.labels.get(_TYPE) == config.slice for node in nodes)
    there = f"{parts} nodes of one that is not whole" if parts else f"slices of {', '.join(types)}" if types else "none"
    return f"a whole slice {config.slice} is needed, and the Ray cluster has {there}: add one, or set cluster.ray.slice"


def _chips(labels: Mapping[str, str]) -> float:
    """How many chips a slice has, by its shape."""
    parts = labels.get(_SHAPE, "").split("x")
    return math.prod(map(int, parts)) if all(part.isdigit() for part in parts) else math.inf
