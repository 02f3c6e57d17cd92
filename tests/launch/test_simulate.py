"""`phalanx simulate`: what it predicts, and how it refuses."""

import json
from dataclasses import replace

import pytest

from cluster.simulation.forecast import forecast
from cluster.simulation.supervisor_load import measure_load
from cluster.simulation.workload import Workload
from launch.cli import run
from launch.forecasts import measured_constants
from trainer.run_folder import RunFolder

SMALL = Workload(hosts=20, mtbf_h=50.0, hours=100.0, max_failures=100)


def spoken(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(["simulate", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_same_seed_gives_the_same_forecast_and_another_seed_another():
    first, again, other = forecast(SMALL), forecast(SMALL), forecast(replace(SMALL, seed=1))
    assert (first.ledger, first.steps, first.losses) == (again.ledger, again.steps, again.losses)
    assert (other.ledger, other.steps) != (first.ledger, first.steps)


def test_all_of_the_time_is_accounted_for():
    for workload in (SMALL, replace(SMALL, reform=True, spare_hosts=2), replace(SMALL, wave_every_h=5.0, min_hosts=5)):
        found = forecast(workload)
        ledger = found.ledger
        assert found.ended is None and found.losses > 20
        accounted = ledger.training + ledger.detection + ledger.gathering + ledger.take_up
        assert accounted == pytest.approx(100 * 3600.0, rel=1e-6)
        assert ledger.steps - ledger.lost_steps == pytest.approx(found.steps, abs=workload.snapshot_every)


def test_failures_come_as_often_as_was_said():
    losses = sum(forecast(replace(SMALL, seed=seed)).losses for seed in range(20))
    assert losses == pytest.approx(20 * 20 * 100 / 50, rel=0.15)


def test_nothing_is_lost_where_nothing_fails():
    found = forecast(replace(SMALL, mtbf_h=1e9))
    assert found.losses == found.ledger.lost_steps == found.ledger.restarts == 0
    assert found.goodput == pytest.approx(SMALL.step_s / SMALL.stalled_step_s, rel=1e-3)


def test_a_failure_costs_no_more_steps_than_lie_between_two_snapshots():
    found = forecast(replace(SMALL, snapshot_every=50))
    assert 0 < found.ledger.lost_steps <= 50 * found.ledger.restarts


def test_what_ought_to_help_helps():
    plain, spare = forecast(SMALL), forecast(replace(SMALL, spare_hosts=2))
    assert spare.ledger.gathering < plain.ledger.gathering / 3
    rare = forecast(replace(SMALL, snapshot_every=1000))
    assert rare.ledger.lost_steps > 5 * plain.ledger.lost_steps


def test_a_run_without_a_budget_ends_and_says_so(capsys):
    code, out, _ = spoken(capsys, "--hosts", "20", "--mtbf-h", "5", "--hours", "100", "--max-failures", "0")
    assert code == 0 and "the run ends after" in out and "raise --max-failures" in out


def test_the_table_names_every_figure_and_the_source_of_every_constant(capsys):
    code, out, _ = spoken(capsys, "--hosts", "20", "--mtbf-h", "50", "--hours", "100", "--step-s", "0.5")
    assert code == 0
    for text in ("goodput", "hosts lost", "steps made again", "checkpoint bytes/s", "supervisor share of one core"):
        assert text in out
    assert "step_s = 0.5  given" in out and "restart_s = 120  assumed" in out
    assert out.rstrip().splitlines()[-1].startswith("goodput is limited most by the wait for hosts")


def test_json_and_a_sweep(capsys):
    code, out, _ = spoken(
        capsys, "--hosts", "20", "--mtbf-h", "50", "--hours", "100", "--sweep", "snapshot_every=10,1000", "--json"
    )
    often, rare = json.loads(out)["forecasts"]
    assert code == 0 and (often["workload"]["snapshot_every"], rare["workload"]["snapshot_every"]) == (10, 1000)
    assert often["goodput"] > rare["goodput"] and often["snapshot_bytes_per_s"] > rare["snapshot_bytes_per_s"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--hosts", "0"), "hosts=0 must be at least 1"),
        (("--mtbf-h", "-1"), "mtbf_h=-1 must be above 0"),
        (("--hours", "nan"), "hours=nan must be above 0"),
        (("--min-hosts", "99"), "min_hosts=99 must be from 1 to hosts=5"),
        (("--wave-share", "2"), "wave_share=2 must be above 0 and at most 1"),
        (("--sweep", "colour=1"), "--sweep colour=1 names no number of a forecast"),
        (("--sweep", "step_s=a"), "--sweep step_s=a must list numbers"),
        (("--sweep", "snapshot_every=1.5"), "snapshot_every=1.5 must be a whole number"),
        (("--like", "nowhere"), "nowhere"),
        (("--hosts", "many"), "Invalid value for '--hosts'"),
    ],
)
def test_a_wrong_request_is_one_sentence(capsys, monkeypatch, tmp_path, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    code, out, err = spoken(capsys, "--hosts", "5", "--mtbf-h", "50", "--hours", "1", *arguments)
    assert code == 2 and not out and sentence in err and len(err.splitlines()) == 1


def test_constants_are_read_from_a_runs_journal(tmp_path):
    folder = RunFolder(tmp_path)
    records = [
        {"event": "command", "command": "start_worker", "worker": "w1", "host": "a"},
        {"event": "worker_ready", "at": 12.0, "worker": "w1"},
        {"event": "command", "command": "form", "worker": "w1"},
        {"event": "progressed", "at": 12.5, "worker": "w1", "phase": "restore", "step": 0},
        {"event": "progressed", "at": 14.0, "worker": "w1", "phase": "step", "step": 0},
        {"event": "progressed", "at": 16.0, "worker": "w1", "phase": "step", "step": 10},
        {"event": "checkpoint_saved", "step": 10, "stall": 0.02, "duration": 0.3},
        {"event": "command", "command": "kill", "worker": "w1"},
        {"event": "worker_exited", "at": 16.25, "worker": "w1"},
    ]
    records.insert(0, {"event": "ticked", "at": 10.0})
    folder.journal.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert measured_constants(folder) == {
        "start_s": 2.0,
        "take_up_s": 2.0,
        "step_s": 0.2,
        "checkpoint_stall_s": 0.02,
        "checkpoint_write_s": 0.3,
        "exit_s": 0.25,
    }


def test_the_measured_load_grows_with_the_fleet_and_not_faster():
    small, large = measure_load(100), measure_load(1000)
    assert large.workers == 1000 and large.heartbeat_s < 20 * small.heartbeat_s
    assert large.cpu(1.0, 1.0, 0.5) < 0.5
    assert large.journal_bytes_per_s(1.0, 1.0, 0.5) == pytest.approx(1000 * large.journal_bytes)
