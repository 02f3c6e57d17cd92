from pathlib import Path

import pytest

from benchmarks.zoo import ALONE, STATED, STRATEGIES, Cell, cells_of, difference, settings_of, table_of
from launch.config import load_config

CONFIGS = sorted(path.stem for path in Path("configs").glob("*.yaml"))


def test_every_cell_is_a_config_that_can_be_trained(tmp_path):
    cells = cells_of(CONFIGS, list(STRATEGIES))
    assert {cell.config for cell in cells} == set(CONFIGS) and Cell("mnist", "parameter_server") not in cells
    for cell in cells:
        load_config(f"configs/{cell.config}.yaml", settings_of(cell, 100, tmp_path, cell.name))


def test_what_is_stated_is_stated_of_configs_that_exist_and_run_alone():
    assert set(STATED) <= set(CONFIGS) - {"resnet50"} and set(ALONE) <= set(CONFIGS)


def test_a_row_that_differs_after_its_kill_or_was_never_killed_is_told_apart():
    row = {"config": "mnist", "steps": 2, "seconds": 1.0, "losses": [2.0, 1.0]}
    alone = {**row, "strategy": "one_device", "equal_after_kill": True, "was_killed": True}
    other = {**row, "strategy": "mirrored", "losses": [2.0, 1.1], "equal_after_kill": False, "was_killed": True}
    late = {**row, "strategy": "elastic", "equal_after_kill": True, "was_killed": False}
    failed = {"config": "mnist", "strategy": "multi_worker_mirrored", "steps": 2}
    assert difference(other, alone) == pytest.approx(0.1) and difference(failed, alone) is None
    lines = table_of([alone, other, late, failed], "# Matrix").splitlines()
    assert "| equal |" in lines[4] and "**differs**" in lines[5] and "was too late" in lines[6] and "failed" in lines[7]
