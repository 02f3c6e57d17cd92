import json
import os
import subprocess
import sys

import pytest

from launch.cli import run
from launch.exit_code import ExitCode


def test_help_lists_every_command(capsys):
    assert run(["--help"]) == ExitCode.DONE
    listed = capsys.readouterr().out
    for command in (
        "train",
        "resume",
        "check",
        "status",
        "logs",
        "stop",
        "profile",
        "report",
        "export",
        "generate",
        "replay",
        "models",
        "data",
        "schema",
    ):
        assert f"\n  {command} " in listed


def test_no_arguments_show_the_help(capsys):
    assert run([]) == ExitCode.DONE
    assert "Usage: phalanx" in capsys.readouterr().out


def test_version(capsys):
    assert run(["--version"]) == ExitCode.DONE
    assert capsys.readouterr().out.startswith("phalanx 0.")


def test_the_command_line_and_the_config_need_no_tensorflow():
    """What makes `phalanx --help` and a refused config answer at once."""
    script = (
        "import sys; from launch.cli import run; run(['train', 'configs/mnist.yaml', 'train.stpes=1']);"
        "run(['--help']);"
        "sys.exit(any(name.partition('.')[0] in ('tensorflow', 'keras', 'numpy') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "did you mean train.steps?" in done.stderr


def test_help_costs_well_under_a_second_of_computing():
    before = os.times()
    script = "from launch.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "--help"], check=True, capture_output=True, text=True)
    after = os.times()
    assert "Usage: phalanx" in done.stdout
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0


def test_a_wrong_config_is_refused_before_anything_starts(capsys, tmp_path):
    code = run(["train", "configs/mnist.yaml", f"run.dir={tmp_path / 'runs'}", "train.stpes=200", "train.accumulate=3"])
    assert code == ExitCode.WRONG_REQUEST
    assert capsys.readouterr().err.splitlines() == [
        "phalanx: train.stpes is not a setting: did you mean train.steps?",
        "phalanx: train.accumulate=3 must divide data.batch_size=32: set data.batch_size to a multiple of 3",
    ]
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_stack_trace_before_and_after_the_command(capsys):
    for arguments in (["--debug", "train", "nowhere.yaml"], ["train", "nowhere.yaml", "--debug"]):
        assert run(arguments) == ExitCode.WRONG_REQUEST
        assert "Traceback" in capsys.readouterr().err
    run(["train", "nowhere.yaml"])
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["train"], ["trian", "x"], ["train", "x", "--no-such-option"], ["status"]])
def test_a_mistyped_command_line_is_one_sentence(capsys, arguments):
    assert run(arguments) == ExitCode.WRONG_REQUEST
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("phalanx: ")


@pytest.mark.parametrize("group", ["data", "keys", "repository", "tokens", "tpu"])
def test_a_group_of_commands_alone_shows_its_help(capsys, group):
    assert run([group]) == ExitCode.WRONG_REQUEST
    shown = capsys.readouterr().err
    assert shown.startswith(f"Usage: phalanx {group} ") and "(see phalanx --help)" not in shown


@pytest.mark.parametrize("command", ["resume", "status", "logs", "stop", "report", "export"])
def test_commands_on_a_run_refuse_what_is_none(capsys, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert run([command, "mnist"]) == ExitCode.WRONG_REQUEST
    assert "there is no folder runs/mnist" in capsys.readouterr().err


def test_schema_is_json(capsys):
    assert run(["schema"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["title"] == "Phalanx run"


def test_an_interrupt_is_the_user_s_wish(monkeypatch):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_command", interrupt)
    assert run(["schema"]) == ExitCode.STOPPED
