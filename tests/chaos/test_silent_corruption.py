"""A process that computes wrongly from some step on, in a real run: it is ended, and the curve stays, to the bit."""

import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch.supervised_runs import PATIENCE_S, curve, events, last_step, pid_of_rank, said, started, wait_until
from tests.launch.test_elastic_curve import CONFIG, generations

pytestmark = pytest.mark.processes


def test_a_process_that_computes_wrongly_is_ended_and_no_bit_changes(tmp_path, chaos_long):
    if not chaos_long:
        pytest.skip("takes a minute: --chaos-long; the same with threads is in test_contribution_check.py")
    path, fast, wrong = tmp_path / "elastic.yaml", tmp_path / "fast", tmp_path / "wrong"
    text = CONFIG.replace("tests.launch.counted_samples:Counting", "tests.chaos.silent_fault:Wrong")
    path.write_text(text + f"run: {{dir: {tmp_path}}}\nelastic: {{check_every: 5st}}\n")
    folder = tmp_path / "checked"
    arguments = [str(path), "cluster.workers=3", "cluster.standbys=0", "cluster.local.hosts=3", "run.name=checked"]
    with started("train", *arguments, FAST=str(fast), WRONG=str(wrong)) as process:
        wait_until(lambda: last_step(folder) >= 20, process)
        assert generations(folder) == [(1, 3)]
        wrong.write_text(str(pid_of_rank(folder, 1, 1)))
        wait_until(lambda: generations(folder)[-1][0] > 1, process)
        fast.touch()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    [event, *_] = events(folder, "damage_found")
    assert event["is_proven"] and len(event["suspects"]) == 1
    assert any("computes wrongly and is set aside" in text for text in said(folder))
    assert any("and is ended: generation 2 goes on with the state of the survivors" in text for text in said(folder))
    assert run(["replay", str(folder)]) == ExitCode.DONE
    with started("train", str(path), "cluster.workers=1", "cluster.standbys=0", FAST=str(fast)) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert curve(folder) == curve(tmp_path / "elastic")
