import json
from pathlib import Path

import pytest

from benchmarks.zoo import kept_rows
from benchmarks.zoo_cells import (
    AFTER,
    ALONE,
    STATED,
    STRATEGIES,
    WHOLE,
    Cell,
    cells_of,
    in_order,
    settings_of,
    whole_settings,
)
from benchmarks.zoo_table import difference, merged, notes_on, notes_on_results, table_of
from launch.config import load_config

CONFIGS = sorted(path.stem for path in Path("configs").glob("*.yaml"))


def test_every_cell_is_a_config_that_can_be_trained(tmp_path):
    cells = cells_of(CONFIGS, list(STRATEGIES))
    assert {cell.config for cell in cells} == set(CONFIGS) and Cell("mnist", "parameter_server") not in cells
    for cell in cells:
        load_config(f"configs/{cell.config}.yaml", settings_of(cell, 100, tmp_path, cell.name))


def test_what_is_stated_is_stated_of_configs_that_exist_and_run_alone():
    assert set(STATED) == set(CONFIGS) and set(ALONE) | set(WHOLE) <= set(CONFIGS)


def test_a_row_that_differs_after_its_kill_or_was_never_killed_is_told_apart():
    row = {"config": "mnist", "steps": 2, "seconds": 1.0, "losses": [2.0, 1.0]}
    alone = {**row, "strategy": "one_device", "equal_after_kill": True, "was_killed": True}
    other = {**row, "strategy": "mirrored", "losses": [2.0, 1.1], "equal_after_kill": False, "was_killed": True}
    late = {**row, "strategy": "elastic", "equal_after_kill": True, "was_killed": False}
    failed = {"config": "mnist", "strategy": "multi_worker_mirrored", "steps": 2}
    assert difference(other, alone) == pytest.approx(0.1) and difference(failed, alone) is None
    lines = table_of([alone, other, late, failed], "# Matrix").splitlines()
    assert "| equal |" in lines[4] and "**differs**" in lines[5] and "was too late" in lines[6] and "failed" in lines[7]


def test_runs_of_other_lengths_are_not_compared():
    row = {"config": "mnist", "strategy": "one_device", "losses": [2.0, 1.0]}
    assert difference({**row, "losses": [2.0, 1.0, 0.5]}, row) is None


def test_a_config_is_trained_after_the_one_that_it_begins_from(tmp_path):
    assert in_order(["digits_transfer", "mnist", "mnist_mobilenet"]) == [
        "mnist_mobilenet",
        "digits_transfer",
        "mnist",
    ]
    for config, before in AFTER.items():
        loaded = load_config(f"configs/{config}.yaml", whole_settings(config, tmp_path))
        assert loaded.warm_start is not None and loaded.warm_start.path == str(tmp_path / before)
    for config in WHOLE:
        assert load_config(f"configs/{config}.yaml", whole_settings(config, tmp_path)).data.name == "mnist_sample"


def test_a_kept_row_says_when_and_of_which_code_it_was_measured(tmp_path):
    kept, old = tmp_path / "zoo.json", {"config": "mnist", "strategy": "one_device", "steps": 1, "ok": False}
    newer = {**old, "strategy": "elastic", "date": "2026-12-02", "commit": "b" * 40}
    machine = {"date": "2026-12-01", "git": {"commit": "a" * 40}}
    kept.write_text(json.dumps({"machine": machine, "figures": {"rows": [old, newer]}}))
    rows = kept_rows(kept)
    assert [(row["date"], row["commit"][0]) for row in rows] == [("2026-12-01", "a"), ("2026-12-02", "b")]
    again = {**old, "date": "2026-12-03", "commit": "c" * 40}
    table = table_of(merged(rows, [again]), "# Matrix")
    assert "2026-12-03, ccccccc" in table and "aaaaaaa" not in table and "2026-12-02, bbbbbbb" in table
    assert kept_rows(tmp_path / "none.json") == []


def test_the_table_says_what_was_not_run_and_what_ran_with_changes():
    strategies = [strategy for strategy in STRATEGIES if strategy not in ("horovod", "parameter_server")]
    rows = [{"config": "resnet50", "strategy": name, "ok": name != "elastic"} for name in strategies]
    notes = notes_on(rows, ["mnist", "resnet50"])
    assert "with any strategy: mnist" in notes and "with horovod: resnet50" in notes
    assert "`data.name=mnist_sample " in notes
    assert notes.startswith("\n\n4 of 10 cells, 3 equal to the bit")
    rest = notes_on_results([{"config": config} for config in STATED if config not in ("mnist", "weather_tcn")])
    assert "Not run: mnist, weather_tcn." in rest and "resnet50 (`data.name=mnist_sample " in rest
