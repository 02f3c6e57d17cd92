"""Whole trainings in a run folder, in this process: what is recorded, stopped, resumed, rolled back."""

import contextlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import small_config
from tests.trainer.strategies.test_non_finite_gradient import ROOTED
from trainer.checkpoint.format import read_checkpoint
from trainer.checkpoint.store import CheckpointStore
from trainer.checkpoint.writer import CheckpointWriter
from trainer.loop import Loop
from trainer.non_finite import NonFiniteLoss
from trainer.observe.journal import read_journal
from trainer.observe.metrics_log import read_metrics
from trainer.run_folder import RunFolder
from trainer.snapshot.file import read_snapshot
from trainer.snapshot.taker import SnapshotPlan
from trainer.stop_request import StopRequest
from trainer.training import Outcome, run_training

EVERY = {"evaluate": {"every": "1ep"}, "checkpoint": {"every": "4st", "max_overhead": None}}
NOT_REPEATED = {"time", "examples_per_s", "data_wait"}


def train(folder: Path, stop: StopRequest | None = None, **change) -> Outcome:
    run = RunFolder(folder)
    run.create()
    change = {**EVERY, **change, "train": {"log_every": 2, "steps_per_loop": 5, **change.get("train", {})}}
    return run_training(small_config(**change), run, StopRequest() if stop is None else stop)


def curve(folder: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in NOT_REPEATED} for line in read_metrics(folder / "metrics.jsonl")]


class StopAt(StopRequest):
    """A request that the loop sees once `step` steps are logged: stops in the middle, without a clock."""

    def __init__(self, metrics: Path, step: int) -> None:
        super().__init__()
        self._metrics, self._step = metrics, step

    def __bool__(self) -> bool:
        if self._metrics.exists() and any(line["step"] >= self._step for line in read_metrics(self._metrics)):
            self.request("SIGTERM")
        return super().__bool__()


def test_a_run_records_every_step_once_and_ends_with_everything_saved(tmp_path):
    outcome = train(tmp_path)
    lines = curve(tmp_path)
    assert [line["step"] for line in lines if "split" not in line] == [2, 4, 6, 8, 10, 12]
    assert [line["step"] for line in lines if "split" in line] == [6, 12]
    assert outcome.stopped is None and outcome.step == 12
    assert outcome.metrics["accuracy"] == lines[-1]["accuracy"]
    assert CheckpointStore(tmp_path / "checkpoints").steps()[-1] == 12
    events = [event["event"] for event in read_journal(tmp_path / "journal.jsonl")]
    assert events[0] == "started" and events[-1] == "finished"


@pytest.mark.parametrize("step", [2, 6, 10])
def test_a_stopped_run_goes_on_with_the_same_curve(tmp_path, step):
    train(tmp_path / "whole")
    stopped = train(tmp_path / "halved", StopAt(tmp_path / "halved/metrics.jsonl", step))
    assert stopped.stopped == "SIGTERM" and stopped.step < 12
    resumed = train(tmp_path / "halved")
    assert resumed.step == 12
    assert curve(tmp_path / "halved") == curve(tmp_path / "whole")
    events = read_journal(tmp_path / "halved/journal.jsonl")
    assert [e["step"] for e in events if e["event"] == "resumed"] == [stopped.step]
    assert {event["generation"] for event in events} == {0, 1}


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_it_used(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "run", StopAt(tmp_path / "run/metrics.jsonl", 10))
    newest = sorted((tmp_path / "run/checkpoints").glob("step-*"))[-1]
    state = newest / "state.safetensors"
    damaged = bytearray(state.read_bytes())
    damaged[-5] ^= 1
    state.write_bytes(damaged)
    train(tmp_path / "run")
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    assert (newest.parent / f"damaged-{newest.name}").is_dir()
    [event] = [e for e in read_journal(tmp_path / "run/journal.jsonl") if e["event"] == "checkpoint_damaged"]
    assert "state.safetensors" in event["reason"]


