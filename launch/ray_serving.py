"""`phalanx serve --on ray`: one server on each node of a Ray cluster, and a file of those that are ready."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from delivery.serving.settings import ServingSettings
from launch.exit_code import ExitCode, RequestError
from trainer.atomic_file import write_whole

_PROGRAM = "import sys; from launch.cli import run; sys.exit(run(sys.argv[1:]))"
_OURS = ("--on", "--replicas", "--replica-cpus", "--replica-gpus", "--ray-address", "--endpoints")


@dataclass(frozen=True)
class RayServing:
    """Where servers run.

    Attributes:
        address: Of the cluster's head; None: as `RAY_ADDRESS` says, or the cluster of this machine.
        replicas: At most; None: one on each node that has room.
        cpus, gpus: Of a node, for each.
        endpoints: File that lists those that are ready, as Prometheus's file_sd_configs reads it.
    """

    address: str | None
    replicas: int | None
    cpus: float
    gpus: float
    endpoints: Path | None


def serve_on_ray(place: RayServing, settings: ServingSettings) -> int:
    """Serves until SIGTERM or SIGINT.

    Raises:
        RequestError: A log would be written by several servers.
        RayClusterError: Ray cannot be used, no node has room, or the first server fails.
    """
    for name, log in (("audit_log", settings.audit_log), ("json_log", settings.json_log)):
        if log is not None and str(log) != "-" and not log.is_absolute():
            raise RequestError(f"{name}={log} must be an absolute path with --on ray: each node writes its own there")
    from cluster.ray_copies import Copy, RayCopies

    stopped, by = threading.Event(), [int(signal.SIGTERM)]

    def stop(number: int, _: object) -> None:
        by[0] = number
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    shown: set[Copy] = set()

    def changed(copies: list[Copy]) -> None:
        if place.endpoints is not None:  # first: who reads the lines finds them there
            write_whole(place.endpoints, listed(copies))
        for copy in copies:
            if copy not in shown:
                grpc, rest = reached(copy)
                typer.echo(f"ready  gRPC {grpc}  REST {rest}  on {copy.node}")
        shown.clear()
        shown.update(copies)

    if place.endpoints is not None:
        write_whole(place.endpoints, listed([]))
    RayCopies(
        place.address,
        [sys.executable, "-c", _PROGRAM, *without_ours(sys.argv[1:])],
        place.replicas,
        place.cpus,
        place.gpus,
        changed,
        lambda text: typer.echo(text, err=True),
        settings.drain_s + 5,
    ).run(stopped)
    changed([])
    return ExitCode.STOPPED if by[0] == signal.SIGINT else ExitCode.DONE


def reached(copy) -> tuple[str, str]:
    """Addresses of gRPC and REST, as other machines reach them; `copy` is a `cluster.ray_copies.Copy`.

    >>> from cluster.ray_copies import Copy
    >>> reached(Copy("rack1", "10.0.0.7", "ready  gRPC 0.0.0.0:8500  REST 0.0.0.0:8501"))
    ('10.0.0.7:8500', '10.0.0.7:8501')
    >>> reached(Copy("here", "10.0.0.7", "ready  gRPC 127.0.0.1:8500  REST 127.0.0.1:8501"))
    ('127.0.0.1:8500', '127.0.0.1:8501')
    """
    words = copy.said.split()
    every = ("0.0.0.0", "[::]", "::")
    places = [words[2].rpartition(":"), words[4].rpartition(":")]
    grpc, rest = (f"{copy.address if host in every else host}:{port}" for host, _, port in places)
    return grpc, rest


def listed(copies: Sequence) -> str:
    """The file of those that are ready: one entry for each protocol, with its addresses as `targets`."""
    pairs = [reached(copy) for copy in copies]
    protocols = ("grpc", [pair[0] for pair in pairs]), ("rest", [pair[1] for pair in pairs])
    return json.dumps([{"targets": found, "labels": {"protocol": name}} for name, found in protocols], indent=1) + "\n"


def without_ours(words: Sequence[str]) -> list[str]:
    """A command line without what is for the launcher alone.

    >>> without_ours(["serve", "m", "--on", "ray", "--replicas=2", "--port", "0"])
    ['serve', 'm', '--port', '0']
    """
    kept, skip = [], False
    for word in words:
        name, sign, _ = word.partition("=")
        if skip:
            skip = False
        elif name in _OURS:
            skip = not sign
        else:
            kept.append(word)
    return kept
