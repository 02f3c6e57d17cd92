"""Horovod's adapter: a worker alone everywhere, two as real processes where Horovod is installed."""

import os
import shutil
import socket
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

from tests.trainer.sessions import losses, merged, small_config, small_session, weights
from tests.trainer.strategies.test_multi_worker_mirrored import ALONE, TOLERANCE, curve, final_arrays
from tests.trainer.workers import DEADLINE_S, ROOT, Workers
from trainer.group import Group
from trainer.observe.journal import read_journal
from trainer.run_folder import RunFolder
from trainer.session import build_session
from trainer.snapshot.file import read_snapshot
from trainer.stop_request import StopRequest
from trainer.strategies.horovod_group import HorovodGroup, NotTogether
from trainer.strategies.horovod_installation import installation_problem, package_folder
from trainer.training import run_training

TOGETHER = merged(ALONE, {"strategy": {"name": "horovod"}})
NORMALISED = "tests.trainer.strategies.test_equal_curves:normalised_model"
# One that begins with weights of its own, and is then changed in one bit behind the group's back.
MEMBER = """
import os, sys
from types import SimpleNamespace
import tensorflow as tf
from trainer.group import Group
from trainer.strategies.horovod_group import HorovodGroup
from trainer.strategies.weight_check import WeightCheck, WeightsDiffer
rank = int(sys.argv[1])
check = WeightCheck(HorovodGroup(Group(rank, (sys.argv[2], "127.0.0.1:1"))))
weights = tf.Variable([1.0, 2.0 + rank])
state = SimpleNamespace(step=7, variables={"w": weights}, tensors=lambda: {"w": weights.read_value()})
check.begin(state)
print(weights.numpy().tolist())
check.check(state)
if rank:
    weights.assign(weights * (1 + 2**-23))
try:
    check.check(state)
except WeightsDiffer as error:
    print(error, flush=True)
check.end()
os._exit(0)
"""
PROBLEM = installation_problem(package_folder(), metadata.version("tensorflow"))
needs_horovod = pytest.mark.skipif(PROBLEM is not None, reason=PROBLEM or "")


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ({"train": {"xla": True, "accumulate": 2}, "optimizer": {"clip_norm": 0.1}}, TOLERANCE),
        ({"model": {"name": NORMALISED}, "strategy": {"compression": "float16"}}, 5e-3),
    ],
    ids=["compiled", "batch statistics, float16"],
)
def test_a_worker_alone_has_the_curve_of_one_device(change, tolerance):
    """All but the network: packing, the two halves, the loop. It runs without Horovod."""
    together = merged(change, {"strategy": {"name": "horovod"}})
    found = build_session(small_config(**together), Group(0, ("127.0.0.1:1",)))
    change = {name: section for name, section in change.items() if name != "strategy"}
    alone = small_session(**change)
    np.testing.assert_allclose(losses(found, 12, 3), losses(alone, 12, 3), rtol=tolerance)
    for name, values in weights(alone).items():
        np.testing.assert_allclose(weights(found)[name], values, rtol=1e-3, atol=10 * tolerance, err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run folder of an undisturbed run of two workers."""
    folder = tmp_path_factory.mktemp("whole")
    with Workers(folder, TOGETHER, generation=4) as workers:
        chief, other = workers.outcomes()
    assert chief == other and chief["step"] == 12 and chief["stopped"] is None
    return folder


@needs_horovod
@pytest.mark.processes
def test_the_curve_of_two_is_that_of_a_process_alone(whole, tmp_path):
    alone = run_training(small_config(**ALONE), RunFolder(tmp_path), StopRequest())
    expected, found = curve(tmp_path), curve(whole)
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    assert "auc" in found[-1]  # which needs every sample's score from the worker that computed it
    for line, other in zip(found, expected, strict=True):
        for name, value in line.items():
            assert value == (pytest.approx(other[name], rel=TOLERANCE) if name != "split" else other[name]), name
    for name, values in final_arrays(whole).items():
        expected_values = alone.session.state.variables[name].numpy()
        np.testing.assert_allclose(values, expected_values, rtol=1e-3, atol=TOLERANCE, err_msg=name)


@needs_horovod
@pytest.mark.processes
def test_killed_workers_go_on_from_a_checkpoint_or_a_snapshot_to_the_bit(whole, tmp_path):
    memory = [tmp_path / f"memory-{rank}" for rank in (0, 1)]
    with Workers(tmp_path / "killed", TOGETHER, snapshots=memory, snapshot_every=3) as workers:
        for worker in workers.workers:
            worker.hear_until("snapshot", step=6)
        workers.kill()
    snapshot = read_snapshot(memory[0])
    assert snapshot is not None and 6 <= snapshot.step < 12
    shutil.copytree(tmp_path / "killed", tmp_path / "killed again")
    with Workers(tmp_path / "killed", TOGETHER, generation=1) as workers:
        workers.outcomes()
    # One of them has rehearsed: it must not have joined a group of its own then.
    with Workers(tmp_path / "killed again", TOGETHER, restore=[memory[0]] * 2, rehearses=True) as workers:
        workers.outcomes()
    for folder, restored_from in (("killed", {5, 10}), ("killed again", {snapshot.step})):
        [resumed] = [e for e in read_journal(tmp_path / folder / "journal.jsonl") if e["event"] == "resumed"]
        assert resumed["step"] in restored_from
        assert curve(tmp_path / folder) == curve(whole), folder
        for name, values in final_arrays(whole).items():
            np.testing.assert_array_equal(final_arrays(tmp_path / folder)[name], values, err_msg=name)


@needs_horovod
@pytest.mark.processes
def test_three_workers_add_up_in_one_order(tmp_path):
    """With two there is only one order. A sum whose parts are joined by chance would differ in its last bits."""
    change = {"data": {"batch_size": 15}, "train": {"steps_per_loop": 4}, "evaluate": {"every": None}}
    for name in ("one", "other"):
        with Workers(tmp_path / name, merged(TOGETHER, change), num_workers=3) as workers:
            assert [outcome["step"] for outcome in workers.outcomes()] == [12] * 3
    assert curve(tmp_path / "one") == curve(tmp_path / "other") != []
    for name, values in final_arrays(tmp_path / "one").items():
        np.testing.assert_array_equal(final_arrays(tmp_path / "other")[name], values, err_msg=name)


@needs_horovod
@pytest.mark.processes
def test_a_drift_that_horovod_does_not_notice_is_found_by_both():
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("", 0))
        chief = f"127.0.0.1:{held.getsockname()[1]}"
        members = [
            subprocess.Popen(
                [sys.executable, "-c", MEMBER, str(rank), chief],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in (0, 1)
        ]
        try:
            said = [member.communicate(timeout=DEADLINE_S)[0] for member in members]
        finally:
            for member in members:
                member.kill()
    for text in said:
        assert text.splitlines()[0] == "[1.0, 2.0]", text
        assert "after step 7 workers 1 hold other weights than the chief" in text


@needs_horovod
def test_a_group_that_does_not_come_together_says_who_is_missing():
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("", 0))
        chief = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(NotTogether, match=r"of 2 workers these have not come .* in 1 s: 1 of 127\.0\.0\.1:1$"):
            HorovodGroup(Group(0, (chief, "127.0.0.1:1")), wait_s=1)
