"""The connection to a Ray cluster, or a cluster of this machine alone that ends with this process."""

import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.ray_nodes import Node
from cluster.reserved_port import split_address

_log = logging.getLogger(__name__)
_ANSWER_S = 5.0
_START_S = 120
# Ray makes sockets up to about 60 characters below its folder, and the kernel takes 107 in all.
_LONGEST_FOLDER = 40
_OBJECT_STORE_BYTES = 200 << 20
# The environment of a cluster that is started here.
_OF_OUR_OWN = {
    # Ray's mode for machines without clusters: everything listens on the loopback address alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Half a minute is what Ray gives its own processes to start: a loaded machine may take longer.
    "RAY_gcs_server_port_wait_time_s": str(_START_S),
    "RAY_raylet_start_wait_time_s": str(_START_S),
}


class RayClusterError(Exception):
    """The Ray cluster cannot be used as it was asked for. The message is one sentence for the user."""


def check_installed() -> None:
    """Makes sure that Ray is there, without importing it.

    Raises:
        RayClusterError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise RayClusterError(
            "cluster.kind=ray needs Ray, which is not installed: install it with pip install 'phalanx[ray]', or set "
            "cluster.kind=local"
        )


class RayCluster:
    """This process's connection to Ray. `close` ends it, and with it a cluster that was started for it.

    Args:
        address: of the cluster's head; "auto": `RAY_ADDRESS`, else a cluster that `ray start` has started on this
            machine; None: the same, else a new one that nobody can reach from another machine.

    Attributes:
        is_own: whether the cluster was started here.
        node_address: this machine's address within the cluster.

    Raises:
        RayClusterError: there is no cluster at the address, or it refuses this process.
    """

    def __init__(self, address: str | None) -> None:
        check_installed()
        found = find_cluster(address)
        self.is_own = found is None
        self._folder: str | None = None
        # What this sets is Ray's to see while the cluster is in use, not whatever this process starts afterwards.
        self._environment = contextlib.ExitStack()
        # The import takes a second or two, and it reads the environment.
        if found is None:
            self._environment.enter_context(_defaults(_OF_OUR_OWN))
            # Of its own, so that no other process takes this cluster for one to join.
            self._folder = tempfile.mkdtemp(prefix="phalanx-ray-", dir=_short_folder())
        else:
            _check_answers(found)
        if found is None or _has_token():
            # Ray itself does so for the clusters that it starts, but not where it is given an address.
            self._environment.enter_context(_defaults({"RAY_AUTH_MODE": "token"}))
        import ray

        self._was_connected = ray.is_initialized()
        if not self._was_connected:
            _write_to_log_only()
            with _own_signal_handlers():
                self._connect(found)
        self.node_address: str = ray.util.get_node_ip_address()

    def _connect(self, address: str | None) -> None:
        import ray

        quiet: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "configure_logging": False,
        }
        own: dict[str, Any] = {
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_temp_dir": self._folder,
        }
        try:
            if address is None:
                ray.init(address="local", num_cpus=_num_cores(), **own, **quiet)
            else:
                ray.init(address=address, **quiet)
        except Exception as error:
            with contextlib.suppress(Exception):
                ray.shutdown()
            self._clean_up()
            where = "Ray cannot be started on this machine" if address is None else f"Ray at {address} refuses"
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise RayClusterError(
                f"{where} ({reason}): start phalanx on a machine of the cluster, with Ray's token in "
                "RAY_AUTH_TOKEN or ~/.ray/auth_token, and with the cluster's versions of Python and Ray"
            ) from error

    def nodes(self) -> list[Node]:
        """The living nodes, in an order of Ray's."""
        import ray
        from ray._private.state import available_resources_per_node
        from ray._private.state import state as ray_state

        available = available_resources_per_node()
        draining = ray_state.get_draining_nodes()
        return [
            Node(
                id=node["NodeID"],
                name=node["NodeManagerHostname"],
                address=node["NodeManagerAddress"],
                total=node["Resources"],
                # A node that has just come has not said yet what it has left.
                available=available.get(node["NodeID"], node["Resources"]),
                leaves_at=draining[node["NodeID"]] / 1000 if node["NodeID"] in draining else None,
                labels=node.get("Labels") or {},
            )
            for node in ray.nodes()
            if node["Alive"]
        ]

    def close(self) -> None:
        """Disconnects, and ends a cluster that was started here. A second call does nothing."""
        import ray

        if not self._was_connected and ray.is_initialized():
            with _own_signal_handlers():
                ray.shutdown()
        self._clean_up()

    def _clean_up(self) -> None:
        self._environment.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def _defaults(values: Mapping[str, str]) -> Iterator[None]:
    """Sets the variables of the environment that nobody has set, for a while."""
    missing = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def find_cluster(address: str | None) -> str | None:
    """Which cluster a `RayCluster` of this address connects to; None: it starts one.

    Raises:
        RayClusterError: the address is "auto", and there is none.
    """
    found = (None if address == "auto" else address) or _configured() or _running_here()
    if address == "auto" and found is None:
        raise RayClusterError(
            "no Ray cluster runs on this machine: start one with `ray start --head`, or leave cluster.ray.address "
            "out, so that one is started for the run"
        )
    return found


def _configured() -> str | None:
    """What `RAY_ADDRESS` says; its special values mean what they mean to Ray."""
    address = os.environ.get("RAY_ADDRESS", "")
    if "://" in address:
        raise RayClusterError(
            f"RAY_ADDRESS={address} must be host:port, because workers have to reach this machine: start phalanx on a "
            "machine of the Ray cluster"
        )
    return None if address in ("", "auto", "local") else address


def _running_here() -> str | None:
    """The cluster that `ray start` noted on this machine, if it still runs."""
    if os.environ.get("RAY_ADDRESS") == "local":
        return None
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        address = (Path(folder) / "ray" / "ray_current_cluster").read_text().strip()
        _check_answers(address)
    except (OSError, RayClusterError):
        return None
    return address


def _check_answers(address: str) -> None:
    """Ray itself waits for a minute, and then ends the process."""
    try:
        socket.create_connection(split_address(address), _ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise RayClusterError(
            f"no Ray cluster answers at {address} ({error}): start one with `ray start --head`, or set "
            "cluster.ray.address or RAY_ADDRESS to the host:port of its head"
        ) from None


def _has_token() -> bool:
    """Whether this user has Ray's token; a cluster without authentication takes no notice of it."""
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(given) or (Path.home() / ".ray" / "auth_token").exists()


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) <= _LONGEST_FOLDER else "/tmp"


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_to_log_only() -> None:
    """What Ray has to say goes where the launcher's own log records go, and not to the terminal."""
    import ray._private.worker as driver

    logger = logging.getLogger("ray")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.propagate = True
    # Pages of text about each actor and node that has ended, of which the run says all in one line. There is no switch.
    driver.print_to_stdstream = lambda data, *_, **__: _log.info("%s", "\n".join(data["lines"]))


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Ray puts handlers of its own in place, which end the process without saving anything: ours stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def seconds_until(leaves_at: float) -> float:
    """Seconds until a node goes; for one that said no time, none are certain."""
    return max(0.0, leaves_at - time.time()) if leaves_at else 0.0
