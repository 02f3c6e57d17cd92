import json
from pathlib import Path

import pytest

from launch.cli import run
from launch.exit_code import ExitCode

CONFIG = """
model: {{name: tabular}}
data: {{name: csv, path: {folder}/train.csv, held_out_path: {folder}/train.csv, target: label}}
train: {{steps: 1}}
run: {{dir: {folder}/runs}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "people.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))
    write(tmp_path)
    return str(path)


def write(folder: Path, *more: str) -> None:
    rows = [f"{i},{'ab'[i % 2]},{'yes' if i % 3 else 'no'}" for i in range(30)]
    (folder / "train.csv").write_text("\n".join(["size,kind,label", *rows, *more]) + "\n")


def test_inspect_writes_into_the_run_folder_and_validate_reads_it_there(config, tmp_path, capsys):
    assert run(["data", "inspect", config]) == ExitCode.DONE
    told = capsys.readouterr().out
    folder = tmp_path / "runs" / "people"
    assert "all 30 samples of data.name=csv" in told and "label label: yes 66.7%, no 33.3%" in told
    for file in ("data_inspection.json", "data_inspection.html"):
        assert (folder / file).is_file() and str(folder / file) in told
    assert run(["data", "validate", config]) == ExitCode.DONE
    assert capsys.readouterr().out == "30 of 30 samples looked at: every rule is kept\n"
    write(tmp_path, "31,a,yes", "5,c,maybe", ",a,yes", "0,a,no")
    assert run(["data", "validate", config]) == ExitCode.WRONG_REQUEST
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and last == "33 of 34 samples looked at: 5 times a rule is broken"
    for line, parts in zip(
        sorted(lines),
        [
            ("row 31, position 30", "'size' is 31, which must lie in 0..29", "rules.features.size.range in"),
            ("row 32, position 31", "'kind' is c, which must be one of the categories a, b", "features.kind.names in"),
            ("row 32, position 31", "label 'label' is maybe", "features.label.names in"),
            ("row 33", "feature 'size' is missing", "correct it"),
            ("row 34, position 32", "equals", "rules.duplicates=0 in"),
        ],
        strict=True,
    ):
        assert all(part in line for part in parts), line


def test_json_and_files_elsewhere(config, tmp_path, capsys):
    assert (
        run(["data", "inspect", config, "--out", str(tmp_path / "seen"), "--samples", "9", "--json"]) == ExitCode.DONE
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["read"], told["total"]) == (9, 30) and Path(told["page"]).is_file()
    assert not (tmp_path / "runs").exists()
    write(tmp_path, "1000,a,yes")
    command = ["data", "validate", config, "--against", told["file"], "--json"]
    assert run(command) == ExitCode.WRONG_REQUEST
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"] and found["counts"] == [{"check": "range", "feature": "size", "count": 1}]
    assert (found["findings"][0]["value"], found["findings"][0]["position"]) == ("1000", 30)


def test_mistakes_are_one_sentence(config, tmp_path, capsys):
    assert run(["data", "validate", config]) == ExitCode.WRONG_REQUEST
    assert "there is no file" in (told := capsys.readouterr().err) and "phalanx data inspect" in told
    assert run(["data", "inspect", config]) == ExitCode.DONE
    capsys.readouterr()
    (tmp_path / "train.csv").write_text("size,kind\n1,a\n")
    assert run(["data", "validate", config]) == ExitCode.WRONG_REQUEST
    assert "no column 'label'" in capsys.readouterr().out


def test_a_shipped_config_inspects_and_validates_clean(tmp_path, capsys):
    options = ["configs/flights_tabular.yaml", f"run.dir={tmp_path}", "--samples", "50000"]
    assert run(["data", "inspect", *options]) == ExitCode.DONE
    told = capsys.readouterr().out
    assert "samples of data.name=flights" in told and "departure_delay" in told and "on time" in told
    page = (tmp_path / "flights_tabular" / "data_inspection.html").read_text()
    for feature in ("carrier", "origin", "destination", "month", "weekday", "manufacturer", "departure_delay",
                    "departure_minute", "arrival_minute", "distance", "aircraft_year"):  # fmt: skip
        assert f">{feature}<" in page
    assert run(["data", "validate", *options]) == ExitCode.DONE
    assert "every rule is kept" in capsys.readouterr().out
