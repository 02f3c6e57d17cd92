import json

import pytest

from trainer.config.data import SyntheticData
from trainer.data.bench import DataBench, StageSpeed, bench_data
from trainer.data.synthetic import open_synthetic


def test_measures_every_stage():
    data = SyntheticData(shape=(6, 6, 1), batch_size=16, augment=("flip",))
    bench = bench_data(open_synthetic(data, "train"), data, duration_s=0.02, consume=lambda: 1.0)
    assert [stage.stage for stage in bench.stages] == ["order", "read", "augment", "pipeline"]
    for stage in bench.stages:
        assert stage.samples_per_s > 0
        assert stage.samples_per_s * stage.batch_us == pytest.approx(16e6)
    assert bench.starved is False and "would not wait" in bench.verdict()
    assert json.loads(json.dumps(bench.as_json()))["produced_per_s"] == bench.produced_per_s


def test_partial_batches_and_no_model():
    data = SyntheticData(shape=(3,), num_samples=10, batch_size=8, remainder="keep")
    bench = bench_data(open_synthetic(data, "train"), data, duration_s=0.01)
    assert [stage.stage for stage in bench.stages] == ["order", "read", "pipeline"]
    assert bench.starved is None and bench.verdict().startswith("the input gives")


@pytest.mark.parametrize(("consumed", "starved"), [(90.0, False), (95.0, True), (200.0, True)])
def test_verdict_names_the_slowest_stage(consumed, starved):
    stages = tuple(
        StageSpeed(stage, speed, 8e6 / speed)
        for stage, speed in (("order", 900.0), ("read", 70.0), ("augment", 300.0), ("pipeline", 100.0))
    )
    bench = DataBench(stages, 8, consumed)
    assert bench.starved is starved and bench.slowest.stage == "read"
    assert ("read is slowest: set data.cache=memory" in bench.verdict()) is starved
