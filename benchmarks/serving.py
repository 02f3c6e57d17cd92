"""What serving costs, beside the direct call of the signature, in one run.

python -m benchmarks.serving [--quick] [--first-request] [--json FILE]

Trains and exports configs/mnist.yaml, starts `phalanx serve` on it several times, and asks it for one image at a time:
the first prediction after readiness (benchmarks/serving_first.py), and requests one after the other over gRPC and
REST, in turns with direct calls of the same signature in this process; then many at once over gRPC, as many as it
answers; then three times as many over a few and over many connections, each with a deadline
(benchmarks/serving_load.py). The clients share the cores with the server. With --first-request only the first part is
measured, and the others of FILE stay.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import json
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks import serving_first
from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from benchmarks.serving_load import Flood

PHALANX = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())"]
CONNECTIONS, STREAMS = 4, 16
FLOODS = (8, 32, 128)
"""Connections that three times the capacity comes over."""
DEADLINE_S = 0.25


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        starts: Of the server; in the first part for each client.
        turns: Of direct call, gRPC and REST, in each start.
        calls: Of a turn.
        load_s: Seconds of many at once, and of too many.
    """

    starts: int
    turns: int
    calls: int
    load_s: int


FULL, QUICK = Effort(starts=5, turns=4, calls=300, load_s=5), Effort(starts=2, turns=2, calls=100, load_s=2)


