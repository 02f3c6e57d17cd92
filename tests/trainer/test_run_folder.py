import os
from pathlib import Path

import pytest

from trainer.run_folder import RunFolder, RunFolderError, find_run


def test_a_run_folder_is_made_with_its_parents_and_made_again(tmp_path: Path):
    run = RunFolder(tmp_path / "runs" / "mnist")
    run.create()
    run.create()
    assert os.listdir(run.path) == []
    assert not run.exists


def test_the_config_is_stored_whole(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.write_config("train: {steps: 1}\n")
    run.write_config("train: {steps: 2}\n")
    assert run.exists
    assert run.config.read_text() == "train: {steps: 2}\n"
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_the_environment_is_stored(tmp_path: Path):
    run = RunFolder(tmp_path)
    assert run.read_environment() is None
    written = run.write_environment(["phalanx", "train", "mnist.yaml"])
    assert run.read_environment() == written
    assert written["command"] == ["phalanx", "train", "mnist.yaml"]
    run.environment.write_text("{torn")
    assert run.read_environment() is None


@pytest.mark.parametrize("name", ["runs", "runs/mnist"])
def test_a_file_in_the_way_is_named(tmp_path: Path, name: str):
    taken = tmp_path / name
    taken.parent.mkdir(exist_ok=True)
    taken.write_text("")
    with pytest.raises(RunFolderError, match=f"because {taken} is a file: move it, or choose another place with run"):
        RunFolder(tmp_path / "runs" / "mnist").create()


def test_a_read_only_folder_is_one_sentence(read_only_folder):
    folder, read_only = read_only_folder
    with read_only():
        for run in (RunFolder(folder), RunFolder(folder / "mnist")):
            with pytest.raises(RunFolderError) as caught:
                run.create()
            assert str(caught.value) == (
                f"the run folder {run.path} cannot be written (Permission denied): make it writable, or choose another "
                "place with run.dir"
            )
        with pytest.raises(RunFolderError, match=r"config\.yaml cannot be written \(Permission denied\)"):
            RunFolder(folder).write_config("x")


def test_a_full_disk_is_found_before_training_and_keeps_the_old_config(small_disk):
    run = RunFolder(small_disk.folder)
    run.write_config("old")
    small_disk.fill()
    with pytest.raises(RunFolderError, match="free space there"):
        run.write_config("new" * 100_000)
    assert run.config.read_text() == "old"
    assert ".config.yaml.new" not in os.listdir(small_disk.folder)


def test_a_run_that_is_there_is_found(tmp_path: Path):
    RunFolder(tmp_path).write_config("")
    assert find_run(tmp_path).path == tmp_path


def test_a_run_that_is_not_there_is_explained(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(RunFolderError, match=r"there is no folder .*mnist: give the folder of a run"):
        find_run(tmp_path / "mnist")
    with pytest.raises(RunFolderError, match="is a file, not a run folder"):
        find_run(tmp_path / "notes.txt")
    (tmp_path / "mnist").mkdir()
    RunFolder(tmp_path / "mnist").write_config("")
    with pytest.raises(RunFolderError, match=f"it has no config.yaml: choose one of {tmp_path}/mnist"):
        find_run(tmp_path)
