import sys
from pathlib import Path

import pytest

from trainer.data.checks import DataError
from trainer.data.places import find_files, find_path


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a").write_text("")
    assert find_path("~/a", "data.path") == tmp_path / "a"
    assert find_files("~/*", "data.pattern") == [tmp_path / "a"]


def test_a_folder_in_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sonnets" / "texts").mkdir(parents=True)
    (tmp_path / "sonnets" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_path("package:sonnets/texts", "data.path") == tmp_path / "sonnets" / "texts"
    assert find_path("package:sonnets", "data.path") == tmp_path / "sonnets"
    (tmp_path / "sonnets" / "texts" / "18.txt").write_text("")
    assert find_files("package:sonnets/texts/*.txt", "data.path") == [tmp_path / "sonnets" / "texts" / "18.txt"]
    assert "sonnets" not in sys.modules
    with pytest.raises(DataError, match=r"package:sonnets/odes: it does not exist: correct data\.path"):
        find_path("package:sonnets/odes", "data.path")


@pytest.mark.parametrize("name", ["no_such_package", "no.such.package", "json.decoder", ""])
def test_what_is_no_package_is_named(name: str) -> None:
    with pytest.raises(DataError, match=f"the package '{name}' is not installed"):
        find_path(f"package:{name}/texts", "data.path")


def test_files_are_sorted_and_folders_left_out(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden", "c"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder").mkdir()
    assert [path.name for path in find_files(f"{tmp_path}/*", "data.pattern")] == ["a", "b", "c"]


def test_a_folder_and_a_remote_place_are_told_apart_from_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it is a folder: end data\.pattern with a pattern of its files"):
        find_files(str(tmp_path), "data.pattern")
    with pytest.raises(DataError, match="only files of this machine can be read at random: mount it"):
        find_files("gs://bucket/train-*", "data.pattern")
    with pytest.raises(DataError, match=r"relative paths begin at"):
        find_files("nowhere/train-*", "data.pattern")
