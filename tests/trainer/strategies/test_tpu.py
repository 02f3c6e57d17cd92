"""The adapter of TPUs as far as it runs without one: its program on CPUs, and what is refused beforehand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.cluster.tpu.emulated_cloud import Zone
from tests.cluster.tpu.emulator import emulated
from tests.trainer.sessions import losses, small_config, small_session, weights
from trainer.config.strategy import StrategyConfig
from trainer.session import build_session
from trainer.strategies.tpu import Tpu, resolver_of, rows_of
from trainer.strategies.tpu_lowering import TpuLowering
from trainer.strategies.tpu_preflight import (
    TpuNotUsable,
    check_tensorflow,
    config_problems,
    installation_problem,
    shape_problems,
)

AS_TPU = {"name": "tpu"}
NORMALISED = {
    "model": {"name": "tests.trainer.strategies.normalised_model:normalised"},
    "data": {"shape": [4, 4, 2]},
}


def session_on(strategy, **change):
    """A session of strategy.name=tpu whose replicas are CPUs."""
    return build_session(small_config(strategy=AS_TPU, **change), new_strategy=lambda *_: Tpu(strategy))


@pytest.mark.parametrize(
    "change", [{}, {"optimizer": {"clip_norm": 0.5}, "train": {"ema": 0.9}}], ids=["plain", "clip"]
)
def test_a_loop_of_steps_draws_the_curve_of_one_device(change):
    one = small_session(strategy={"name": "one_device"}, **change)
    expected = losses(one, 12, 4)
    ours = session_on(tf.distribute.OneDeviceStrategy("CPU:0"), **change)
    np.testing.assert_allclose(losses(ours, 12, 4), expected, rtol=1e-5)
    for name, value in weights(one).items():
        np.testing.assert_allclose(weights(ours)[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert ours.state.step == 12


def test_a_step_that_is_not_finite_ends_the_loop_and_changes_nothing():
    session = session_on(
        tf.distribute.OneDeviceStrategy("CPU:0"), optimizer={"name": "sgd", "learning_rate": 1e30}, train={"steps": 8}
    )
    loop = session.strategy.train_loop(session.step, session.state)
    taken = session.blocks(0, 8).take(8)
    result = loop(taken.block, tf.constant(taken.first), tf.constant(taken.num_steps), tf.constant(True))
    done, not_finite = result.status.numpy().tolist()
    assert not_finite == 1
    assert 0 < done < taken.num_steps
    assert all(np.isfinite(value).all() for value in weights(session).values())


def test_an_evaluation_gives_the_sums_of_one_device():
    evaluate = {"evaluate": {"every": "4st"}}
    one = small_session(strategy={"name": "one_device"}, **evaluate)
    ours = session_on(tf.distribute.OneDeviceStrategy("CPU:0"), **evaluate)
    assert one.evaluator is not None and ours.evaluator is not None
    assert ours.evaluator.measure() == pytest.approx(one.evaluator.measure())


def test_rows_are_cut_into_consecutive_equal_parts():
    block = tf.reshape(tf.range(24), [2, 6, 2])
    parts = [rows_of(block, 1, replica, 3).numpy() for replica in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), block.numpy())


def test_a_tensorflow_without_kernels_for_tpus_is_refused():
    with pytest.raises(
        TpuNotUsable, match=r"tensorflow 2\.\d+\.\d+ lacks: .* pip install tensorflow-tpu==2\.20\.0 libtpu"
    ):
        check_tensorflow()


@pytest.mark.parametrize(
    ("libtpu", "problem"),
    [("0.0.20", None), ("0.0.14", None), ("0.0.52", "libtpu 0.0.52 must be"), (None, "libtpu is not installed")],
)
def test_a_libtpu_that_does_not_match_is_refused(libtpu, problem):
    found = installation_problem(True, {"tensorflow-tpu": "2.20.0", "libtpu": libtpu})
    assert (found is None) if problem is None else (found is not None and problem in found)


def test_a_batch_that_the_cores_cannot_share_is_refused():
    (problem,) = config_problems(small_config(), 3)
    assert (
        problem == "the number of TensorCores=3 must divide data.batch_size=16: set data.batch_size to a multiple of 3"
    )


def test_float16_and_a_smaller_last_batch_are_refused():
    config = small_config(precision="mixed_float16", data={"remainder": "keep"})
    float16, keep = config_problems(config, 1)
    assert "set precision=mixed_bfloat16" in float16
    assert "set data.remainder=pad" in keep


def test_unknown_shapes_and_strings_are_refused():
    batch = {
        "image": tf.TensorSpec([16, None, 3]),
        "word": tf.TensorSpec([16], tf.string),
        "label": tf.TensorSpec([16], tf.int32),
    }
    image, word = shape_problems(batch)
    assert "the feature image has the shape (16, None, 3)" in image
    assert "the feature word is a string" in word


def test_devices_cannot_be_counted_out():
    with pytest.raises(ValueError, match=r"strategy\.devices=2 must not be set with strategy\.name=tpu"):
        StrategyConfig(name="tpu", devices=2)


def test_the_chips_of_this_machine_need_no_api():
    resolver = resolver_of(StrategyConfig(name="tpu"))
    assert resolver.master() in ("", "local")


@pytest.mark.parametrize("hosts", [1, 4], ids=["one host", "pod"])
def test_a_named_tpu_is_found_with_all_its_hosts(hosts, tmp_path, monkeypatch):
    pytest.importorskip("cloud_tpu_client", reason="cloud-tpu-client is an extra")
    with emulated({"zone-a": Zone()}) as (emulator, clock):
        monkeypatch.setenv("TPU_API_DISCOVERY_URL", emulator.discovery_url)
        monkeypatch.setenv("NO_GCE_CHECK", "True")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(emulator.write_key(tmp_path / "key.json")))
        emulator.cloud.hosts_of_node = hosts
        emulator.cloud.handle("POST", "projects/p/locations/zone-a/nodes", {"nodeId": "one"}, {})
        clock.sleep(30)
        resolver = resolver_of(StrategyConfig(name="tpu", tpu="one", tpu_zone="zone-a", tpu_project="p"))
        addresses = resolver.cluster_spec().as_dict()["worker"]
    assert addresses == [f"10.0.0.{2 + host}:8470" for host in range(hosts)]


@pytest.mark.parametrize("synchronizes", [False, True], ids=["plain", "synchronized statistics"])
def test_two_replicas_of_the_compiled_program_draw_the_curve_of_one_device(tmp_path, synchronizes, chaos_long):
    """The very module that the compiler of TPUs is given, on two CPUs: each computes half of the batch."""
    pytest.importorskip("jax", reason="the check for TPUs is an extra")
    if synchronizes and not chaos_long:
        pytest.skip("takes ten seconds: --chaos-long")
    change = {"optimizer": {"clip_norm": 0.5}, **(NORMALISED if synchronizes else {})}
    one = small_session(strategy={"name": "one_device"}, **change)
    loop = one.strategy.train_loop(one.step, one.state)
    taken = one.blocks(0, 6).take(6)
    expected = loop(taken.block, tf.constant(taken.first), tf.constant(taken.num_steps), tf.constant(True))
    lowering = TpuLowering(
        small_config(**change, train={"steps_per_loop": taken.num_steps, "synchronize_batch_norm": synchronizes}), 2
    )
    function, specs = lowering.function(16)
    variables = lowering.session.state.variables
    names = {id(variable.handle): name for name, variable in variables.items()}
    captured = [names[id(handle)] for handle in function.get_concrete_function(*specs).captured_inputs]
    arguments = {"0": np.int32(0), "1": np.int32(taken.num_steps), "2": np.bool_(True)}
    for value in taken.block.values():
        halves = np.split(value.numpy()[: taken.num_steps], 2, axis=1)
        arguments[f"{len(arguments)}s"] = np.concatenate(halves, axis=0)
    arguments |= {str(len(arguments) + i): variables[name].numpy() for i, name in enumerate(captured)}
    (tmp_path / "program").write_bytes(lowering.program(16))
    np.savez(tmp_path / "arguments.npz", **arguments)
    script = Path(__file__).with_name("run_on_two_cpus.py")
    files = [tmp_path / name for name in ("program", "arguments.npz", "results.npz")]
    subprocess.run([sys.executable, script, *files], check=True, timeout=120)
    window, status, *values = np.load(files[-1]).values()
    np.testing.assert_array_equal(status, expected.status.numpy())
    np.testing.assert_allclose(window, expected.window.numpy(), rtol=1e-5)
    assert len(values) == len(captured) == len(variables)
    for name, value in zip(captured, values, strict=True):
        np.testing.assert_allclose(value, one.state.variables[name].numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
