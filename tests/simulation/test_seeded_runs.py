"""Thousands of runs with machines, networks and supervisors that fail, each drawn from its seed."""

import hashlib
import os
import subprocess
import sys
from collections import Counter

import pytest

from cluster.simulation.scenario import SERVED_EVERY, draw_scenario
from cluster.simulation.simulation import Observer, Simulation
from cluster.supervisor.commands import Command, Kill
from cluster.supervisor.events import Event, Heartbeat, PeerAccused, Progressed, SnapshotTaken, Ticked
from tests.simulation.invariants import Invariants

PARTS = 8
SEEDS, SEEDS_LONG = 4_000, 100_000


def run_seed(seed: int, *observers: Observer) -> Simulation:
    """Runs a simulation; a broken invariant names the command that replays it."""
    simulation = Simulation(draw_scenario(seed))
    simulation.observers.extend(observers)
    invariants = Invariants(simulation)
    try:
        simulation.run()
        invariants.at_the_end()
    except Exception as error:
        raise AssertionError(f"{error}\nreplay it with: pytest tests/simulation --seed {seed} -s") from error
    return simulation


def print_event(event: Event, commands: list[Command]) -> None:
    if commands or not isinstance(event, Ticked | Heartbeat | Progressed | SnapshotTaken):
        print(event)
        for command in commands:
            print("    ->", command)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_run_keeps_the_invariants_and_comes_to_an_end(part: int, only_seed: int | None, is_long: bool) -> None:
    if only_seed is not None:
        if part:
            pytest.skip("one seed is one run")
        print(draw_scenario(only_seed))
        run_seed(only_seed, print_event)
        return
    outcomes: Counter[str] = Counter()
    convicted: Counter[str] = Counter()

    def note(event: Event, commands: list[Command]) -> None:
        if isinstance(event, PeerAccused):
            convicted.update(command.worker == event.worker for command in commands if isinstance(command, Kill))

    for seed in range(part, SEEDS_LONG if is_long else SEEDS, PARTS):
        outcome = run_seed(seed, note).supervisor.outcome
        outcomes[outcome.outcome if outcome else "waiting"] += 1
    # All ends are reached: none of the invariants that speak of them is empty.
    assert outcomes.keys() == {"finished", "failed", "stopped", "no_resources", "waiting"}
    assert outcomes["finished"] > sum(outcomes.values()) / 3
    if part % SERVED_EVERY != SERVED_EVERY - 1:  # all runs of such a part have servers, whose groups are TensorFlow's
        assert convicted.keys() == {False, True}, "members that send wrong data, and accusers of others, are replaced"


def digest(seeds: range) -> str:
    text = "\n".join(repr(entry) for seed in seeds for entry in run_seed(seed).journal)
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    # The order of sets and of hashes of strings changes from process to process: it must not matter.
    program = "from tests.simulation.test_seeded_runs import digest; print(digest(range(40)))"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_failing_seed_names_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def act_twice(self: Invariants) -> None:
        raise AssertionError("two generations act")

    monkeypatch.setattr(Invariants, "at_the_end", act_twice)
    with pytest.raises(AssertionError, match=r"two generations act\n.*pytest tests/simulation --seed 3\b"):
        run_seed(3)
