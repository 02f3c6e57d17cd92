"""Following what a run writes."""

import threading
from pathlib import Path

from cluster.run_lock import KEEPING, RunLock
from launch.cli import run
from launch.exit_code import ExitCode
from launch.log_following import FollowedFile, follow_logs
from tests.cluster.agent_workers import wait_until
from trainer.run_folder import RunFolder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def test_only_whole_lines_are_given_and_each_once(tmp_path):
    path = tmp_path / "a.log"
    file = FollowedFile(path)
    assert file.read() == []
    write(path, "one\ntwo\nthr")
    assert file.read() == ["one", "two"]
    write(path, "ee\n")
    assert file.read() == ["three"] and file.read() == []


def test_of_what_is_there_already_only_the_last_lines_are_given_when_asked(tmp_path):
    path = tmp_path / "a.log"
    write(path, "one\ntwo\nthree\n")
    file = FollowedFile(path, lines=1)
    assert file.read() == ["three"]
    write(path, "four\nfive\n")
    assert file.read() == ["four", "five"]


def test_a_run_is_followed_to_its_end_through_its_generations(tmp_path):
    folder, shown = RunFolder(tmp_path), []
    with RunLock(tmp_path, ["train"]):
        write(folder.log(1, 0), "one\n")
        thread = threading.Thread(target=follow_logs, args=(folder, shown.append))
        thread.start()
        wait_until(lambda: shown == [f"== {folder.log(1, 0)}", "one"])
        write(folder.log(2, 0), "two\n")
        wait_until(lambda: shown[2:] == [f"== {folder.log(2, 0)}", "two"])
        write(folder.log(2, 0), "three\n")
    thread.join(10)
    assert shown[4:] == ["three"] and not thread.is_alive()


def test_a_detached_run_is_followed_by_what_its_launcher_says(tmp_path):
    folder, shown = RunFolder(tmp_path), []
    with RunLock(tmp_path, ["keeper"], KEEPING):
        write(folder.log(1, 0), "one\n")
        write(folder.logs / "launcher.log", "[0] one\n")
        thread = threading.Thread(target=follow_logs, args=(folder, shown.append))
        thread.start()
        wait_until(lambda: shown[1:] == ["[0] one"])
    thread.join(10)
    assert not thread.is_alive()


def test_a_launcher_that_never_had_workers_has_a_log_all_the_same(tmp_path, capsys):
    folder = RunFolder(tmp_path / "mine")
    folder.create()
    folder.write_config("train: {steps: 1}\n")
    assert run(["logs", str(folder.path)]) == ExitCode.WRONG_REQUEST
    write(folder.logs / "launcher.log", "phalanx: no room\n")
    assert run(["logs", str(folder.path)]) == ExitCode.DONE
    assert "phalanx: no room" in capsys.readouterr().out
