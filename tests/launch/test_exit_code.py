import errno
import json
from pathlib import Path

import pytest

from cluster.run_lock import RunBusy
from launch.config_errors import ConfigError
from launch.exit_code import ExitCode, RequestError, exit_code_of, explanation_of
from trainer.config.interval import Interval
from trainer.data.checks import DataError
from trainer.run_folder import RunFolderError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(["a", "b"]), ExitCode.WRONG_REQUEST),
        (RequestError("no such run"), ExitCode.WRONG_REQUEST),
        (ValueError("of a library"), ExitCode.FAILED),
        (RunBusy(Path("runs/x"), None), ExitCode.WRONG_REQUEST),
        (RunFolderError("runs/x is a file"), ExitCode.WRONG_REQUEST),
        (DataError("a.csv", "line 3", "NaN"), ExitCode.FAILED),
        (RuntimeError("broken"), ExitCode.FAILED),
        (OSError(errno.EIO, "I/O error"), ExitCode.FAILED),
        (MemoryError(), ExitCode.NO_RESOURCES),
        (KeyboardInterrupt(), ExitCode.STOPPED),
    ],
)
def test_exit_code(error, code):
    assert exit_code_of(error) is code


def raised_by(function, *arguments) -> ValueError:
    with pytest.raises(ValueError) as caught:
        function(*arguments)
    return caught.value


def test_a_value_error_of_ours_is_a_wrong_request_and_one_of_a_library_is_not():
    ours, theirs = raised_by(Interval.parse, "five"), raised_by(json.loads, "{")
    assert exit_code_of(ours) is ExitCode.WRONG_REQUEST
    assert explanation_of(ours).startswith("must be a number and a unit")
    assert exit_code_of(theirs) is ExitCode.FAILED
    assert explanation_of(theirs).startswith("JSONDecodeError: ")


def test_too_few_devices_and_full_memory_are_missing_resources():
    from tensorflow.errors import ResourceExhaustedError  # pyright: ignore[reportMissingImports]

    from trainer.strategies.build import NotEnoughDevices

    assert exit_code_of(NotEnoughDevices("4 asked for, 1 there")) is ExitCode.NO_RESOURCES
    assert exit_code_of(ResourceExhaustedError(None, None, "out of memory")) is ExitCode.NO_RESOURCES


def test_own_sentences_stay_as_they_are():
    assert explanation_of(RunFolderError("runs/x is a file: move it")) == "runs/x is a file: move it"
    assert explanation_of(ConfigError(["a", "b"])) == "a\nb"


def test_an_unexpected_error_is_one_line_with_a_way_to_learn_more():
    assert explanation_of(RuntimeError("first\nsecond")) == "RuntimeError: first (phalanx --debug shows where)"
    assert explanation_of(KeyError()) == "KeyError: no message (phalanx --debug shows where)"


def test_a_heading_comes_with_the_line_below_it():
    assert "while reading: the disk is on fire (" in explanation_of(
        RuntimeError("while reading:\n\nthe disk is on fire\n")
    )


def test_of_a_failed_graph_the_cause_is_said_and_not_the_place():
    message = (
        "Graph execution error:\n\nDetected at node while/PyFunc defined at (most recent call last):\n"
        "  File \"x.py\", line 3, in loss\n\nKeyError: 'no such label'\n\n\t [[{{node while/PyFunc}}]] [Op:loop]\n"
    )
    assert explanation_of(RuntimeError(message)).startswith("RuntimeError: KeyError: 'no such label' (")


def test_a_refusal_of_the_disk_names_the_file():
    error = PermissionError(errno.EACCES, "Permission denied", "/x/y")
    assert explanation_of(error).startswith("/x/y: Permission denied: check ")
