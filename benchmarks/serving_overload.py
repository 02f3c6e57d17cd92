"""Three times what a server can answer, over gRPC and REST: how much of what it can is answered in time meanwhile.

python -m benchmarks.serving_overload [--quick] [--json FILE]

Trains and exports configs/mnist.yaml, starts `phalanx serve` on it several times, finds out how many requests of one
image a second it answers over each protocol, and sends three times as many over a few and over many connections, each
with a deadline of 0.25 s (benchmarks/serving_load.py). The client shares the cores with the server. Over REST a
connection has one request on its way and waits while it is refused, so what is offered is what the connections let.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from benchmarks.serving import CONNECTIONS, DEADLINE_S, FLOODS, STREAMS, Asked, asked_of, exported_model, server
from benchmarks.serving_load import Flood, Load, RestFlood

REST_CONNECTIONS = 32
REST_FLOODS = (128, 512, 1500)


def measure(package: Path, asked: Asked, starts: int, seconds: int) -> dict[str, Any]:
    """By protocol the capacity of each start, and by connections what was offered and answered, as shares of it."""
    found: dict[str, Any] = {
        kind: {"requests_per_s": [], "offered": {str(n): [] for n in floods}, "answered": {str(n): [] for n in floods}}
        for kind, floods in (("gRPC", FLOODS), ("REST", REST_FLOODS))
    }
    for _ in range(starts):
        with server(package) as (grpc_address, rest_address, _process):
            grpc = Flood(grpc_address, rest_address, asked.request, DEADLINE_S)
            rest = RestFlood(rest_address, asked.body, DEADLINE_S)

            def capacity(kind: str, seconds: int, grpc: Flood = grpc, rest: RestFlood = rest) -> float:
                if kind == "gRPC":
                    return grpc.in_flight(CONNECTIONS, STREAMS, seconds).answered
                return rest.at_rate(None, REST_CONNECTIONS, seconds).answered

            for kind, flood in (("gRPC", grpc), ("REST", rest)):
                capacity(kind, 1)
                most = capacity(kind, seconds)
                found[kind]["requests_per_s"].append(most)
                for connections in FLOODS if kind == "gRPC" else REST_FLOODS:
                    load: Load = flood.at_rate(3 * most, connections, seconds)
                    found[kind]["offered"][str(connections)].append(load.offered / most)
                    found[kind]["answered"][str(connections)].append(load.answered / most)
    return found


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    machine = describe_machine(["python", "-m", "benchmarks.serving_overload", *sys.argv[1:]])
    print_machine(machine)
    with tempfile.TemporaryDirectory() as folder:
        package = exported_model(Path(folder))
        found = measure(package, asked_of(package), *((1, 2) if options.quick else (3, 5)))
    targets = []
    print(f"\n{'':<8}{'connections':>12}{'offered':>10}{'answered':>10}")
    for kind, figures in found.items():
        most = ", ".join(f"{value:.0f}" for value in figures["requests_per_s"])
        print(f"{kind:<8}{'':>12}{'':>10}{'':>10}  of {most} requests/s")
        for connections, answered in figures["answered"].items():
            offered = statistics.median(figures["offered"][connections])
            print(f"{kind:<8}{connections:>12}{offered:>10.2f}{statistics.median(answered):>10.2f}")
            name = f"goodput_at_overload_{kind.lower()}_{connections}"
            targets.append(target_line(name, statistics.median(answered), ">=0.8"))
    print("", *targets, sep="\n")
    if options.json:
        write_result(options.json, machine, found, targets)


if __name__ == "__main__":
    main()
