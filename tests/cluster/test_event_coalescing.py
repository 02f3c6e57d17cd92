import itertools
import random

from cluster.event_coalescing import Coalescing
from cluster.supervisor.events import Event, Heartbeat, Progressed, SnapshotTaken, Ticked, WorkerExited


def progress(at: float, step: int, worker: str = "w1", phase: str = "step", generation: int = 1) -> Progressed:
    return Progressed(at, worker, generation, step, phase)


def test_only_the_newest_of_each_worker_is_passed_on_and_that_at_the_tick():
    coalescing = Coalescing()
    assert coalescing.add(progress(0.0, 1)) == [progress(0.0, 1)]
    assert coalescing.add(progress(0.1, 1, "w2")) == [progress(0.1, 1, "w2")]
    for event in [
        progress(0.2, 2),
        Heartbeat(0.3, "w1"),
        progress(0.4, 2, "w2"),
        progress(0.5, 3),
        Heartbeat(0.6, "w1"),
        Heartbeat(0.6, "w3"),
    ]:
        assert coalescing.add(event) == []
    assert coalescing.add(Ticked(0.7)) == [
        progress(0.4, 2, "w2"),
        progress(0.5, 3),
        Heartbeat(0.6, "w3"),  # of the one that made no progress
        Ticked(0.7),
    ]
    assert coalescing.add(Ticked(0.8)) == [Ticked(0.8)]


def test_a_change_of_phase_or_generation_passes_at_once_behind_what_is_held():
    coalescing = Coalescing()
    coalescing.add(progress(0.0, 1))
    coalescing.add(progress(0.1, 2))
    assert coalescing.add(progress(0.2, 2, phase="checkpoint")) == [
        progress(0.1, 2),
        progress(0.2, 2, phase="checkpoint"),
    ]
    coalescing.add(progress(0.3, 2, phase="checkpoint"))
    changed = progress(0.4, 0, phase="checkpoint", generation=2)
    assert coalescing.add(changed) == [progress(0.3, 2, phase="checkpoint"), changed]


def test_an_exit_is_handled_with_the_progress_before_it_known():
    coalescing = Coalescing()
    coalescing.add(progress(0.0, 1))
    coalescing.add(progress(0.1, 9))
    ended = WorkerExited(0.2, "w2", "a", 1, None, None)
    assert coalescing.add(ended) == [progress(0.1, 9), ended]


def test_times_never_go_backwards_and_the_newest_of_everything_is_passed_on():
    draw = random.Random(7)
    coalescing = Coalescing()
    put: list[Event] = []
    passed: list[Event] = []
    for number in range(5000):
        at = number * 0.01 + draw.uniform(-0.05, 0)  # threads overtake one another
        worker = draw.choice("abc")
        event = draw.choice(
            [
                progress(at, number, worker, draw.choice(["step", "evaluate"])),
                Heartbeat(at, worker),
                SnapshotTaken(at, "h", 1, number),
                Ticked(at),
            ]
        )
        put.append(event)
        passed += coalescing.add(event)
    passed += coalescing.flush()
    assert all(a.at <= b.at for a, b in itertools.pairwise(passed))
    snapshots = [event.step for event in put if isinstance(event, SnapshotTaken)]
    passed_snapshots = [event.step for event in passed if isinstance(event, SnapshotTaken)]
    assert passed_snapshots == sorted(passed_snapshots)
    assert passed_snapshots[-1] == snapshots[-1]
    for worker in "abc":
        steps = [event.step for event in passed if isinstance(event, Progressed) and event.worker == worker]
        assert steps == sorted(steps)
        assert steps[-1] == max(e.step for e in put if isinstance(e, Progressed) and e.worker == worker)
