"""Records that a run leaves out are told wherever a run is looked at."""

import json

import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from trainer.observe.journal import read_journal

CONFIG = """\
model: {{name: tabular, hidden: [4]}}
data: {{name: csv, path: {table}, target: kind, batch_size: 16, skip_bad_records: 20}}
train: {{steps: 4, log_every: 2, steps_per_loop: 2, deterministic: false}}
observe: {{tensorboard: false}}
export: {{enabled: false}}
run: {{dir: {folder}}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skipped")
    rows = [f"{number},{number % 7},{'ab'[number % 2]}" for number in range(100)]
    for number in range(2, 9):  # seven rows, more than are shown
        rows[number] = "short"
    (folder / "rows.csv").write_text("\n".join(["x,y,kind", *rows, ""]))
    (folder / "rows.yaml").write_text(CONFIG.format(table=folder / "rows.csv", folder=folder))
    return folder / "rows.yaml"


def test_the_run_its_status_and_its_report_list_them(config, capsys):
    assert run(["train", str(config)]) == ExitCode.DONE
    output = capsys.readouterr().out
    folder = config.with_suffix("")
    rule = "it has 1 columns, the header has 3"
    first = next(line for line in output.splitlines() if line.startswith("left out"))
    assert first.startswith(f"left out {folder}.csv, row 3: {rule}")
    assert output.index("left out") < output.index("step 2/4")
    _, _, summary = output.partition("7 records left out, of 20 that data.skip_bad_records allows:\n")
    assert summary.splitlines()[:6] == [*(f"  {folder}.csv, row {n}: {rule}" for n in range(3, 8)), "  and 2 more"]

    events = [event for event in read_journal(folder / "journal.jsonl") if event["event"] == "records_skipped"]
    assert [event["count"] for event in events] == [7]

    assert run(["status", str(folder)]) == ExitCode.DONE
    assert "7 records left out, of 20 that data.skip_bad_records allows:\n" in capsys.readouterr().out
    assert run(["status", str(folder), "--json"]) == ExitCode.DONE
    skipped = json.loads(capsys.readouterr().out)["skipped_records"]
    assert (skipped["count"], skipped["limit"]) == (7, 20)
    assert skipped["records"][6] == {"file": f"{folder}.csv", "record": "row 9", "rule": rule}

    page = (folder / "report.html").read_text()
    assert "7 left out, of 20 that data.skip_bad_records allows." in page
    assert '<td class="text">row 9</td>' in page


def test_check_lists_them_before_the_run(config, capsys):
    assert run(["check", str(config)]) == ExitCode.DONE
    output = capsys.readouterr().out
    assert "7 records left out" in output
    assert "rows.csv, row 3: it has 1 columns" in output
