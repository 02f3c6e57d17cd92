import json

import pytest

from trainer.strategies.horovod_installation import HorovodNotUsable, check_horovod, installation_problem


def installed(folder, built_for="2.21.0", library=True):
    (folder / "tensorflow").mkdir()
    if library:
        (folder / "tensorflow" / "mpi_lib.cpython-311-x86_64-linux-gnu.so").touch()
    (folder / "metadata.json").write_text(json.dumps({"tensorflow": built_for} if built_for else {"dummy": "none"}))
    return folder


def test_one_that_was_built_for_this_tensorflow_can_be_used(tmp_path):
    assert installation_problem(installed(tmp_path), "2.21.0") is None


def test_none_is_named_with_the_way_to_get_one():
    problem = installation_problem(None, "2.21.0")
    assert problem is not None and "not installed: build it with make horovod" in problem


def test_one_for_another_tensorflow_is_refused_with_both_versions(tmp_path):
    problem = installation_problem(installed(tmp_path, "2.20.0"), "2.21.0")
    assert problem is not None
    assert "was built for TensorFlow 2.20.0, and TensorFlow 2.21.0 is installed: build it again" in problem


@pytest.mark.parametrize("broken", [{"built_for": None}, {"library": False}], ids=["other framework", "no library"])
def test_one_without_tensorflow_is_refused(tmp_path, broken):
    problem = installation_problem(installed(tmp_path, **broken), "2.21.0")
    assert problem is not None and "was built without TensorFlow" in problem


def test_a_damaged_note_is_refused(tmp_path):
    (installed(tmp_path) / "metadata.json").write_text("{")
    assert installation_problem(tmp_path, "2.21.0") is not None


def test_what_is_missing_is_an_error_of_its_own(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HorovodNotUsable, match="make horovod"):
        check_horovod()