def test_repeating_a_finished_run_changes_nothing(tmp_path):
    train(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    outcome = train(tmp_path)
    assert outcome.step == 12 and (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_longer_run_goes_on_from_the_end_of_the_shorter(tmp_path):
    train(tmp_path / "whole", train={"steps": 18})
    train(tmp_path / "longer", train={"steps": 12})
    train(tmp_path / "longer", train={"steps": 18})
    assert curve(tmp_path / "longer") == curve(tmp_path / "whole")


def test_calls_of_the_inner_loop_begin_at_the_same_steps_wherever_a_run_went_on_from(tmp_path):
    """Members of a group hear each other's votes there, also those that joined it later than others."""
    begins: list[tuple[int, str]] = []

    def train_to(steps: int) -> None:
        run = RunFolder(tmp_path)
        run.create()
        never = {"evaluate": {"every": None}, "checkpoint": {"every": "100st"}}
        config = small_config(**never, train={"steps": steps, "log_every": 100, "steps_per_loop": 5})
        taken = run_training(config, run, StopRequest(), on_progress=lambda step, phase: begins.append((step, phase)))
        assert taken.step == steps

    train_to(3)
    begins.clear()
    train_to(12)
    assert [step for step, phase in begins if phase in ("compile", "step")] == [3, 5, 10]


@pytest.mark.parametrize("is_chief", [True, False])
def test_only_a_chief_that_has_saved_does_not_miss_a_peer_that_has_left(is_chief):
    class Left:
        def from_chief(self, number: int) -> int:
            raise tf.errors.UnavailableError(None, None, "Collective ops is aborted by: Socket closed")

    loop = SimpleNamespace(_decisions=SimpleNamespace(is_chief=is_chief))
    with contextlib.nullcontext() if is_chief else pytest.raises(tf.errors.UnavailableError):
        Loop._dismiss(loop, Left(), 12)  # type: ignore[arg-type]


def exploding(schema) -> keras.Model:
    """Divides by zero where a sample's first number is above 0.98: some batches of an epoch."""
    inputs = keras.Input((12,))
    hidden = keras.layers.Dense(4, name="before")(inputs)
    ratio = keras.layers.Lambda(
        lambda x: x[0] / tf.where(tf.reduce_max(x[1], -1, keepdims=True) > 0.98, 0.0, 1.0), name="ratio"
    )([hidden, inputs])
    return keras.Model(inputs, keras.layers.Dense(3)(ratio))


EXPLODING = {"model": {"name": "tests.trainer.test_training:exploding"}}


def test_a_loss_that_is_not_finite_names_step_samples_and_layer(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"layer .*ratio \(Lambda\) is the first") as caught:
        train(tmp_path, **EXPLODING)
    assert f"the loss of step {caught.value.step + 1} is not finite" in str(caught.value)
    assert len(caught.value.sample_ids) == 16
    assert all(math.isfinite(line["loss"]) for line in curve(tmp_path))
    assert read_journal(tmp_path / "journal.jsonl")[-1]["event"] == "failed"


ROLLING = {**EXPLODING, "train": {"on_nan": "rollback", "max_rollbacks": 8}}


def rolled_back(folder: Path) -> list[dict]:
    events = [e for e in read_journal(folder / "journal.jsonl") if e["event"] == "rolled_back"]
    return [{key: e[key] for key in ("step", "from_step", "first", "last")} for e in events]


@pytest.fixture(scope="module")
def rolled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rolled")
    train(folder, **ROLLING)
    return folder


def test_a_roll_back_skips_the_window_and_records_it(rolled):
    assert [line["step"] for line in curve(rolled) if "split" not in line] == [2, 4, 6, 8, 10, 12]
    events = rolled_back(rolled)
    assert events and all(e["first"] <= e["last"] and e["step"] % 4 == 0 for e in events)
    checkpoint = CheckpointStore(rolled / "checkpoints").newest_verified()
    assert checkpoint is not None and len(checkpoint.metadata["skipped_windows"]) == len(events)


@pytest.mark.parametrize("step", [6, 10])
def test_roll_backs_repeat_to_the_bit_wherever_a_run_was_stopped(rolled, tmp_path, step):
    train(tmp_path, StopAt(tmp_path / "metrics.jsonl", step), **ROLLING)
    train(tmp_path, **ROLLING)
    assert curve(tmp_path) == curve(rolled) and rolled_back(tmp_path) == rolled_back(rolled)


def test_a_snapshot_between_two_kept_states_leads_to_the_same_roll_backs(rolled, tmp_path):
    config = small_config(**{**EVERY, **ROLLING, "train": {"log_every": 2, "steps_per_loop": 5, **ROLLING["train"]}})
    plan = SnapshotPlan(tmp_path / "memory", every=5)
    run_training(config, RunFolder(tmp_path / "killed"), StopRequest(), snapshots=plan)
    snapshot = read_snapshot(tmp_path / "memory")
    assert snapshot is not None and snapshot.step == 10
    run_training(config, RunFolder(tmp_path / "next"), StopRequest(), restore=snapshot)
    # The line of the step itself too, which nobody has written there: a chief may die before it has.
    made_up, *later = curve(tmp_path / "next")
    expected = curve(rolled)
    assert made_up in expected and made_up["step"] == 10 and "split" not in made_up
    assert later == [line for line in expected if line["step"] > 10]


def test_checkpoints_that_are_put_off_change_no_roll_back(rolled, tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointWriter, "ready", False)
    train(tmp_path, **ROLLING)
    assert CheckpointStore(tmp_path / "checkpoints").steps() == [12]
    assert curve(tmp_path) == curve(rolled) and rolled_back(tmp_path) == rolled_back(rolled)


def test_roll_backs_before_a_resume_count(rolled, tmp_path):
    most = len(rolled_back(rolled)) - 1
    last = rolled_back(rolled)[-1]["from_step"]
    rolling = {**EXPLODING, "train": {"on_nan": "rollback", "max_rollbacks": most}}
    assert most > 0 and any(e["from_step"] < last for e in rolled_back(rolled))
    train(tmp_path, StopAt(tmp_path / "metrics.jsonl", last // 2 * 2), **rolling)
    with pytest.raises(NonFiniteLoss) as caught:
        train(tmp_path, **rolling)
    assert caught.value.step == last


def test_a_gradient_that_is_not_finite_reaches_no_weight_and_no_checkpoint(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"the gradient of step .* the gradient of before/kernel is not finite"):
        train(tmp_path / "stops", **ROOTED)
    rolling = {"on_nan": "rollback", "max_rollbacks": 8}
    outcome = train(tmp_path / "rolls", **ROOTED, train=rolling, checkpoint={"every": "1st", "keep": 20})
    assert outcome.step == 12 and [
        e for e in read_journal(tmp_path / "rolls/journal.jsonl") if e["event"] == "rolled_back"
    ]
    for run in ("stops", "rolls"):
        store = CheckpointStore(tmp_path / run / "checkpoints")
        for step in store.steps():
            arrays = read_checkpoint(store.path(step)).arrays
            assert all(np.isfinite(values).all() for values in arrays.values())


def test_too_many_roll_backs_end_the_run(tmp_path):
    with pytest.raises(NonFiniteLoss):
        train(tmp_path, **EXPLODING, train={"on_nan": "rollback", "max_rollbacks": 0})


@tf.custom_gradient
def overflow_backwards(x):
    """x as it is; on the last replica its gradient is beyond float16 until the loss scale has come down."""
    context = tf.distribute.get_replica_context()
    number, last = (context.replica_id_in_sync_group, context.num_replicas_in_sync - 1) if context else (0, 0)
    return x, lambda upstream: upstream * tf.cast(tf.where(tf.equal(number, last), 1000.0, 1.0), x.dtype)


def overflowing(schema) -> keras.Model:
    inputs = keras.Input((12,))
    hidden = keras.layers.Dense(4)(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Lambda(overflow_backwards)(hidden)))


@pytest.mark.parametrize("devices", [None, 2])
def test_float16_skips_a_step_whose_gradient_overflows_on_one_replica_on_all_together(tmp_path, devices):
    strategy = {"name": "mirrored", "devices": devices} if devices else {"name": "one_device"}
    model = {"name": "tests.trainer.test_training:overflowing"}
    outcome = train(tmp_path, model=model, precision="mixed_float16", strategy=strategy)
    variables = outcome.session.state.variables
    for name, variable in variables.items():
        copies = [copy.numpy() for copy in variable.values] if devices else [variable.numpy()]
        assert np.isfinite(copies[0].astype(np.float64)).all(), name
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0], err_msg=name)
    skipped = sum(line.get("skipped_steps", 0) for line in curve(tmp_path))
    assert 0 < skipped < 12
    assert float(variables["loss_scale/scale"].numpy()) == 2.0 ** (15 - skipped)
    iterations = next(v for name, v in variables.items() if name.endswith("iteration"))
    assert int(iterations.numpy()) == 12 - skipped


def overflowing_forwards(schema) -> keras.Model:
    """Is beyond float16 for samples with a number above 0.98: some batches of an epoch."""
    inputs = keras.Input((12,))
    large = keras.layers.Lambda(lambda x: x / tf.cast(tf.reduce_max(x, -1, keepdims=True) <= 0.98, x.dtype))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.BatchNormalization()(large(inputs))))


