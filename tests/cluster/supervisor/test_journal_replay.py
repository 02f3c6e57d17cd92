import json

import pytest

from cluster.assignment import Assignment, ErrorReport, Member, SnapshotPlace
from cluster.simulation.scenario import draw_scenario
from cluster.simulation.simulation import Simulation
from cluster.supervisor.commands import Announce, Finish, Form, Kill, StartWorker
from cluster.supervisor.events import HostJoined, Ticked, WorkerExited, WorkerReady
from cluster.supervisor.journal_replay import JournalError, first_difference, started_record, take_over
from cluster.supervisor.records import from_record, to_record
from cluster.supervisor.settings import Settings, Sizes
from cluster.supervisor.supervisor import Supervisor

MEMBERS = (Member("w1", "a", 0, "[::1]:4711"), Member("w2", "b", 1, "10.0.0.2:4711"))
ERROR = ErrorReport("ValueError", "bad", "Traceback ...", 40, True)


@pytest.mark.parametrize(
    "item",
    [
        WorkerExited(1.5, "w1", "a", None, 9, ERROR),
        WorkerExited(0.1 + 0.2, "w1", "a", 0, None, None),
        WorkerReady(2.0, "w1", "a", "[::1]:4711"),
        Form("w2", Assignment(3, 1, MEMBERS, SnapshotPlace(480, "a"))),
        Form("w2", Assignment(3, 1, MEMBERS, None)),
        Finish("stopped", "the user stopped it"),
        Announce("generation 2 goes on"),
    ],
)
def test_events_and_commands_survive_json(item) -> None:
    assert from_record(json.loads(json.dumps(to_record(item) | {"time": 1.0, "pid": 7}))) == item


def test_other_records_of_a_journal_are_passed_over() -> None:
    assert from_record({"event": "disk_full", "time": 1.0}) is None
    assert from_record({"time": 1.0}) is None


def journal(settings: Settings, *events) -> list[dict]:
    supervisor = Supervisor(settings)
    records = [started_record(settings, continued=False)]
    for event in events:
        records.append(to_record(event))
        records += [to_record(command) for command in supervisor.handle(event)]
    return records


TWO = Settings(sizes=Sizes(min=2, max=2), standbys=0)
EVENTS = (
    HostJoined(0.0, "a", 2),
    Ticked(0.0),
    WorkerReady(1.0, "w1", "a", "a:1"),
    WorkerReady(2.0, "w2", "a", "a:2"),
)


def test_a_journal_replays_to_the_same_commands() -> None:
    records = journal(TWO, *EVENTS)
    assert first_difference(json.loads(json.dumps(records))) is None
    assert first_difference([*records, {"event": "checkpoint_damaged", "time": 3.0}]) is None


def test_the_first_difference_is_named() -> None:
    records = journal(TWO, *EVENTS)
    number = next(i for i, record in enumerate(records) if record.get("command") == "start_worker")
    changed = [*records[:number], records[number] | {"host": "b"}, *records[number + 1 :]]
    difference = first_difference(changed)
    assert (difference.number, difference.recorded) == (number + 1, StartWorker("w1", "b"))
    assert difference.replayed == StartWorker("w1", "a")
    assert str(difference).startswith(f"record {number + 1}: the journal has StartWorker(worker='w1', host='b'), the")


def test_commands_too_many_and_too_few_are_differences() -> None:
    records = journal(TWO, *EVENTS)
    assert first_difference([*records, to_record(Kill("w1", "why"))]).replayed is None
    number = next(i for i, record in enumerate(records) if record.get("command") == "start_worker")
    difference = first_difference([*records[:number], *records[number + 1 :]])
    assert difference.recorded == StartWorker("w2", "a") and difference.replayed == StartWorker("w1", "a")
    last = next(i for i, record in enumerate(records) if record.get("event") == "worker_ready")
    assert first_difference([*records[: last - 1], *records[last:]]).recorded is None


def test_a_resumed_run_starts_a_new_supervisor() -> None:
    settings = Settings(standbys=0)
    events = (HostJoined(0.0, "a", 1), Ticked(0.0))
    assert first_difference([*journal(TWO, *EVENTS), *journal(settings, *events)]) is None


def test_a_journal_without_settings_is_refused() -> None:
    with pytest.raises(JournalError, match="no supervisor's settings come before it"):
        first_difference([to_record(Ticked(0.0))])
    with pytest.raises(JournalError, match="resume the run instead"):
        take_over([])


def test_whoever_takes_over_knows_all_and_carries_out_what_was_left() -> None:
    records = journal(TWO, *EVENTS)
    takeover = take_over(records[:-2])
    assert [to_record(command) for command in takeover.unrecorded] == records[-2:]
    assert takeover.supervisor.generation == 1 and takeover.supervisor.workers == {"w1": "a", "w2": "a"}
    assert takeover.supervisor.hosts == ("a",)
    # It records them after its own first record, and the whole journal replays.
    continued = [*records[:-2], started_record(TWO, continued=True), *records[-2:]]
    assert first_difference(continued) is None
    assert take_over(continued).unrecorded == []


def test_a_journal_of_another_version_is_not_taken_over() -> None:
    records = journal(TWO, *EVENTS)
    with pytest.raises(JournalError, match="decides otherwise"):
        take_over([*records, to_record(Kill("w1", "why"))])


def test_a_whole_run_with_deaths_of_the_supervisor_replays() -> None:
    for seed in range(200):
        simulation = Simulation(draw_scenario(seed))
        simulation.run()
        if simulation.deaths:
            assert first_difference(json.loads(json.dumps(simulation.records()))) is None
            return
    raise AssertionError("no seed has the supervisor die")
