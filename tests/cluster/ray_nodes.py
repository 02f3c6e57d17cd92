"""A real Ray cluster of several nodes on this machine, for tests: nodes can be killed, told to go, and added.

python -m tests.cluster.ray_nodes FOLDER NODES
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CPUS_PER_NODE = 2
# Half a minute is what Ray gives its own processes to start, which a loaded machine with a cold disk may exceed.
PATIENT = {"RAY_gcs_server_port_wait_time_s": "300", "RAY_raylet_start_wait_time_s": "300"}


class RayNodes:
    """The cluster, which is run by a process of its own so that this one stays free of Ray.

    Args:
        nodes: beside the head.
        environment: of all processes of the cluster, more than this one has.

    Attributes:
        address: of its head, which offers no CPU.
    """

    def __init__(self, nodes: int, environment: Mapping[str, str]) -> None:
        _have_token()
        # Ray's sockets must have short paths, wherever pytest has its folders.
        self._folder = tempfile.mkdtemp(prefix="ph-", dir="/tmp")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.ray_nodes", self._folder, str(nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(Path(self._folder) / "errors.txt").open("w"),
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "RAY_TMPDIR": self._folder,
                "RAY_AUTH_MODE": "token",
                **PATIENT,
                **environment,
            },
        )
        self.address: str = self._answer()

    def alive(self) -> list[str]:
        """The nodes that this has started and not ended, by Ray's ids, oldest first."""
        return self._ask("alive")

    def raylet(self, node: str) -> int:
        """The pid of a node's raylet."""
        return self._ask("raylet", node)

    def add(self) -> str:
        """Starts one more node."""
        return self._ask("add")

    def kill(self, node: str) -> None:
        """Ends a node's processes as a power cut does."""
        self._ask("kill", node)

    def drain(self, node: str, seconds: float) -> None:
        """Gives a node notice."""
        self._ask("drain", node, seconds)

    def fill_up(self, nodes: int) -> None:
        """Starts nodes until there are so many."""
        while len(self.alive()) < nodes:
            self.add()

    def close(self) -> None:
        self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, *request: object) -> Any:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        assert line, (Path(self._folder) / "errors.txt").read_text()[-3000:]
        return json.loads(line)


def _have_token() -> None:
    """Makes Ray's token where this user has none yet: `Cluster`, unlike `ray start` and `ray.init`, needs one there.

    The first of several processes wins, with a file that is whole from its beginning.
    """
    path = Path.home() / ".ray" / "auth_token"
    if os.environ.get("RAY_AUTH_TOKEN") or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"{path.name}.{os.getpid()}")
    own.write_text(secrets.token_hex(32))
    own.chmod(0o600)
    with suppress(FileExistsError):
        os.link(own, path)
    own.unlink()


@contextmanager
def ray_nodes(nodes: int, **environment: str) -> Iterator[RayNodes]:
    """A cluster with so many nodes beside its head."""
    cluster = RayNodes(nodes, environment)
    try:
        yield cluster
    finally:
        cluster.close()


def _serve(nodes: int) -> None:
    from ray.cluster_utils import Cluster

    # What Ray prints is not an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    size = {"object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **size})
    started: dict[str, Any] = {}

    def add() -> str:
        node = cluster.add_node(num_cpus=CPUS_PER_NODE, **size)
        started[node.node_id] = node
        return node.node_id

    def kill(node: str) -> None:
        cluster.remove_node(started.pop(node), allow_graceful=False)

    def drain(node: str, seconds: float) -> None:
        import time

        from ray._raylet import GcsClient
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = int((time.time() + seconds) * 1000)
        accepted, why = GcsClient(address=cluster.address).drain_node(node, reason, "a test", deadline_ms)
        assert accepted, why

    known = {
        "alive": lambda: list(started),
        "raylet": lambda node: started[node].all_processes["raylet"][0].process.pid,
        "add": add,
        "kill": kill,
        "drain": drain,
    }
    for _ in range(nodes):
        add()
    print(json.dumps(cluster.address), file=answers, flush=True)
    for line in sys.stdin:
        request, *arguments = json.loads(line)
        print(json.dumps(known[request](*arguments)), file=answers, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    _serve(int(sys.argv[2]))
