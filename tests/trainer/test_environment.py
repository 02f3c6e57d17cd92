import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.environment import describe_environment, version_changes

ROOT = Path(__file__).parents[2]
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]


def test_versions_and_machine_are_described():
    found = describe_environment(["phalanx"])
    assert found["python"] == platform.python_version()
    assert found["packages"]["tensorflow"] == importlib.metadata.version("tensorflow")
    assert found["cores"] == os.cpu_count()
    assert found["memory_bytes"] > 1 << 28
    assert found["cpu"] and found["host"]


def test_nothing_heavy_is_imported():
    program = "import sys, trainer.environment as e; e.describe_environment([]); print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_commit_and_whether_the_code_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert describe_environment([])["git"] is None
    (tmp_path / "model.py").write_text("x = 1\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*GIT, *arguments], check=True)
    clean = describe_environment([])["git"]
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "model.py").write_text("x = 2\n")
    assert describe_environment([])["git"] == {**clean, "dirty": True}


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert describe_environment([])["git"] is None


def test_changed_versions_are_listed():
    stored = {"python": "3.11.7", "packages": {"numpy": "2.4.6", "keras": "3.15.1"}, "cpu": "A"}
    now = {"python": "3.11.7", "packages": {"numpy": "2.5.0", "keras": "3.15.1"}, "cpu": "B"}
    assert version_changes(stored, now) == ["numpy: 2.4.6 -> 2.5.0", "cpu: A -> B"]
    assert version_changes(stored, stored) == []