def exported_model(folder: Path) -> Path:
    """The package of a trained run."""
    command = [*PHALANX, "train", "configs/mnist.yaml", f"run.dir={folder}", "train.epochs=1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "mnist" / "export" / "1"


@contextlib.contextmanager
def server(package: Path) -> Iterator[tuple[str, str, psutil.Process]]:
    """Addresses of gRPC and REST, and the process, from readiness on."""
    command = [*PHALANX, "serve", f"mnist={package}", "--allow-unsigned", "--port", "0", "--rest-port", "0"]
    with (package.parent / "server.log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        if not select.select([process.stdout], [], [], 120)[0]:
            raise SystemExit(f"the server was not ready in 120 s: see {package.parent / 'server.log'}")
        words = process.stdout.readline().split()
        yield words[2], words[4], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def request_of(image: np.ndarray, name: str) -> Any:
    """A PredictRequest of one image, [1, ...]."""
    request = predict_pb2.PredictRequest()  # type: ignore[attr-defined]
    request.model_spec.name = "mnist"
    request.inputs[name].CopyFrom(tf.make_tensor_proto(image))
    return request


def timed(call: Callable[[], Any], times: int) -> list[float]:
    """Milliseconds of each of that many calls."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - started))
    return found


def rest_call(connection: http.client.HTTPConnection, body: bytes) -> None:
    """One prediction over a connection that stays."""
    connection.request("POST", "/v1/models/mnist:predict", body)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise SystemExit(f"REST answered {answer.status}")


@dataclass(frozen=True)
class Asked:
    """One image: the direct call of the signature, and the request over both protocols."""

    direct: Callable[[], Any]
    request: Any
    body: bytes


def asked_of(package: Path) -> Asked:
    """Loads the model into this process too."""
    loaded: Any = tf.saved_model.load(str(package))
    signature = loaded.signatures["serving_default"]
    ((name, spec),) = signature.structured_input_signature[1].items()
    image = np.zeros([1, *spec.shape[1:]], spec.dtype.as_numpy_dtype)
    tensor = tf.constant(image)

    def direct(_kept: Any = loaded) -> Any:
        return signature(**{name: tensor})

    timed(direct, 50)
    return Asked(direct, request_of(image, name), json.dumps({"instances": image.tolist()}).encode())


def measure_first(package: Path, asked: Asked, effort: Effort) -> dict[str, Any]:
    """By client the first requests after readiness, the medians of later ones as they are, and of a row; ms."""
    clients: dict[str, Callable[[str, str], contextlib.AbstractContextManager[serving_first.Call]]] = {
        "gRPC": lambda grpc_address, _: serving_first.grpc_connection(grpc_address, asked.request),
        "REST": lambda _, rest_address: serving_first.rest_connection(rest_address, asked.body),
        "gRPC, Python client": lambda grpc_address, _: serving_first.stock_channel(grpc_address, asked.request),
    }
    found = {}
    for name, connected in clients.items():
        first, later, row = list[float](), list[float](), list[float]()
        for _ in range(effort.starts):
            with server(package) as (grpc_address, rest_address, _process):

                def connect(connected=connected, addresses=(grpc_address, rest_address)):
                    return connected(*addresses)

                first += serving_first.paced(connect, 1)
                later += serving_first.paced(connect, 20)
                row += serving_first.in_a_row(connect, effort.calls)
        found[name] = serving_first.summary(first, later, row)
    direct = functools.partial(contextlib.nullcontext, asked.direct)
    for name, clock in (("direct", time.perf_counter), ("direct, processor", time.process_time)):
        calls = serving_first.paced(direct, 20, clock), serving_first.in_a_row(direct, effort.calls, clock)
        found[name] = serving_first.summary([], *calls)
    return found


def measure(package: Path, asked: Asked, effort: Effort) -> dict[str, Any]:
    """All other figures, times in milliseconds."""
    request, body = asked.request, asked.body
    times: dict[str, list[float]] = {"direct": [], "gRPC": [], "REST": []}
    throughput, memory = [], []
    goodput: dict[str, list[float]] = {str(connections): [] for connections in FLOODS}
    offered: dict[str, list[float]] = {str(connections): [] for connections in FLOODS}
    for _ in range(effort.starts):
        with server(package) as (grpc_address, rest_address, process), grpc.insecure_channel(grpc_address) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            grpc.channel_ready_future(channel).result(10)
            predict(request)
            host, _, port = rest_address.rpartition(":")
            connection = http.client.HTTPConnection(host, int(port))
            rest_call(connection, body)
            for _ in range(effort.turns):
                times["direct"] += timed(asked.direct, effort.calls)
                times["gRPC"] += timed(lambda predict=predict: predict(request), effort.calls)
                times["REST"] += timed(lambda connection=connection: rest_call(connection, body), effort.calls)
            connection.close()
            flood = Flood(grpc_address, rest_address, request, DEADLINE_S)
            flood.in_flight(CONNECTIONS, STREAMS, 1)
            capacity = flood.in_flight(CONNECTIONS, STREAMS, effort.load_s).answered
            throughput.append(capacity)
            for connections in FLOODS:
                load = flood.at_rate(3 * capacity, connections, effort.load_s)
                goodput[str(connections)].append(load.answered / capacity)
                offered[str(connections)].append(load.offered / capacity)
            memory.append(process.memory_info().rss / 2**20)
    return {
        "effort": vars(effort),
        "milliseconds": {
            kind: {"p50": statistics.median(found), "p99": float(np.percentile(found, 99))}
            for kind, found in times.items()
        },
        "requests_per_s": throughput,
        "offered_over_capacity": offered,
        "goodput_over_capacity": goodput,
        "memory_mib": memory,
    }


def targets_of(figures: dict[str, Any]) -> list[str]:
    """One line a target."""
    p50 = {kind: found["p50"] for kind, found in figures["milliseconds"].items()}
    return [
        target_line("grpc_p50_over_direct_ms", p50["gRPC"] - p50["direct"], "<1.0"),
        target_line("requests_per_s", statistics.median(figures["requests_per_s"]), ">=2000"),
        *first_targets_of(figures["first_request_ms"]),
        *(
            target_line(f"goodput_at_overload_{connections}", statistics.median(found), ">=0.8")
            for connections, found in figures["goodput_over_capacity"].items()
        ),
    ]


def first_targets_of(clients: dict[str, Any]) -> list[str]:
    """Beside later requests that come as the first one does, and beside those of a row."""
    return [
        target_line(f"first_request_over_{name}_{kind}", statistics.median(clients[kind]["first"]) / beside, "<=1.5")
        for kind in ("gRPC", "REST")
        for name, beside in (("paced", clients[kind]["paced_p50"]), ("in_a_row", clients[kind]["in_a_row_p50"]))
    ]


def replace_first(path: Path, machine: dict[str, Any], first: dict[str, Any]) -> None:
    """Puts the first part into an earlier result, with the machine and the command that it was measured by."""
    earlier = json.loads(path.read_text())
    figures = earlier["figures"] | {"first_request_ms": first, "first_request_machine": machine}
    write_result(path, earlier["machine"], figures, targets_of(figures))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--first-request", action="store_true", help="measure the first part only")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    machine = describe_machine(["python", "-m", "benchmarks.serving", *(arguments or sys.argv[1:])])
    print_machine(machine)
    effort = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        package = exported_model(Path(folder))
        asked = asked_of(package)
        first = measure_first(package, asked, effort)
        figures = {} if options.first_request else measure(package, asked, effort)
    print(f"\n{'first request, ms':<24}{'first':>9}{'paced p50':>12}{'in a row p50':>15}")
    for client, found in first.items():
        shown = f"{statistics.median(found['first']):.2f}" if found["first"] else "-"
        print(f"  {client:<22}{shown:>9}{found['paced_p50']:>12.2f}{found['in_a_row_p50']:>15.2f}")
    if options.first_request:
        targets = first_targets_of(first)
        print("", *targets, sep="\n")
        if options.json:
            replace_first(options.json, machine, first)
        return
    figures["first_request_ms"] = first
    print(f"\n{'one image':<12}{'p50 ms':>9}{'p99 ms':>9}")
    for kind, found in figures["milliseconds"].items():
        print(f"  {kind:<10}{found['p50']:>9.2f}{found['p99']:>9.2f}")
    for name in ("requests_per_s", "memory_mib"):
        print(f"{name}: {', '.join(f'{value:.4g}' for value in figures[name])}")
    for name in ("offered_over_capacity", "goodput_over_capacity"):
        for connections, found in figures[name].items():
            print(f"{name}, {connections} connections: {', '.join(f'{value:.3g}' for value in found)}")
    targets = targets_of(figures)
    print("", *targets, sep="\n")
    if options.json:
        write_result(options.json, machine, figures, targets)


if __name__ == "__main__":
    main()
