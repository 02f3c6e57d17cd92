"""Members that compute wrongly are ended, and their hosts are set aside where that is proven."""

from cluster.assignment import SnapshotPlace
from cluster.supervisor.commands import Kill
from cluster.supervisor.events import DamageFound
from cluster.supervisor.journal_replay import first_difference, started_record
from cluster.supervisor.records import to_record
from cluster.supervisor.settings import Settings, Sizes
from cluster.supervisor.states import Running
from tests.cluster.supervisor.stage import Stage, running, workers_of

THREE = Settings(sizes=Sizes(min=3, max=3, fewest_survivors=1), standbys=0, reform=True)
WHAT = "computed part 2 with another result than two others"


def accuse(stage: Stage, accuser: str, *suspects: str, is_proven: bool = True, generation: int = 1) -> list:
    return stage.say(DamageFound(stage.now, accuser, generation, 40, suspects, is_proven, WHAT))


def test_the_one_that_is_proven_wrong_is_ended_and_its_host_set_aside() -> None:
    stage = running(THREE, a=2, b=2, c=2)
    victim = stage.members[1]
    host = stage.hosts[victim]
    stage.snapshot(host, 40)
    commands = accuse(stage, stage.members[0], victim)
    assert victim in workers_of(commands, Kill)
    assert f"{host} computes wrongly and is set aside for 600 s" in stage.texts
    is_ended = f"worker 1 on {host} {WHAT} at step 41 and is ended"
    assert f"{is_ended}: generation 2 goes on with the state of the survivors" in stage.texts
    assert stage.supervisor.generation == 2 and victim not in stage.members
    assert host not in {stage.hosts[member] for member in stage.members}
    # Its memory is not gone on from, though it is newest.
    assert stage.assignment.restore is None
    before = len(stage.commands)
    accuse(stage, stage.members[0], victim)  # the other accuser, late
    assert len(stage.commands) == before


def test_a_host_without_which_the_run_cannot_be_is_used_on() -> None:
    stage = running(THREE, a=3)
    victim = stage.members[2]
    accuse(stage, stage.members[0], victim)
    assert "a computes wrongly and is used on, because the run cannot do without it" in stage.texts
    stage.bury()
    stage.wait(2.0)
    assert isinstance(stage.supervisor.state, Running) and victim not in stage.members


def test_of_two_all_are_ended_and_the_run_goes_on_from_what_is_kept() -> None:
    stage = running(Settings(sizes=Sizes(min=2, max=2, fewest_survivors=1), standbys=0, reform=True), a=1, b=1)
    suspects = list(stage.members)
    stage.snapshot("a", 40)
    commands = accuse(stage, suspects[1], *suspects, is_proven=False)
    assert set(workers_of(commands, Kill)) == set(suspects)
    said = "computes wrongly at step 41, and nobody can tell which: all of them are ended"
    assert any(said in text for text in stage.texts)
    assert not any("set aside" in text for text in stage.texts)
    stage.bury()
    stage.wait(1.0)
    stage.ready()
    assert stage.supervisor.generation == 2 and not set(suspects) & set(stage.members)
    assert stage.assignment.restore == SnapshotPlace(40, "a")


def test_strangers_accuse_nobody_and_the_journal_replays() -> None:
    stage = running(THREE, a=1, b=1, c=1)
    accuser, victim = stage.members[:2]
    said = [
        DamageFound(stage.now, "w99", 1, 40, (victim,), True, WHAT),
        DamageFound(stage.now, accuser, 7, 40, (victim,), True, WHAT),
        DamageFound(stage.now, accuser, 1, 40, ("w99",), True, WHAT),
    ]
    assert all(stage.say(event) == [] for event in said)
    recorded = [started_record(THREE, continued=False)]
    fresh = Stage(THREE)
    say = fresh.say

    def record(event):
        commands = say(event)
        recorded.extend([to_record(event), *map(to_record, commands)])
        return commands

    fresh.say = record  # type: ignore[method-assign]
    fresh.join(a=1, b=1, c=1)
    fresh.ready()
    accuse(fresh, accuser, victim)
    assert any(record.get("event") == "damage_found" for record in recorded)
    assert first_difference(recorded) is None
