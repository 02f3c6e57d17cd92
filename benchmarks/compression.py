"""What `elastic.compression` saves and what it costs the loss: bytes a step, and a curve for each kind.

python -m benchmarks.compression [--steps N] [--config FILE] [--json FILE]

Two elastic workers, each a thread with a session of its own, which count as two hosts, so that all goes through
sockets. Each kind trains the same config from the same seed; `none` is the measure. Bytes are what one worker sends in
a step, frames' headers included. With two workers and two parts nobody holds a sum of some parts only, so all that
travels is compressed: with more parts than workers the rounded kinds save less.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, print_machine, write_result
from cluster.assignment import Member
from cluster.process_group import Endpoint, GroupAborted, ProcessGroup

KINDS = ("none", "bfloat16", "float16", "top_k")
NUM_WORKERS = 2
_POINTS = 8  # of a curve in the table
_JOIN_S = 60.0


class _Worker:
    """A member of the one group, as a session asks for it."""

    broken: type[Exception] = GroupAborted

    def __init__(self, rank: int, endpoints: list[Endpoint]) -> None:
        self._rank, self._endpoints = rank, endpoints
        self.group: ProcessGroup | None = None

    def join(self) -> Any:
        from trainer.group import Group
        from trainer.membership import Joined

        members = [Member(one.worker, one.worker, rank, one.address) for rank, one in enumerate(self._endpoints)]
        self.group = self._endpoints[self._rank].join(members, self._rank, 1, _JOIN_S)
        group = Group(self._rank, tuple(member.address for member in members), 1)
        return Joined(group, tuple(member.host for member in members), self.group, lambda: None, None)

    def accuse(self, *_: object) -> None:
        """Nobody checks anybody."""


def train(config: Path, steps: int, kind: str, folder: Path) -> dict[str, Any]:
    """One training: bytes a step, and (step, loss) of its curve."""
    from launch.config import load_config
    from trainer.observe.metrics_log import read_metrics
    from trainer.run_folder import RunFolder
    from trainer.session import build_session
    from trainer.stop_request import StopRequest
    from trainer.strategies.choice import choose_strategy
    from trainer.training import run_training

    overrides = [
        *("strategy.name=elastic", f"elastic.compression={kind}", f"train.virtual_workers={NUM_WORKERS}"),
        *(f"train.steps={steps}", "train.epochs=null", "train.log_every=10", "evaluate.every=null"),
        *("observe.tensorboard=false", "export.enabled=false"),
    ]
    training = load_config(config, overrides)
    endpoints = [Endpoint(f"w{rank}", "127.0.0.1", b"of this benchmark", None) for rank in range(NUM_WORKERS)]
    workers = [_Worker(rank, endpoints) for rank in range(NUM_WORKERS)]
    choice = choose_strategy(training, NUM_WORKERS, 0)
    sessions = [build_session(training, choice=choice, membership=worker) for worker in workers]
    for session in sessions:
        session.warm_up(NUM_WORKERS)
    run_folder = RunFolder(folder)
    threads = [
        threading.Thread(target=run_training, args=(training, run_folder, StopRequest()), kwargs={"session": session})
        for session in sessions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert workers[0].group is not None
    sent = workers[0].group.num_bytes_sent
    for endpoint in endpoints:
        endpoint.close()
    curve = [(line["step"], line["loss"]) for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
    return {"bytes_per_step": sent / steps, "curve": curve}


def smoothed(curve: list[tuple[int, float]], at: int, width: int) -> float:
    """The mean of the losses that were written in the `width` steps up to one."""
    near = [loss for step, loss in curve if at - width < step <= at]
    return sum(near) / len(near)


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--config", type=Path, default=Path("configs/mnist.yaml"), help="what is trained")
    parser.add_argument("--json", type=Path, help="result file to write")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    machine = describe_machine(["python", "-m", "benchmarks.compression"])
    print_machine(machine)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for kind in KINDS:
            folder = Path(place, kind)
            folder.mkdir()
            results[kind] = train(arguments.config, arguments.steps, kind, folder)
    width = max(10, arguments.steps // _POINTS)
    points = range(width, arguments.steps + 1, width)
    print(f"\n{'':10}{'bytes a step':>14}  loss, mean of {width} steps up to" + "".join(f"{at:>8}" for at in points))
    for kind, found in results.items():
        losses = "".join(f"{smoothed(found['curve'], at, width):>8.4f}" for at in points)
        share = found["bytes_per_step"] / results["none"]["bytes_per_step"]
        print(f"{kind:10}{found['bytes_per_step']:>14,.0f}  {share:>31.3f}{losses}")
    if arguments.json:
        write_result(arguments.json, machine, results, [])


if __name__ == "__main__":
    main()
