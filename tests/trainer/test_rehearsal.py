"""A rehearsal leaves the process as it was, except that it is faster afterwards. In processes of their own, because
TensorFlow's devices are ended by it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.workers import Workers
from trainer.observe.metrics_log import read_metrics

pytestmark = pytest.mark.processes
GROUP = {"strategy": {"name": "multi_worker_mirrored"}, "train": {"steps": 6, "log_every": 1, "steps_per_loop": 2}}
PROGRAM = """
import json, os, sys
from tests.trainer.sessions import small_config
from trainer.rehearsal import Interrupted, can_rehearse, rehearse

def size():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def told(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

group, asked = small_config(**json.loads(sys.argv[1])), []
facts = {"can": [can_rehearse(group, 2), can_rehearse(small_config(strategy={"name": "one_device"}), 1)]}
rehearse(group, 2)
first, threads = size(), len(os.listdir("/proc/self/task"))
rehearse(group, 2, lambda: asked.append(1))
facts["growth"] = [size() - first, len(os.listdir("/proc/self/task")) - threads, len(asked)]
facts["wanted"] = told(lambda: rehearse(group, 2, lambda: True))
facts["memory"] = told(lambda: rehearse(group, 2, memory_bytes=100))
broken = group.model_copy(update={"model": group.model.model_copy(update={"hidden": ["x"]})})
facts["broken"] = told(lambda: rehearse(broken, 2))
import tensorflow as tf
from tensorflow.python.eager import context
facts["started"] = context.context()._initialized
tf.distribute.MultiWorkerMirroredStrategy()
facts["sum"] = float(tf.reduce_sum(tf.ones(3)))
print(json.dumps(facts), flush=True)
os._exit(0)
"""


def test_a_rehearsal_can_be_broken_off_and_leaves_nothing_behind():
    command = [sys.executable, "-c", PROGRAM, json.dumps(GROUP)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": root}, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["can"] == [True, False]
    size, threads, asked = facts["growth"]
    assert size < 100 << 20 and threads < 12 and asked >= 4
    assert facts["wanted"] == "Interrupted: the standby's part has come"
    assert facts["memory"].startswith("Interrupted: a step of a state of ")
    assert facts["broken"] and not facts["broken"].startswith("Interrupted")
    assert not facts["started"] and facts["sum"] == 3.0


def test_whoever_has_rehearsed_trains_the_same_curve(tmp_path):
    curves = []
    for name, rehearses in (("cold", False), ("rehearsed", True)):
        with Workers(tmp_path / name, GROUP, rehearses=rehearses) as workers:
            assert [one["step"] for one in workers.outcomes()] == [6, 6]
        lines = read_metrics(tmp_path / name / "metrics.jsonl")
        curves.append([(line["step"], line["loss"]) for line in lines])
    assert len(curves[0]) >= 6 and curves[0] == curves[1]
