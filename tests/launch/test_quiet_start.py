"""Each in a process of its own, in which a package called tensorflow writes notes to the descriptor of stderr."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from launch.quiet_start import import_tensorflow
import_tensorflow()
print("a warning of ours", file=sys.stderr)
"""


def start(folder: Path, body: str) -> "subprocess.CompletedProcess[str]":
    (folder / "keras.py").touch()
    (folder / "tensorflow.py").write_text(f'import os, types\nos.write(2, b"a note")\n{body}')
    return subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=False)


def test_notes_of_the_import_are_kept_off_and_later_messages_are_not(tmp_path):
    devices = "config = types.SimpleNamespace(list_physical_devices=lambda: os.write(2, b'another'))\n"
    done = start(tmp_path, devices)
    assert (done.returncode, done.stderr) == (0, "a warning of ours\n")


@pytest.mark.parametrize("body", ["raise ImportError('broken')\n", "config = None\n"])
def test_notes_are_shown_when_the_import_fails(tmp_path, body):
    done = start(tmp_path, body)
    assert done.returncode == 1
    assert done.stderr.startswith("a note")


def test_packages_that_training_does_not_need_are_left_alone_and_can_be_imported_later(tmp_path):
    for name in ("sklearn", "matplotlib", "keras"):
        (tmp_path / f"{name}.py").write_text(f"print('{name} is imported')\n")
    body = "try:\n    import sklearn, matplotlib\nexcept ImportError:\n    print('absent')\n"
    devices = "config = types.SimpleNamespace(list_physical_devices=lambda: None)\n"
    (tmp_path / "tensorflow.py").write_text(f"import types\n{body}{devices}")
    script = SCRIPT + "import sklearn\n"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["absent", "keras is imported", "sklearn is imported"]
