"""How a run ends when somebody wants it to, and when an agent does not answer."""

from dataclasses import replace

from cluster.supervisor.commands import Finish, Form, Kill, ReleaseHost, Stop
from cluster.supervisor.events import PeerAccused
from cluster.supervisor.settings import Patience, Settings, Sizes
from cluster.supervisor.states import Ended, Stopping
from tests.cluster.supervisor.stage import SIGKILL, Stage, of, running, workers_of

TWO = Settings(sizes=Sizes(min=2, max=2), standbys=1)


def test_members_save_and_end_and_standbys_end_at_once() -> None:
    stage = running(TWO, a=2)
    commands = stage.stop()
    assert workers_of(commands, Stop) == ["w1", "w2"] and workers_of(commands, Kill) == ["w3"]
    stage.bury()
    stage.exit("w1", code=0)
    assert stage.exit("w2", code=0) == [Finish("stopped", "the user stopped it")]
    assert isinstance(stage.supervisor.state, Ended)


def test_survivors_of_a_death_save_without_the_dead() -> None:
    stage = running(replace(TWO, sizes=Sizes(min=3, max=3), standbys=0, reform=True), a=3)
    stage.stop()
    commands = stage.exit("w1", signal=SIGKILL)
    formed = [(form.worker, form.assignment.rank, len(form.assignment.members)) for form in of(Form, commands)]
    assert formed == [("w2", 0, 2), ("w3", 1, 2)]
    assert stage.exit("w2", code=0) == []
    assert not of(Form, stage.exit("w3", signal=SIGKILL)), "the state is saved"
    assert stage.outcome.outcome == "stopped"


def test_survivors_that_wait_for_others_save_alone_when_the_run_is_stopped() -> None:
    stage = running(replace(TWO, sizes=Sizes(min=2, max=2, fewest_survivors=2), standbys=0, reform=True), a=2)
    assert not of(Form, stage.exit("w1", signal=SIGKILL))
    commands = stage.stop()
    assert workers_of(commands, Stop) == ["w2"] and workers_of(commands, Form) == ["w2"]


def test_the_others_save_without_one_that_is_frozen() -> None:
    stage = running(replace(TWO, standbys=0, reform=True), a=2)
    stage.stop()
    commands = stage.wait_alive(20.0, "w1")
    assert set(workers_of(commands, Kill)) == {"w1"} and workers_of(commands, Form) == ["w2"]


def test_who_sends_wrong_data_while_the_run_stops_is_ended_and_the_others_save() -> None:
    stage = running(replace(TWO, sizes=Sizes(min=3, max=3), standbys=0, reform=True), a=3)
    stage.stop()
    generation = stage.supervisor.generation
    commands = stage.say(PeerAccused(stage.now, "w1", generation, "w2", "a frame with a wrong checksum"))
    assert workers_of(commands, Kill) == ["w2"] and workers_of(commands, Form) == ["w1", "w3"]
    assert not of(Form, stage.exit("w2", signal=SIGKILL))


def test_who_does_not_end_in_time_is_killed() -> None:
    stage = running(TWO, a=2)
    stage.stop()
    assert not [kill for kill in of(Kill, stage.wait_alive(59.0)) if kill.worker in ("w1", "w2")]
    assert {"w1", "w2"} <= set(workers_of(stage.wait_alive(1.0), Kill))
    stage.bury()
    assert stage.outcome.outcome == "stopped"


def test_a_second_request_changes_nothing_and_a_finished_chief_is_believed() -> None:
    stage = running(TWO, a=2)
    stage.stop()
    assert stage.stop() == []
    stage.complete("w1", 500)
    stage.bury()
    stage.exit("w1", code=0)
    stage.exit("w2", code=0)
    assert stage.outcome == Finish("finished", "the training is complete at step 500")


def test_a_run_without_workers_stops_at_once() -> None:
    assert Stage(TWO).stop() == [Finish("stopped", "the user stopped it")]


def test_a_stop_during_recovery_waits_for_the_last_exit() -> None:
    stage = running(TWO, a=2)
    stage.exit("w1", signal=SIGKILL)
    stage.stop()
    assert isinstance(stage.supervisor.state, Stopping)
    stage.bury()
    assert stage.outcome.outcome == "stopped"


def test_nothing_is_done_after_the_end() -> None:
    stage = Stage(TWO)
    stage.stop()
    assert stage.join(a=2) == []


def test_kills_are_repeated_then_the_host_is_given_back() -> None:
    stage = running(TWO, a=1, b=1)
    stage.exit("w1", signal=SIGKILL)
    kills = [kill for kill in of(Kill, stage.wait_alive(10.0)) if kill.worker == "w2"]
    assert len(kills) == 5, "every two seconds"
    assert ReleaseHost("b") in stage.wait_alive(51.0)
    stage.lose("b")
    assert stage.supervisor.generation == 1 and not isinstance(stage.supervisor.state, Ended)
    stage.join(c=1)
    stage.ready()
    assert stage.supervisor.generation == 2


def test_a_host_that_never_answers_does_not_keep_the_run_from_ending() -> None:
    stage = running(Settings(standbys=0, patience=Patience(kill_s=20.0, stop_s=5.0)), a=1)
    stage.stop()
    stage.wait_alive(60.0)
    assert stage.outcome.outcome == "stopped"
