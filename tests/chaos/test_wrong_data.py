"""Processes that send wrong data in a real run: each is named and replaced, and the curve stays, to the bit."""

import re

import psutil
import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch.supervised_runs import PATIENCE_S, curve, events, last_step, pid_of_rank, said, started, wait_until
from tests.launch.test_elastic_curve import CONFIG, generations

pytestmark = pytest.mark.processes


def test_whoever_sends_wrong_data_is_replaced_and_no_bit_changes(tmp_path, chaos_long):
    if not chaos_long:
        pytest.skip(
            "takes a minute: --chaos-long; its parts are tested in test_accusing.py, test_elastic_membership.py"
        )
    path, fast, faults = tmp_path / "elastic.yaml", tmp_path / "fast", tmp_path / "faults"
    text = CONFIG.replace("tests.launch.counted_samples:samples", "tests.chaos.faulty_sender:samples")
    path.write_text(text + f"run: {{dir: {tmp_path}}}\n")
    folder = tmp_path / "accused"
    faults.mkdir()
    arguments = [str(path), "cluster.workers=2", "cluster.standbys=1", "cluster.local.hosts=2", "run.name=accused"]
    with started("train", *arguments, FAST=str(fast), FAULT=str(faults)) as process:
        for rank, fault in ((1, "wrong checksum"), (0, "old generation")):
            # Alone, a member sends nothing to anybody.
            wait_until(lambda: generations(folder) and generations(folder)[-1][1] == 2, process)
            generation, begun = generations(folder)[-1][0], last_step(folder)
            wait_until(lambda begun=begun: last_step(folder) > begun, process)
            pid = pid_of_rank(folder, generation, rank)
            (faults / str(pid)).write_text(fault)
            wait_until(lambda pid=pid: not psutil.pid_exists(pid), process)
        fast.touch()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    text = " ".join(said(folder))
    assert "that do not have their checksum: damaged on the way): generation 2 goes on with the state" in text
    assert re.search(r"to send wrong data \(answers in generation \d+ to generation \d+\): generation", text)
    assert {event["what"].split()[0] for event in events(folder, "peer_accused")} == {"sent", "answers"}
    assert run(["replay", str(folder)]) == ExitCode.DONE
    alone = [str(path), "cluster.workers=1", "cluster.standbys=0"]
    with started("train", *alone, FAST=str(fast), FAULT=str(faults)) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert curve(folder) == curve(tmp_path / "elastic")
