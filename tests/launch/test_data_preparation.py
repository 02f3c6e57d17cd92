"""`phalanx data prepare` whose workers are killed, which is killed itself, and which goes on: the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from io import StringIO
from pathlib import Path

import psutil
import pytest

from launch import data_preparation
from launch.cli import run
from launch.data_preparation import make_request, prepare_data
from launch.exit_code import ExitCode
from tests.cluster.crew_orders import PATIENCE_S
from tests.launch.preparation_workers import HOLD, carry_out
from tests.trainer.preparation.raw_data import prepare, shards_of, write_tables

pytestmark = pytest.mark.processes
ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path: Path) -> str:
    pattern = write_tables(tmp_path / "raw", "csv", files=6)
    (tmp_path / "raw" / "2.csv").rename(tmp_path / "raw" / "hold.csv")
    return pattern


@pytest.fixture
def expected(tmp_path: Path, raw: str) -> dict[str, bytes]:
    prepare(make_request(raw, None, 3, target="late"), tmp_path / "expected")
    return shards_of(tmp_path / "expected")


def pids_in(place: Path) -> set[int]:
    return {int(name.name.removeprefix("pid-")) for name in place.glob("pid-*")}


def wait_for_another(place: Path, known: set[int]) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while not (new := pids_in(place) - known):
        assert time.monotonic() < deadline, f"nobody came to {place}"
        time.sleep(0.005)
    return new.pop()


class Killer(threading.Thread):
    """Kills whoever holds at each of these places, so many times, and then says go."""

    def __init__(self, places: list[Path], times: int) -> None:
        super().__init__()
        self.places, self.times = places, times
        self.killed: set[int] = set()
        for place in places:
            place.mkdir(parents=True)
        self.start()

    def run(self) -> None:
        for place in self.places:
            for _ in range(self.times):
                pid = wait_for_another(place, self.killed)
                self.killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            (place / "go").touch()


def test_killed_workers_leave_no_trace(tmp_path, raw, expected, monkeypatch) -> None:
    monkeypatch.setenv(HOLD, str(tmp_path / "hold"))
    monkeypatch.setattr(data_preparation, "carry_out", carry_out)
    killer = Killer([tmp_path / "hold" / kind for kind in ("survey", "part", "shard")], times=2)
    told = StringIO()
    prepared = prepare_data(make_request(raw, None, 3, target="late"), tmp_path / "out", workers=2, out=told)
    killer.join()
    assert len(killer.killed) == prepared.deaths == 6 and told.getvalue().count("it was killed by signal 9") == 6
    assert shards_of(tmp_path / "out") == expected and prepared.done == 6 + 6 + 3


def test_a_killed_job_goes_on_where_it_was(tmp_path, raw, expected, capsys) -> None:
    for kind in ("part", "shard"):
        place = tmp_path / "hold" / kind
        place.mkdir(parents=True)
        job = subprocess.Popen(
            [sys.executable, "-m", "tests.launch.preparation_workers", raw, str(tmp_path / "out")],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), HOLD: str(tmp_path / "hold")},
        )
        held = psutil.Process(wait_for_another(place, set()))
        if kind == "part":
            assert run(["data", "prepare", raw, str(tmp_path / "out"), "--target", "late"]) == ExitCode.WRONG_REQUEST
            assert f"is being prepared by process {job.pid} on" in capsys.readouterr().err
        job.kill()
        job.wait()
        psutil.wait_procs([held], timeout=PATIENCE_S)
        assert not held.is_running(), "workers end with the job"
        shutil.rmtree(place)
    words = ["data", "prepare", raw, str(tmp_path / "out"), "--target", "late", "--shards", "3", "--workers", "1"]
    assert run([*words, "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert shards_of(tmp_path / "out") == expected and found["records"] == 120
    # All was done but the shard that held, and another one that was under way.
    assert found["tasks_done"] <= 2 and found["tasks_done"] + found["tasks_reused"] == 15
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".records")) == [
        ".lock",
        "data.yaml",
        "manifest.json",
        *expected,
    ]
    assert run(words) == ExitCode.DONE
    assert "work      none: it was finished before" in capsys.readouterr().out


def test_on_ray_a_killed_worker_is_replaced(tmp_path, raw, expected, monkeypatch) -> None:
    monkeypatch.setenv(HOLD, str(tmp_path / "hold"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(data_preparation, "carry_out", carry_out)
    killer = Killer([tmp_path / "hold" / "part"], times=1)
    told = StringIO()
    request = make_request(raw, None, 3, target="late")
    prepared = prepare_data(request, tmp_path / "out", workers=2, on="ray", out=told)
    killer.join()
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ, "what this process starts next may join a cluster"
    assert prepared.deaths == 1 and "hold.csv (Ray says" in told.getvalue()
    assert shards_of(tmp_path / "out") == expected


def test_wrong_requests_and_damaged_files(tmp_path, raw, capsys) -> None:
    out = str(tmp_path / "out")
    assert run(["data", "prepare", raw, out, "--target", "late", "--address", "h:1"]) == ExitCode.WRONG_REQUEST
    assert "--address h:1 is that of a Ray cluster: add --on ray" in capsys.readouterr().err
    assert run(["data", "prepare", str(tmp_path / "none.csv"), out]) == ExitCode.FAILED
    assert "none.csv: no file matches it: correct RAW" in capsys.readouterr().err
    for name in ("1.csv", "4.csv"):
        with (tmp_path / "raw" / name).open("a") as file:
            file.write("7,cat\n")
    words = ["data", "prepare", raw, out, "--target", "late", "--workers", "1"]
    assert run(words) == ExitCode.FAILED
    assert (
        "csv, row 21: it has 2 columns, the header has 3: correct it, or leave such records out: --skip-damaged allows"
        in (capsys.readouterr().err)
    )
    assert run([*words, "--skip-damaged", "1"]) == ExitCode.FAILED
    assert "and 1 records before it are damaged too" in capsys.readouterr().err
    assert run([*words, "--skip-damaged", "2"]) == ExitCode.DONE
    told = capsys.readouterr().out
    assert "records   120" in told and "left out  2 damaged" in told
    assert told.count("row 21: it has 2 columns, the header has 3") == 2
