"""Two parameter servers and two workers against one device: the same step, spread over processes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.trainer.parameter_server.cluster_process import STEPS, STEPS_PER_CALL, outcome
from tests.trainer.sessions import losses, merged, small_session

# Sums in another order differ in the last bits of float32; twelve steps of Adam make that 1e-5 at most.
TOLERANCE = 2e-5
TOKENS = {
    "model": {"name": "tests.trainer.parameter_server.models:token_model"},
    "task": {"name": "language_modelling"},
    "data": {"kind": "tokens", "shape": [9], "num_classes": 41},
    "strategy": {"min_shard_bytes": 256},
    "evaluate": {"every": "1ep", "batch_size": 13},
}
TRAININGS = {
    "dense": {"data": {"num_samples": 90}, "evaluate": {"every": "1ep"}, "train": {"xla": True}},
    "tables": merged(
        TOKENS,
        {
            "optimizer": {"name": "adamw", "weight_decay": 0.1, "clip_norm": 0.5},
            "train": {"virtual_workers": 4, "ema": 0.9},
        },
    ),
    "rows": merged(TOKENS, {"optimizer": {"name": "adagrad", "clip_norm": 0.5}, "train": {"virtual_workers": 2}}),
    "asynchronous": merged(TOKENS, {"strategy": {"synchronous": False}, "optimizer": {"clip_value": 0.1}}),
}
SYNCHRONOUS = ["dense", "tables", "rows"]

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def found():
    job = json.dumps({"parameter_servers": 2, "workers": 2, "trainings": TRAININGS})
    command = [sys.executable, "-m", "tests.trainer.parameter_server.cluster_process", job]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def alone():
    outcomes = {}
    for name, config in TRAININGS.items():
        session = small_session(**merged(config, {"strategy": {"name": "one_device"}}))
        outcomes[name] = outcome(session, losses(session, STEPS, STEPS_PER_CALL))
    return outcomes


def arrays(result: dict) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in result["state"].items()}


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_the_curve_the_state_and_the_evaluation_are_those_of_one_device(found, alone, name):
    np.testing.assert_allclose(found[name]["losses"], alone[name]["losses"], rtol=TOLERANCE)
    expected, state = arrays(alone[name]), arrays(found[name])
    assert state.keys() == expected.keys()
    for variable, value in state.items():
        np.testing.assert_allclose(value, expected[variable], rtol=1e-3, atol=TOLERANCE, err_msg=variable)
    assert found[name]["evaluation"] == pytest.approx(alone[name]["evaluation"], rel=1e-4)
    assert found[name]["home"]


def test_with_virtual_workers_the_curve_is_that_of_one_device_to_the_bit(found, alone):
    assert found["tables"]["losses"] == alone["tables"]["losses"]


def test_large_variables_are_divided_with_their_slots_and_tables_travel_by_rows(found):
    result = found["tables"]
    divided = {name for name, devices in result["pieces"].items() if len(set(devices)) == 2}
    for table in ("one", "two"):
        slots = {f"optimizer/adamw/{table}_embeddings_{slot}" for slot in ("momentum", "velocity")}
        assert {f"model/{table}/embeddings", *slots} <= divided
    assert result["tables"] == ["one", "two"]
    servers = {name: devices[0] for name, devices in result["pieces"].items() if len(devices) == 1}
    assert len(set(servers.values())) == 2, "the small ones are on both servers too"
    assert all(len(devices) == 1 for devices in found["dense"]["pieces"].values())


def test_asynchronous_updates_are_all_counted_and_none_is_lost(found, alone):
    name = "asynchronous"
    state, expected = found[name]["state"], alone[name]["state"]
    iterations = [value for variable, value in state.items() if variable.endswith("iteration")]
    assert state["step"] == STEPS and iterations == [STEPS]
    window = np.array(state["window"])
    # Of the newest window: as many steps and samples as on one device, and another order of the same updates.
    assert window[-4] == np.array(expected["window"])[-4] and window[1] == np.array(expected["window"])[1]
    assert np.isfinite(found[name]["losses"]).all()
    np.testing.assert_allclose(found[name]["losses"], alone[name]["losses"], rtol=0.2)
    assert found[name]["evaluation"]["loss"] == pytest.approx(alone[name]["evaluation"]["loss"], rel=0.2)
