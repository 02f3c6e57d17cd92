"""What a simulated run is put through, drawn from a seed."""

import random
from dataclasses import dataclass, replace

from cluster.simulation.machines import Training
from cluster.supervisor.settings import BackOff, Budgets, HangLimits, HostLimits, Patience, Settings, Sizes

FAULTS = (
    "kill a worker",
    "worker fails",
    "worker exits with 0",
    "freeze a worker",
    "freeze a worker for a while",
    "stick a worker",
    "worker cannot be killed",
    "worker sends wrong data",
    "worker hears wrong data",
    "data is damaged between two hosts",
    "host crashes",
    "host crashes and returns",
    "agent dies alone",
    "host is cut off",
    "host leaves with notice",
    "preemption wave",
    "host becomes slow",
    "host becomes bad",
    "host becomes bad for a while",
    "memory is lost",
    "disk loses a checkpoint",
    "disk is full for a while",
    "power fails",
    "network splits",
    "host joins",
    "supervisor dies",
    "supervisor freezes",
)

SERVED_EVERY = 4
"""Of so many seeds the last one has parameter servers."""


@dataclass(frozen=True)
class Scenario:
    """One run's world.

    Attributes:
        seed: what it was drawn from, and what all chance within the run is drawn from.
        settings: the supervisor's.
        training: what the workers do.
        slots: of each host that is there from the beginning.
        faults: what happens when, in seconds.
        loss: the share of messages between agents and supervisor that is lost, both ways.
        late: the share that is late by seconds, so that later ones overtake it.
        twice: the share that arrives a second time.
        calm_at: after this time nothing goes wrong that has not yet; every message arrives, in order and once.
        user_error_at: the step at which the user's code fails; None: it does not.
        user_errors: how often it does.
        stop_at: when the user stops the run; None: never.
    """

    seed: int
    settings: Settings
    training: Training
    slots: tuple[int, ...]
    faults: tuple[tuple[float, str], ...]
    loss: float
    late: float
    twice: float
    calm_at: float
    user_error_at: int | None
    user_errors: int
    stop_at: float | None


def draw_scenario(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(seed)
    training = Training(
        rounds=rng.randint(5, 40),
        round_s=rng.choice([0.5, 1.0, 2.0]),
        start_s=rng.choice([0.5, 2.0]),
        evaluate_s=rng.choice([1.0, 8.0]),
        write_s=rng.choice([0.1, 3.0]),
        snapshot_every=rng.choice([1, 2, 5]),
        checkpoint_every=rng.choice([4, 8, 100]),
    )
    calm_at = rng.uniform(10.0, 60.0)
    num_faults = rng.choice([0, 1, 1, 2, 2, 3, 4, 6, 10])
    faults = tuple(sorted((rng.uniform(0.0, calm_at), rng.choice(FAULTS)) for _ in range(num_faults)))
    has_user_error = rng.random() < 0.1
    settings = _draw_settings(rng, seed)
    return Scenario(
        seed=seed,
        settings=_with_servers(settings) if seed % SERVED_EVERY == SERVED_EVERY - 1 else settings,
        training=training,
        slots=tuple(rng.choice([1, 1, 2, 4]) for _ in range(rng.randint(1, 4))),
        faults=faults,
        loss=rng.choice([0.0, 0.0, 0.01, 0.05]),
        late=rng.choice([0.0, 0.0, 0.05]),
        twice=rng.choice([0.0, 0.0, 0.05]),
        calm_at=calm_at,
        user_error_at=rng.randrange(0, training.total_steps, training.steps) if has_user_error else None,
        user_errors=rng.choice([1, 2, 100]) if has_user_error else 0,
        stop_at=rng.uniform(0.0, calm_at) if rng.random() < 0.1 else None,
    )


def _draw_settings(rng: random.Random, seed: int) -> Settings:
    most = rng.choice([1, 2, 3, 4, 6])
    least = rng.randint(1, most)
    return Settings(
        sizes=Sizes(
            min=least,
            max=most,
            fewest_survivors=(None, 1, least)[seed % 3],
            divides=rng.choice([None, None, most]),
            gather_s=5.0,
            replace_within_s=rng.choice([0.0, 8.0]),
            grow_within_s=5.0,
            keep_s=5.0,
        ),
        budgets=Budgets(
            failures=rng.choice([0, 2, 5, 20]),
            preemptions=rng.choice([0, 2, 20]),
            resizes=rng.choice([0, 1, 20]),
            give_back_after_s=rng.choice([15.0, 100000.0]),
        ),
        back_off=BackOff(first_s=0.5, longest_s=4.0),
        hosts=HostLimits(
            failures=3 - seed % 2, chance=(0.05, 1.0)[seed % 2], window_s=60.0, aside_s=(20.0, 20.0, 1e6)[seed % 3]
        ),
        hangs=HangLimits(
            floor_s=5.0,
            factor=5.0,
            form_s=10.0,
            restore_s=10.0,
            compile_s=15.0,
            evaluate_s=20.0,
            checkpoint_s=10.0,
            export_s=10.0,
            silent_s=8.0,
        ),
        patience=Patience(
            start_s=10.0,
            stop_s=8.0,
            finish_s=5.0,
            exit_s=1.0,
            kill_repeat_s=1.0,
            kill_s=8.0,
            dump_s=1.0,
            drain_s=3.0,
            resources_s=rng.choice([None, 30.0]),
            spare_s=(0.0, 0.0, 3.0)[seed % 3],
            blind_s=6.0,
        ),
        standbys=rng.choice([0, 1, 1, 2]),
        reform=rng.random() < 0.4,
    )


def _with_servers(settings: Settings) -> Settings:
    """The settings of a training in which all but the first members serve, and the last ones can be replaced."""
    size = max(3, settings.sizes.max)
    return replace(
        settings, sizes=replace(settings.sizes, min=size, max=size, divides=None), reform=False, replaceable_from=2
    )