def test_float16_skips_a_step_whose_loss_overflows(tmp_path):
    model = {"name": "tests.trainer.test_training:overflowing_forwards"}
    outcome = train(tmp_path, model=model, precision="mixed_float16", data={"batch_size": 4}, train={"log_every": 12})
    variables = outcome.session.state.variables
    assert all(np.isfinite(v.numpy().astype(np.float64)).all() for v in variables.values())
    [line] = [line for line in curve(tmp_path) if "split" not in line]
    assert 0 < line["skipped_steps"] < 12 and math.isfinite(line["loss"])


def test_a_warm_start_loads_what_fits_and_says_what_does_not(tmp_path, capsys):
    train(tmp_path / "first")
    train(tmp_path / "second", train={"steps": 2}, warm_start={"path": str(tmp_path / "first"), "exclude": ["bias"]})
    out = capsys.readouterr().out
    assert "2 of 4 variables loaded" in out and "warm_start.exclude has bias" in out
    [event] = [e for e in read_journal(tmp_path / "second/journal.jsonl") if e["event"] == "warm_started"]
    assert len(event["loaded"]) == 2 and len(event["skipped"]) == 2
    first = json.loads((tmp_path / "first/metrics.jsonl").read_text().splitlines()[0])
    warm = json.loads((tmp_path / "second/metrics.jsonl").read_text().splitlines()[0])
    assert warm["loss"] < first["loss"]


