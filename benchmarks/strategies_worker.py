"""One of the two workers of a contender in benchmarks/strategies.py.

python -m benchmarks.strategies_worker MODEL STRATEGY RANK FOLDER

Its training is the whole real one: loop, recorder, input. It stops before a call of the inner loop and answers with
`samples_per_s` of all workers since the last word; a word is how many steps it shall take next, all workers as many.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from benchmarks.strategies_models import BY_HAND, NUM_WORKERS, WARM_UP_STEPS, batch_size, training_config
from cluster.assignment import Member
from cluster.process_group import Endpoint, GroupAborted
from cluster.reserved_port import ReservedPort

_KEY = b"of this benchmark"
_LOOK_S = 0.01


class Turns:
    """Told of every boundary between two calls; returns in time for the next turn if this one is over."""

    def __init__(self, model: str, words: TextIO, answers: TextIO) -> None:
        self._samples = batch_size(model)
        self._words, self._answers = words, answers
        self._first, self._end = 0, WARM_UP_STEPS[model]
        self._since = time.perf_counter()

    def boundary(self, step: int, phase: str) -> None:
        """Before a call of the inner loop. The process ends with its input: there is nothing to save."""
        if phase not in ("step", "compile") or step < self._end:
            return
        speed = (step - self._first) * self._samples / (time.perf_counter() - self._since)
        print(json.dumps({"samples_per_s": speed, "steps": step - self._first}), file=self._answers, flush=True)
        word = self._words.readline()
        if not word:
            os._exit(0)
        self._first, self._end, self._since = step, step + int(word), time.perf_counter()


class OneGroup:
    """A membership of one group that never changes."""

    broken: type[Exception] = GroupAborted

    def __init__(self, endpoint: Endpoint, members: list[Member], rank: int) -> None:
        self._endpoint, self._members, self._rank = endpoint, members, rank

    def join(self):
        """The one group."""
        from trainer.group import Group
        from trainer.membership import Joined

        addresses = tuple(member.address for member in self._members)
        hosts = tuple(member.host for member in self._members)
        group = self._endpoint.join(self._members, self._rank, 1, 60.0)
        return Joined(Group(self._rank, addresses, 1), hosts, group, lambda: None, None)


def main() -> None:
    """Builds the training, then takes turns until the input ends."""
    model, strategy, rank, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a training prints goes to the log, as in a run that nobody watches

    turns = Turns(model, sys.stdin, answers)
    if strategy == BY_HAND:
        train_by_hand(model, rank, folder, turns)

    from trainer.group import Group
    from trainer.run_folder import RunFolder
    from trainer.session import build_session
    from trainer.stop_request import StopRequest
    from trainer.training import run_training

    run = RunFolder(folder / f"run-{rank}")
    run.create()
    config = training_config(model, strategy, str(folder))
    with ReservedPort("127.0.0.1") as port:
        if strategy == "one_device":
            run_training(config, run, StopRequest(), on_progress=turns.boundary)
        elif strategy in ("multi_worker_mirrored", "horovod"):
            addresses = exchanged(folder, rank, port.address, NUM_WORKERS)
            run_training(config, run, StopRequest(), Group(rank, tuple(addresses)), on_progress=turns.boundary)
        else:
            with Endpoint(f"w{rank}", "127.0.0.1", _KEY, folder / "shared") as endpoint:
                addresses = exchanged(folder, rank, endpoint.address, NUM_WORKERS)
                members = [Member(f"w{i}", "localhost", i, address) for i, address in enumerate(addresses)]
                session = build_session(config, membership=OneGroup(endpoint, members, rank))
                session.warm_up(NUM_WORKERS)
                run_training(config, run, StopRequest(), session=session, on_progress=turns.boundary)


def train_by_hand(model: str, rank: int, folder: Path, turns: Turns) -> None:
    """The loop that one writes by hand; it ends the process."""
    from benchmarks.mirrored_loop import train

    def note(event: str, step: int = 0, **_: Any) -> None:
        if event == "step":
            turns.boundary(step, "step")

    os.environ["TF_GRPC_REUSE_PORT"] = "1"
    with ReservedPort("127.0.0.1") as port:
        addresses = exchanged(folder, rank, port.address, NUM_WORKERS)
        task = {"type": "worker", "index": rank}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        train(model, rank, note, str(folder / "never"))


def exchanged(folder: Path, rank: int, address: str, size: int) -> list[str]:
    """The addresses of all workers, by rank; each calls this with its own."""
    written = folder / f"{rank}.new"
    written.write_text(address)
    written.rename(folder / f"{rank}.address")
    files = [folder / f"{other}.address" for other in range(size)]
    while not all(file.exists() for file in files):
        time.sleep(_LOOK_S)
    return [file.read_text() for file in files]


if __name__ == "__main__":
    main()
