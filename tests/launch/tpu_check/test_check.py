"""Steps compiled by the real compiler of TPUs, in a process of its own."""

import json
import re

import pytest

from launch.cli import run
from launch.config import load_config
from launch.exit_code import ExitCode, RequestError
from launch.tpu_check.check import check_for_tpu
from launch.tpu_check.compiler import OutOfTime
from launch.tpu_check.verdict import describe

pytest.importorskip("libtpu", reason="the compiler of TPUs is an extra, and not for Python 3.10")

SMALL = [
    "data.name=synthetic", "data.shape=[8,8,1]", "data.num_classes=3", "data.num_samples=4096", "data.batch_size=32",
    "model.hidden=[16]",
]  # fmt: skip
REFUSED = ["model.name=tests.launch.tpu_check.models:build"]


def checked(topology, *overrides, search=False, limit_s=120.0):
    return check_for_tpu(load_config("configs/mnist.yaml", [*SMALL, *overrides]), topology, limit_s, search)


@pytest.fixture(scope="module")
def four_chips():
    return checked("v5e:2x2", search=True)


def test_a_step_compiles_with_its_sum_over_the_replicas(four_chips):
    assert four_chips.ok, four_chips.problems
    (collective,) = four_chips.collectives
    weights = 4 * (64 * 16 + 16 + 16 * 3 + 3)
    assert collective["kind"] == "all-reduce"
    assert weights <= collective["bytes"] < weights + 64
    assert four_chips.flops > 3 * 2 * 8 * (64 * 16 + 16 * 3) * 0.9  # forward, and backward for weights


def test_the_state_is_changed_in_place(four_chips):
    state = 3 * 4 * (64 * 16 + 16 + 16 * 3 + 3)  # Adam keeps two numbers besides each weight
    assert four_chips.hbm["alias"] >= state
    assert four_chips.hbm["outputs"] - four_chips.hbm["alias"] < 0.1 * state + 4096
    assert 0 < four_chips.hbm["needed"] < four_chips.usable_hbm_bytes


def test_the_page_says_what_is_proved_and_what_is_not(four_chips):
    page = describe(four_chips)
    assert page.index("this proves that") < page.index("it does not prove") < page.index("\nok")
    assert "largest batch      at least 4096, no larger one was tried" in page
    assert "197 TFLOP/s in bfloat16, 819 GB/s of HBM" in page


def test_the_bound_is_the_largest_of_its_parts(four_chips):
    bounds = four_chips.roofline
    assert bounds.bound_s == max(bounds.compute_s, bounds.state_s, bounds.links_s) > 0
    assert bounds.compute_s == pytest.approx(four_chips.flops / 197e12)


def test_one_chip_sums_nothing():
    verdict = checked("v6e:1x1")
    assert verdict.ok
    assert verdict.collectives == []
    assert verdict.roofline is not None and verdict.roofline.links_s == 0


REASONS = {
    "python": r"the layer odd uses EagerPyFunc \(models\.py, line \d+\), which a TPU does not have: write it with",
    "text": r"the layer odd uses AsString \(models\.py, line \d+\), which a TPU does not have: encode text",
    "double": r"the layer odd is refused by the compiler \(.*c128.*\): use complex64, which has float32 parts",
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_model_that_no_tpu_takes_is_refused_with_what_to_use_instead(kind):
    overrides = [*SMALL[:-1], *REFUSED, f"model.options={{kind: {kind}}}"]
    verdict = check_for_tpu(load_config("configs/mnist.yaml", overrides), "v5e:2x2")
    assert not verdict.ok
    assert verdict.layer == "odd"
    (problem,) = verdict.problems
    assert re.search(REASONS[kind], problem), problem
    assert describe(verdict).splitlines()[-1] == f"problem: {problem}"


def test_too_much_memory_is_refused_with_a_batch_that_fits(capsys, monkeypatch):
    monkeypatch.setattr("launch.tpu_check.batch_search.MOST_TRIALS", 2)
    photographs = ["data.shape=[512,512,3]", "data.batch_size=65536", "data.num_samples=65536"]
    code = run(["check", "configs/mnist.yaml", "--tpu", "v2:2x2", "--json", *SMALL, *photographs])
    found = json.loads(capsys.readouterr().out)
    assert code == ExitCode.NO_RESOURCES
    assert not found["ok"] and not found["tpu"]["ok"]
    assert found["tpu"]["hbm"]["needed_bytes"] > found["tpu"]["hbm"]["usable_bytes"] == int(7.48 * 2**30)
    fits = found["tpu"]["largest_batch"]["batch_size"]
    assert 0 < fits < 65536
    assert f"set data.batch_size={fits}" in found["tpu"]["problems"][0]


def test_a_batch_that_the_replicas_cannot_share_is_refused():
    verdict = checked("v5e:4x4", "data.batch_size=24")
    assert verdict.problems == [
        "the number of TensorCores=16 must divide data.batch_size=24: set data.batch_size to a multiple of 16"
    ]


def test_a_slice_that_the_compiler_does_not_know_is_refused():
    with pytest.raises(RequestError, match=r"--tpu v5e:3x3 must be a slice that the compiler knows: .*not divisible"):
        checked("v5e:3x3")


def test_the_compiler_has_a_time_limit():
    with pytest.raises(OutOfTime, match=r"must be ready within 0\.01 s"):
        checked("v5e:2x2", limit_s=0.01)


def test_a_program_that_takes_too_long_is_compiled_at_the_quick_level(monkeypatch):
    monkeypatch.setattr("launch.tpu_check.check._SHARE", 1e-6)
    verdict = checked("v5e:1x1")
    assert verdict.ok and verdict.is_quick
    assert "at the quick level, which overstates temporaries" in describe(verdict)
