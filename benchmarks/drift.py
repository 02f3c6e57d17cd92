"""How soon a shift raises the alarm, and how often there is one without a shift; on MNIST and on flights.

python -m benchmarks.drift [--quick] [--json FILE]

The training sample is 2,000 training samples of each data set; the traffic is drawn from the held-out split, one sample
a request, and checked every 50 requests. Without a shift every check with an alarm is a false one. A shift (images 30%
darker; flights of the three most frequent carriers left out, distances doubled) begins after 1,000 requests.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from delivery.drift.monitor import DriftMonitor
from delivery.drift.training_sample import references_of
from launch.config import load_config
from trainer.data.registry import open_source

EVERY, BEFORE, LONGEST = 50, 1000, 1500
Arrays = dict[str, np.ndarray]


def raw_samples(config: str, split: str, most: int, rng: np.random.Generator) -> Arrays:
    """Features by name, as arrays [M, ...]."""
    source = open_source(load_config(config).data, split)  # type: ignore[arg-type]
    index = rng.permutation(source.schema.num_samples)[:most]
    batch = source.read(np.sort(index).astype(np.int64))
    inputs = source.schema.inputs
    arrays = {name: np.asarray(batch[name]) for name in inputs}
    names = {name: feature.vocabulary for name, feature in inputs.items() if feature.vocabulary}
    return arrays | {name: np.array(["?", *known], object)[arrays[name]] for name, known in names.items()}


def shifted(arrays: Arrays) -> dict[str, Arrays]:
    """The injected shifts by name."""
    if "image" in arrays:
        return {"images darker": {"image": 0.7 * arrays["image"]}}
    names, counts = np.unique(arrays["carrier"].astype(str), return_counts=True)
    rare = ~np.isin(arrays["carrier"].astype(str), names[np.argsort(-counts)[:3]])
    return {
        "three carriers gone": {name: values[rare] for name, values in arrays.items()},
        "distances doubled": arrays | {"distance": 2 * arrays["distance"]},
    }


def feed(monitor: DriftMonitor, arrays: Arrays, requests: int, rng: np.random.Generator) -> None:
    """Requests of one sample each."""
    size = len(next(iter(arrays.values())))
    for index in rng.integers(0, size, requests):
        monitor.observe({name: values[index : index + 1] for name, values in arrays.items()}, {})


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: fewer streams")
    parser.add_argument("--json", type=Path, help="result file to write")
    arguments = parser.parse_args()
    machine = describe_machine(["python", "-m", "benchmarks.drift", *sys.argv[1:]])
    print_machine(machine)
    streams = 2 if arguments.quick else 10
    figures, targets = {}, []
    for config in ("configs/mnist.yaml", "configs/flights_tabular.yaml"):
        name, rng = Path(config).stem, np.random.default_rng(0)
        references = references_of(raw_samples(config, "train", 2000, rng))
        live = raw_samples(config, "held_out", 20_000, rng)
        checks = alarms = 0
        seconds = 0.0
        for _ in range(streams):
            monitor = DriftMonitor(references)
            for _ in range(60):
                started = time.perf_counter()
                feed(monitor, live, EVERY, rng)
                seconds += time.perf_counter() - started
                found = monitor.check()
                checks += bool(found.scores)
                alarms += bool(found.alarms)
        figures[name] = {"columns": len(references), "checks": checks, "false_alarms": alarms}
        figures[name]["observe_us"] = 1e6 * seconds / (streams * 60 * EVERY)
        print(f"{name}: {alarms} of {checks} checks false alarms; {figures[name]['observe_us']:.0f} us a request")
        targets.append(target_line(f"drift_false_alarms_{name}", alarms / checks, "<=0.01"))
        for shift, arrays in shifted(live).items():
            delays = []
            for _ in range(streams):
                monitor = DriftMonitor(references)
                feed(monitor, live, BEFORE, rng)
                delay = 0
                while delay < LONGEST and not monitor.check().alarms:
                    feed(monitor, arrays, EVERY, rng)
                    delay += EVERY
                delays.append(delay)
            figures[name][shift] = {"requests": delays}
            print(f"  {shift}: alarm after {np.median(delays):.0f} requests, at most {max(delays)}")
            targets.append(target_line(f"drift_requests_{name}_{shift.replace(' ', '_')}", max(delays), "<=1000"))
    print("\n".join(targets))
    if arguments.json:
        write_result(arguments.json, machine, figures, targets)


if __name__ == "__main__":
    main()
