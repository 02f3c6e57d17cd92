"""What a keeper does when launchers end: tiny programs play the launchers."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster.run_lock import KEEPING, RunLock
from cluster.supervisor.settings import BackOff
from launch.detached.keeper import MOST_FUTILE, Keeper
from launch.detached.record import KeeperRecord, read_record
from launch.exit_code import ExitCode
from launch.run_log import launcher_log
from launch.run_status import describe, read_status
from tests.cluster.agent_workers import wait_until
from trainer.run_folder import RunFolder

DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
# Each launch logs one step more, and dies until there are so many.
GETS_FURTHER = """
import os, signal, sys
metrics = open(sys.argv[1] + "/metrics.jsonl", "a+")
metrics.seek(0)
step = len(metrics.readlines()) + 1
print('{"step": %d, "loss": 1.0, "time": 1.0}' % step, file=metrics, flush=True)
if step < 12:
    os.kill(os.getpid(), signal.SIGKILL)
"""
ROOT = Path(__file__).parents[3]
HOLDS = """
import sys, time
from pathlib import Path
from cluster.run_lock import RunLock
with RunLock(Path(sys.argv[1]), ["another"]):
    print("has it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.create()
    run.logs.mkdir()
    run.write_config("train: {steps: 100}\n")
    return run


@pytest.fixture
def said() -> list[str]:
    return []


def keep(folder: RunFolder, said: list[str], program: str) -> int:
    keeper = Keeper(
        folder,
        [sys.executable, "-c", program, str(folder.path)],
        environment={"GREETING": "hello"},
        place=None,
        say=said.append,
        back_off=BackOff(first_s=0.01, longest_s=0.01),
    )
    return keeper.keep()


@pytest.mark.parametrize("code", ExitCode)
def test_an_exit_code_of_ours_is_the_end(folder, said, code):
    assert keep(folder, said, f"import os; print(os.environ['GREETING']); os._exit({int(code)})") == code
    assert read_record(folder.path) == KeeperRecord(starts=1, exit_code=code)
    assert launcher_log(folder.logs).read_text() == "hello\n" and not said


def test_without_progress_there_is_a_bound_and_it_is_said(folder, said):
    assert keep(folder, said, DIES) == ExitCode.FAILED
    record = read_record(folder.path)
    assert record.starts == 1 + MOST_FUTILE and record.exit_code == ExitCode.FAILED
    assert said[0] == (
        "the launcher was killed (SIGKILL) before it logged a step: it is started again (1 of 5 without progress)"
    )
    assert "5 restarts in a row have not brought the run any further" in said[-1]
    assert record.reason == said[-1] and said[-1] in describe(read_status(folder.path))


def test_with_progress_there_is_none(folder, said):
    assert keep(folder, said, GETS_FURTHER) == ExitCode.DONE
    assert read_record(folder.path).starts == 12
    assert all("(1 of 5 without progress)" in text for text in said)


def test_a_code_that_is_none_of_ours_is_a_death(folder, said):
    assert keep(folder, said, "import os; os._exit(86)") == ExitCode.FAILED
    assert "has died with code 86" in said[0]


def test_who_is_asked_to_stop_starts_nothing_again(folder, said):
    program = f"open({str(folder.path / 'stop-request')!r}, 'w').write('me')\n{DIES}"
    assert keep(folder, said, program) == ExitCode.STOPPED
    assert read_record(folder.path).starts == 1


def test_a_keeper_that_is_started_again_goes_on_counting(folder, said):
    KeeperRecord(starts=5, futile=4).write(folder.path)
    assert keep(folder, said, DIES) == ExitCode.FAILED
    assert read_record(folder.path).starts == 6
    assert keep(folder, said, DIES) == ExitCode.FAILED, "what is over stays so"
    assert read_record(folder.path).starts == 6


def test_somebody_else_who_trains_is_waited_for(folder, said):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, folder.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert other.stdout.readline() == b"has it\n"
    codes: list[int] = []
    with RunLock(folder.path, ["keeper"], KEEPING):
        thread = threading.Thread(target=lambda: codes.append(keep(folder, said, "pass")))
        thread.start()
        while not said:
            time.sleep(0.01)
        assert said == [
            f"process {other.pid} on {read_status(folder.path).host} trains; it is started again when it dies"
        ]
        assert not launcher_log(folder.logs).exists()
        other.communicate()
        thread.join(10)
        assert codes == [ExitCode.DONE]


def test_a_run_that_is_about_to_be_started_again_says_so(folder):
    KeeperRecord(starts=3, futile=1, step=40, death="was killed (SIGKILL) at step 40, 2026-11-24 11:00:00").write(
        folder.path
    )
    with RunLock(folder.path, ["keeper"], KEEPING):
        status = read_status(folder.path)
    assert status.state == "restarting" and status.detached["restarts"] == 2
    assert "started again 2 times (the launcher was killed (SIGKILL) at step 40" in describe(status)
    assert json.dumps(status.as_json())


def test_a_damaged_record_is_none(folder):
    assert read_record(folder.path) is None
    (folder.path / "detached.json").write_text('{"starts": 1')
    assert read_record(folder.path) is None and read_status(folder.path).detached is None


def test_a_keeper_that_is_told_to_end_has_the_launcher_save_and_end(folder, said):
    program = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(130)); print('up'); signal.pause()"
    keeper = Keeper(
        folder, [sys.executable, "-uc", program], environment={}, place=None, say=said.append, back_off=BackOff()
    )
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(keeper.keep()))
    thread.start()
    wait_until(lambda: launcher_log(folder.logs).exists() and launcher_log(folder.logs).read_text() == "up\n")
    keeper.terminate()
    thread.join(10)
    assert codes == [ExitCode.STOPPED] and not said