@pytest.mark.parametrize("source", ["csv", "arrays"])
def test_numbers_far_from_zero_are_learned_and_their_share_of_variance_is_exact(tmp_path, source):
    rng = np.random.default_rng(0)
    for split, rows in (("train", 256), ("test", 64)):
        x = rng.normal(size=(rows, 2)).astype(np.float32)
        y = (10_000 + x @ [3.0, -2.0]).astype(np.float32)
        if source == "arrays":
            np.savez(tmp_path / f"{split}.npz", x=x, y=y)
        else:
            lines = [f"{a},{b},{c:.3f}" for (a, b), c in zip(x, y, strict=True)]
            (tmp_path / f"{split}.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
    ending = "npz" if source == "arrays" else "csv"
    files = {"path": str(tmp_path / f"train.{ending}"), "held_out_path": str(tmp_path / f"test.{ending}")}
    kind = {"target_kind": "number"} if source == "csv" else {}
    outcome = train(
        tmp_path / "run",
        data={"name": source, "target": "y", "batch_size": 32, **files, **kind},
        model={"name": "tabular", "hidden": [8]} if source == "csv" else {"name": "mlp", "hidden": [8], "dropout": 0.0},
        task={"name": "regression"},
        optimizer={"name": "adam", "learning_rate": 0.02},
        train={"steps": 120, "log_every": 10},
    )
    assert 0.95 < outcome.metrics["r2"] < 1.0 and outcome.metrics["mae"] < 1.0
