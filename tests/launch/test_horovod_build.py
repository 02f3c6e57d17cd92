import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from launch import horovod_build
from launch.exit_code import ExitCode, RequestError
from launch.horovod_build import MOVED_HEADERS, build, build_environment, missing_tools, write_headers

ROOT = Path(__file__).parents[2]


def test_all_tools_that_are_missing_are_named_at_once():
    assert missing_tools("/usr/bin/cmake", "/usr/bin/c++") is None
    assert "needs cmake: install" in (missing_tools(None, "/usr/bin/c++") or "")
    assert "needs cmake and a C++ compiler: install" in (missing_tools(None, None) or "")


def test_the_headers_that_have_moved_are_found_by_their_old_names(tmp_path):
    write_headers(tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.h")}
    assert found == {f"tensorflow/compiler/xla/{name}" for name in MOVED_HEADERS}
    folders = build_environment(tmp_path / "tf", tmp_path, {})["CPLUS_INCLUDE_PATH"].split(os.pathsep)
    assert folders == [
        f"{tmp_path}/tf/external/highwayhash",
        f"{tmp_path}/tf/external/farmhash_archive/src",
        f"{tmp_path}",
    ]


def test_what_the_user_has_set_for_the_build_counts(tmp_path):
    environment = build_environment(tmp_path, tmp_path, {"MAKEFLAGS": "-j1", "CPLUS_INCLUDE_PATH": "/mine", "A": "b"})
    assert environment["MAKEFLAGS"] == "-j1" and environment["HOROVOD_WITH_GLOO"] == "1" and "A" not in environment
    assert environment["CPLUS_INCLUDE_PATH"].endswith(f"{os.pathsep}/mine")


def test_the_headers_that_are_added_are_where_tensorflow_has_them():
    headers = horovod_build._tensorflow_headers()
    for name in horovod_build._EXTERNAL_HEADERS:
        assert list((headers / name).rglob("*.h")), name


def test_nothing_is_done_where_it_is_installed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(horovod_build, "installation_problem", lambda folder, version: None)
    build(tmp_path)
    assert f"TensorFlow {metadata.version('tensorflow')} is installed" in capsys.readouterr().out


def test_a_missing_tool_ends_it_before_anything_is_fetched(monkeypatch, capsys):
    monkeypatch.setattr(horovod_build, "installation_problem", lambda folder, version: "not installed")
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("something was started"))
    assert horovod_build.main() == ExitCode.WRONG_REQUEST
    assert "needs cmake and a C++ compiler" in capsys.readouterr().err


def test_another_folder_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(horovod_build, "installation_problem", lambda folder, version: "not installed")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(RequestError, match=r"there is no horovod\.txt in"):
        build(tmp_path)


def test_it_is_pinned_by_hash_and_its_command_is_listed():
    [pinned] = [line for line in (ROOT / "horovod.txt").read_text().splitlines() if not line.startswith("#")]
    assert pinned.startswith("horovod==") and " --hash=sha256:" in pinned
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "make horovod" in listed


def test_the_tool_imports_no_tensorflow():
    program = "import launch.horovod_build, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
