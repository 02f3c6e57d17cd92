"""Whether Horovod is installed, and for which TensorFlow it was built; found out without importing either."""

from __future__ import annotations

import importlib.util
import json
from importlib import metadata
from pathlib import Path

INSTALL = "make horovod"


class HorovodNotUsable(ValueError):
    """Horovod is not installed, or was built for another TensorFlow. The message says what to do."""


def check_horovod() -> None:
    """Makes sure that Horovod is there and fits TensorFlow.

    Raises:
        HorovodNotUsable: It is not, or does not.
    """
    if problem := installation_problem(package_folder(), metadata.version("tensorflow")):
        raise HorovodNotUsable(problem)


def package_folder() -> Path | None:
    """Where Horovod is installed; None where it is not."""
    spec = importlib.util.find_spec("horovod")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def installation_problem(folder: Path | None, tensorflow: str) -> str | None:
    """Why an installation cannot be used, as a sentence for the user; None if it can.

    Its library is compiled against TensorFlow's headers, which change from version to version: one that was built for
    another may load, and crash later.

    Args:
        folder: Of the package; None: there is none.
        tensorflow: The version of TensorFlow.
    """
    if folder is None:
        return (
            f"strategy.name=horovod needs Horovod, which is not installed: build it with {INSTALL}, or set "
            "strategy.name=multi_worker_mirrored"
        )
    built_for = _tensorflow_built_for(folder)
    if built_for is None:
        return f"the Horovod in {folder} was built without TensorFlow: build it again with {INSTALL}"
    if built_for != tensorflow:
        return (
            f"the Horovod in {folder} was built for TensorFlow {built_for}, and TensorFlow {tensorflow} is installed: "
            f"build it again with {INSTALL}"
        )
    return None


def _tensorflow_built_for(folder: Path) -> str | None:
    """What its build has noted in the package."""
    libraries = list(folder.glob("tensorflow/mpi_lib*.so"))
    try:
        noted = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    version = noted.get("tensorflow") if isinstance(noted, dict) else None
    return version if libraries and isinstance(version, str) else None
