from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from cluster.ray_cluster import RayCluster
from cluster.ray_keeper import start_on_ray
from tests.cluster.agent_workers import wait_until
from tests.cluster.ray_nodes import ray_nodes

pytestmark = pytest.mark.processes


def note_node(place: Path, environment: Mapping[str, str]) -> None:
    """Instead of keeping a run. The actor ends with it, which must not be before it has answered that it began."""
    import ray

    written = place.with_suffix(".new")
    written.write_text(ray.get_runtime_context().get_node_id())
    written.rename(place)
    wait_until(place.with_suffix(".seen").exists)


def test_a_run_is_kept_by_the_node_without_which_there_is_no_cluster(tmp_path):
    with ray_nodes(2) as nodes:
        start_on_ray(nodes.address, "keeper", tmp_path, partial(note_node, tmp_path / "node"))
        wait_until((tmp_path / "node").exists)
        (tmp_path / "node.seen").touch()
        cluster = RayCluster(nodes.address)
        (head,) = (node.id for node in cluster.nodes() if node.id not in nodes.alive())
        cluster.close()
    assert (tmp_path / "node").read_text() == head
