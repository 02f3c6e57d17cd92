import pytest

from launch.exit_code import RequestError
from launch.run_lookup import run_named
from trainer.run_folder import RunFolder, RunFolderError


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mnist", "digits"):
        run = RunFolder(tmp_path / "runs" / name)
        run.create()
        run.write_config("run: {}\n")
    return tmp_path / "runs"


def test_a_path_and_a_name_find_the_run(runs):
    assert run_named("runs/mnist").path.resolve() == runs / "mnist"
    assert run_named(str(runs / "mnist")).path == runs / "mnist"
    assert run_named("mnist").path.resolve() == runs / "mnist"


def test_a_mistyped_name_is_guessed(runs):
    with pytest.raises(RequestError, match=r"^mnits is not a run: did you mean runs/mnist"):
        run_named("mnits")
    with pytest.raises(RequestError, match="did you mean runs/digits"):
        run_named("runs/digit")


def test_no_run_at_all_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFolderError, match="there is no folder runs/mnist"):
        run_named("mnist")
