"""One of the two workers of a contender in benchmarks/overlap.py.

python -m benchmarks.overlap_worker MODEL OVERLAP RANK FOLDER

Its training is the whole real one, in a group of two hosts that talk over loopback. It stops before a call of the inner
loop and answers with `seconds` of one step since the last word. A word is JSON: `what` comes next (`steps`; `compute`,
steps without any exchange; `exchange`, as many sums of the same numbers without any step), how many (`number`), and at
which `rate` a socket sends, in bytes a second; 0 for no limit.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from benchmarks.strategies_worker import OneGroup, exchanged
from cluster.assignment import Member
from cluster.process_group import Endpoint
from trainer.config.training import TrainingConfig

NUM_WORKERS = 2
STEPS_PER_CALL = 4
MODELS: dict[str, dict[str, Any]] = {
    "small": {"name": "cnn", "filters": [32, 64], "dense": 1152, "dropout": 0.0},  # 4.8 million parameters
    "large": {"name": "cnn", "filters": [64, 128, 256], "dense": 2048, "dropout": 0.0},  # 8.8 million
}
STEPS, COMPUTE, EXCHANGE = "steps", "compute", "exchange"
_KEY = b"of this benchmark"
_NO_LIMIT = 0xFFFFFFFF
_SO_MAX_PACING_RATE = 47  # of Linux; Python has no name for it


def training_config(model: str, overlap: str, run_dir: str) -> TrainingConfig:
    """A training without an end, whose gradients are not one XLA program."""
    return TrainingConfig.model_validate(
        {
            "run": {"name": "run", "dir": run_dir},
            "model": MODELS[model],
            "data": {
                "name": "synthetic",
                "num_samples": 512,
                "shape": [32, 32, 3],
                "num_classes": 10,
                "batch_size": 64,
            },
            "task": {"name": "classification"},
            "train": {
                "xla": True,
                "xla_scope": "update",
                "steps": 10**9,
                "log_every": STEPS_PER_CALL,
                "steps_per_loop": STEPS_PER_CALL,
                "virtual_workers": NUM_WORKERS,
            },
            "optimizer": {"name": "adam", "learning_rate": 0.001},
            "evaluate": {"every": None},
            "checkpoint": {"every": "1000000000st"},
            "strategy": {"name": "elastic"},
            "elastic": {"overlap": overlap},
            "observe": {"tensorboard": False},
            "export": {"enabled": False},
        }
    )


class Hosts(OneGroup):
    """One group, which can be asked for."""

    collective: Any = None

    def join(self) -> Any:
        """The one group."""
        joined = super().join()
        self.collective = joined.collective
        return joined


class Alone:
    """Stands for a reduction where nothing is exchanged: the own part is the sum."""

    def __init__(self, reduction: Any) -> None:
        self._reduction = reduction

    @property
    def own(self) -> Any:
        """The first part's place, as in the reduction."""
        return self._reduction.own

    def run(self) -> Any:
        """The own part."""
        return self._reduction.own[0]


class Turns:
    """Told of every boundary between two calls; returns in time for the next turn if this one is over."""

    def __init__(self, words: TextIO, answers: TextIO) -> None:
        self._words, self._answers = words, answers
        self._first, self._end = 0, STEPS_PER_CALL
        self._since = time.perf_counter()
        self._loop: Any = None
        self._hosts: Hosts | None = None
        self._reductions: Mapping[Any, Any] = {}

    def watch(self, loop: Any, hosts: Hosts) -> None:
        """The loop that is measured, and the group that it works in."""
        self._loop, self._hosts = loop, hosts

    def boundary(self, step: int, phase: str) -> None:
        """Before a call of the inner loop. The process ends with its input: there is nothing to save."""
        if phase not in ("step", "compile") or step < self._end:
            return
        self._answer((time.perf_counter() - self._since) / (step - self._first))
        self._reductions = self._reductions or self._loop._reductions
        while True:
            line = self._words.readline()
            if not line:
                os._exit(0)
            word = json.loads(line)
            self._pace(word["rate"])
            if word["what"] != EXCHANGE:
                break
            since = time.perf_counter()
            for _ in range(word["number"]):
                for reduction in self._reductions.values():
                    reduction.run()
            self._answer((time.perf_counter() - since) / word["number"])
        alone = {dtype: Alone(reduction) for dtype, reduction in self._reductions.items()}
        self._loop._reductions = alone if word["what"] == COMPUTE else self._reductions
        self._first, self._end, self._since = step, step + word["number"], time.perf_counter()

    def _answer(self, seconds: float) -> None:
        print(json.dumps({"seconds": seconds}), file=self._answers, flush=True)

    def _pace(self, rate: int) -> None:
        """Linux keeps to it by itself, without a queueing discipline, also on loopback."""
        assert self._hosts is not None
        for link in self._hosts.collective._links._links.values():
            told = struct.pack("=I", rate or _NO_LIMIT)
            link.connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, told)


def main() -> None:
    """Builds the training, then takes turns until the input ends."""
    model, overlap, rank, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a training prints goes to the log, as in a run that nobody watches

    from trainer.run_folder import RunFolder
    from trainer.session import build_session
    from trainer.stop_request import StopRequest
    from trainer.training import run_training

    turns = Turns(sys.stdin, answers)
    run = RunFolder(folder / f"run-{rank}")
    run.create()
    config = training_config(model, overlap, str(folder))
    with Endpoint(f"w{rank}", "127.0.0.1", _KEY, None) as endpoint:
        addresses = exchanged(folder, rank, endpoint.address, NUM_WORKERS)
        members = [Member(f"w{i}", f"host-{i}", i, address) for i, address in enumerate(addresses)]
        hosts = Hosts(endpoint, members, rank)
        session = build_session(config, membership=hosts)
        session.warm_up(NUM_WORKERS)
        turns.watch(session.strategy.train_loop(session.step, session.state), hosts)
        run_training(config, run, StopRequest(), session=session, on_progress=turns.boundary)


if __name__ == "__main__":
    main()
