"""Where a path in the config leads: a file or folder of this machine, or a folder inside an installed package."""

import glob
import importlib.util
from pathlib import Path

from trainer.data.checks import DataError

PACKAGE = "package:"


def find_path(path: str, setting: str) -> Path:
    """Finds a file or folder.

    Args:
        path: A path, in which a leading ~ is the home folder; or `package:NAME/FOLDER`, which is looked up without
            importing the package.
        setting: The setting that names it, for the message.

    Raises:
        DataError: It does not exist, or the package is not installed.
    """
    found = _in_package(path, setting) if path.startswith(PACKAGE) else Path(path).expanduser()
    if not found.exists():
        raise _missing(path, setting, "it does not exist")
    return found


def find_files(pattern: str, setting: str) -> list[Path]:
    """Finds the files that a pattern such as `/data/train-*` or `package:NAME/data/*.csv` matches, sorted by name.

    Raises:
        DataError: There are none, the package is not installed, or the pattern leads elsewhere than to files of this
            machine.
    """
    if "://" in pattern:
        raise DataError(pattern, "", "only files of this machine can be read at random", f"mount it and set {setting}")
    expanded = str(_in_package(pattern, setting) if pattern.startswith(PACKAGE) else Path(pattern).expanduser())
    if Path(expanded).is_dir():
        raise DataError(
            pattern, "", "it is a folder", f"end {setting} with a pattern of its files, such as /*.tfrecord"
        )
    files = sorted(Path(name) for name in glob.glob(expanded, recursive=True))
    files = [file for file in files if file.is_file()]
    if not files:
        raise _missing(pattern, setting, "no file matches it")
    return files


def _in_package(path: str, setting: str) -> Path:
    name, _, inside = path.removeprefix(PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        rule = f"the package {name!r} is not installed"
        raise DataError(path, "", rule, f"install what brings it (see the config's head), or correct {setting}")
    return Path(next(iter(spec.submodule_search_locations)), inside)


def _missing(path: str, setting: str, rule: str) -> DataError:
    return DataError(path, "", rule, f"correct {setting} (relative paths begin at {Path.cwd()})")
