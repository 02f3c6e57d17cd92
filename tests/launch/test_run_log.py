import logging
import warnings

import pytest

from launch.run_log import log_files, write_log


def test_records_warnings_and_the_command_are_kept(tmp_path):
    path = tmp_path / "logs" / "0" / "0.log"
    with write_log(path):
        logging.getLogger("trainer").info("a note")
        warnings.warn("a warning", stacklevel=1)
    logging.getLogger("trainer").warning("too late")
    text = path.read_text()
    assert "process " in text.splitlines()[0]
    assert "INFO trainer: a note" in text
    assert "a warning" in text
    assert "too late" not in text


def test_the_stack_of_an_error_is_kept_and_the_error_goes_on(tmp_path):
    path = tmp_path / "0.log"
    with pytest.raises(ZeroDivisionError), write_log(path):
        raise ZeroDivisionError("a reason")
    assert "Traceback" in path.read_text()
    assert "a reason" in path.read_text()


def test_logging_is_afterwards_as_before(tmp_path):
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    with write_log(tmp_path / "0.log"):
        assert root.level == logging.INFO
    assert (root.level, list(root.handlers)) == before


def test_files_come_by_generation_and_rank(tmp_path):
    for name in ("10/0.log", "9/10.log", "9/2.log", "notes/0.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert log_files(tmp_path) == [
        [tmp_path / "9/2.log", tmp_path / "9/10.log"],
        [tmp_path / "10/0.log"],
    ]
    assert log_files(tmp_path / "nowhere") == []
