"""The goodput ledger over simulated runs: it adds up whatever happens, and agrees with what the machines really did."""

import math
from dataclasses import replace

import pytest

from cluster.simulation.scenario import Scenario, draw_scenario
from cluster.simulation.simulation import Simulation
from tests.simulation.invariants import Invariants
from trainer.goodput.account import Account
from trainer.goodput.phases import PHASES, PRODUCTIVE
from trainer.goodput.supervised import Ledger

SEEDS = 400
# Faults that neither slow a round down nor let a generation wait without anybody knowing why.
PLAIN_FAULTS = ("kill a worker", "host crashes", "host crashes and returns", "preemption wave", "host joins")
MESSAGE_S = 0.05


def run(scenario: Scenario) -> tuple[Account, Simulation, int]:
    """The account, and how many rounds the workers really made."""
    simulation = Simulation(scenario)
    rounds = 0

    def count(group: object) -> None:
        nonlocal rounds
        rounds += 1

    simulation.machines.on_round = count
    simulation.run()
    ledger = Ledger()
    for record in simulation.records():
        ledger.add(record)
    return ledger.account(), simulation, rounds


def seconds_of(simulation: Simulation) -> float:
    times = [event.at for event, _ in simulation.journal]
    return max(times) - times[0]


@pytest.mark.parametrize("part", range(4))
def test_every_second_of_every_run_belongs_to_one_phase(part: int) -> None:
    seen: set[str] = set()
    for seed in range(part, SEEDS, 4):
        account, simulation, _ = run(draw_scenario(seed))
        assert math.isclose(account.wall_s, seconds_of(simulation), abs_tol=1e-6), seed
        assert math.isclose(sum(account.seconds.values()), account.wall_s, abs_tol=1e-6), seed
        assert all(one.end == following.start for one, following in zip(account.tiles, account.tiles[1:], strict=False))
        assert all(tile.length >= 0 for tile in account.tiles), seed
        assert account.seconds.keys() <= PHASES.keys()
        assert sum(failure.lost_s for failure in account.failures) <= account.wall_s
        seen |= account.seconds.keys()
    # Nothing that the ledger can say is left unsaid by all of them.
    assert {"lost", "detection", "restart_standby", "restart_back_off", "resources", "evaluate", "startup"} <= seen


def test_steps_and_their_time_are_those_that_the_machines_made() -> None:
    interrupted = 0
    for seed in range(330):
        drawn = draw_scenario(seed)
        if drawn.settings.replaceable_from is not None:
            continue  # a member that is replaced while the others go on makes a round longer, which nobody tells of
        times = [at for at, _ in drawn.faults]
        faults = tuple((at, PLAIN_FAULTS[(seed + i) % len(PLAIN_FAULTS)]) for i, at in enumerate(times))
        scenario = replace(drawn, faults=faults, loss=0.0, late=0.0, user_error_at=None, user_errors=0, stop_at=None)
        account, simulation, rounds = run(scenario)
        outcome = simulation.supervisor.outcome
        if outcome is None or outcome.outcome != "finished":
            continue
        training = scenario.training
        assert account.steps == training.total_steps, seed
        made = rounds * training.steps
        # The report of the round in which a worker died may have come too late to be counted.
        late = training.steps * len(account.failures)
        assert made - late <= account.steps + account.steps_lost <= made, seed
        # The simulated workers do not say that they save at the very end.
        kept_s = training.rounds * training.round_s + training.save_s
        planned = sum(failure.cause in ("preemption", "resize") for failure in account.failures)
        # Members that are asked to end finish their round, which need not be a whole one.
        slack_s = MESSAGE_S * (1 + 2 * len(account.failures)) + planned * (training.round_s + 0.5)
        assert abs(account.seconds[PRODUCTIVE] - kept_s) <= slack_s, seed
        interrupted += bool(account.steps_lost)
    assert interrupted > 30


def test_members_that_are_replaced_while_the_others_go_on_are_counted() -> None:
    replaced = 0
    for seed in range(500):
        scenario = draw_scenario(seed)
        if scenario.settings.replaceable_from is None:
            continue
        simulation = Simulation(scenario)
        invariants = Invariants(simulation)
        simulation.run()
        ledger = Ledger()
        for record in simulation.records():
            ledger.add(record)
        found = ledger.account()
        served = [failure for failure in found.failures if failure.replaced_s is not None]
        # A place is left before it is taken, and whoever takes it may be gone before it serves.
        assert len(served) <= invariants.replacements <= found.replacements == ledger.replacements, seed
        replaced += invariants.replacements
    assert replaced >= 4
