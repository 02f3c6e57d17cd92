"""Builds Horovod for the installed TensorFlow and installs it beside it: what `make horovod` runs.

python -m launch.horovod_build

The newest release of Horovod includes headers of TensorFlow that have moved since. On a CPU nothing of them is used:
they are only named, in a file whose body is left out. So empty files in their places are enough.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from launch.exit_code import ExitCode, RequestError
from trainer.strategies.horovod_installation import installation_problem, package_folder

REQUIREMENTS = Path("horovod.txt")
# What the release includes and TensorFlow 2.21 no longer has there.
MOVED_HEADERS = (
    "client/xla_builder.h",
    "service/custom_call_target_registry.h",
    "service/hlo.pb.h",
    "shape.h",
    "xla_data.pb.h",
)
# What Horovod's extension for TensorFlow includes and TensorFlow's wheel has in folders of their own.
_EXTERNAL_HEADERS = ("external/highwayhash", "external/farmhash_archive/src")
_CHECK = "import horovod.tensorflow as hvd; assert hvd.gloo_built(), 'without Gloo'"


def main() -> int:
    """Builds and installs; returns an exit code."""
    try:
        build(Path.cwd())
    except RequestError as error:
        print(f"phalanx: {error}", file=sys.stderr)
        return ExitCode.WRONG_REQUEST
    return ExitCode.DONE


def build(root: Path) -> None:
    """Builds Horovod for the TensorFlow of this interpreter, unless that is there.

    Args:
        root: Holds horovod.txt.

    Raises:
        RequestError: A tool or TensorFlow is missing, or the build failed.
    """
    tensorflow = metadata.version("tensorflow")
    if installation_problem(package_folder(), tensorflow) is None:
        print(f"Horovod for TensorFlow {tensorflow} is installed")
        return
    if problem := missing_tools(shutil.which("cmake"), shutil.which(os.environ.get("CXX", "c++"))):
        raise RequestError(problem)
    if not (root / REQUIREMENTS).is_file():
        raise RequestError(f"there is no {REQUIREMENTS} in {root}: begin in the folder of Phalanx's sources")
    print(f"building Horovod for TensorFlow {tensorflow}: 6 minutes on 2 cores", flush=True)
    with tempfile.TemporaryDirectory(prefix="horovod-") as folder:
        headers = Path(folder)
        write_headers(headers)
        environment = {**os.environ, **build_environment(_tensorflow_headers(), headers, os.environ)}
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--require-hashes"]
        # What a failed or an older build has left is no reason to be content with it.
        command += ["--no-cache-dir", "--force-reinstall", "--no-binary=horovod", "--disable-pip-version-check"]
        if subprocess.run([*command, "-r", str(root / REQUIREMENTS)], env=environment).returncode:
            raise RequestError("Horovod could not be built: the compiler's message is above")
    importlib.invalidate_caches()
    problem = installation_problem(package_folder(), tensorflow)
    if problem is None and subprocess.run([sys.executable, "-c", _CHECK]).returncode:
        problem = "Horovod was built and cannot be loaded: the message is above"
    if problem is not None:
        raise RequestError(problem)
    print(f"Horovod for TensorFlow {tensorflow} is installed: strategy.name=horovod can be used")


def missing_tools(cmake: str | None, compiler: str | None) -> str | None:
    """What has to be installed first, as a sentence; None where all is there.

    Args:
        cmake: Its path.
        compiler: That of the C++ compiler.
    """
    missing = [name for name, path in (("cmake", cmake), ("a C++ compiler", compiler)) if path is None]
    if not missing:
        return None
    return (
        f"Horovod is built from its sources, which needs {' and '.join(missing)}: install it first (Debian: "
        "apt-get install cmake g++)"
    )


def write_headers(folder: Path) -> None:
    """Puts empty files in the places of the headers that have moved."""
    for name in MOVED_HEADERS:
        header = folder / "tensorflow" / "compiler" / "xla" / name
        header.parent.mkdir(parents=True, exist_ok=True)
        header.touch()


def build_environment(tensorflow: Path, headers: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that Horovod's build reads; the user's own choice counts where there is one.

    Args:
        tensorflow: Folder of TensorFlow's headers.
        headers: Folder of those that have moved.
        environment: Of this process.
    """
    chosen = {
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_MPI": "1",
        "MAKEFLAGS": f"-j{os.cpu_count() or 1}",
        # CMake 4 refuses what the sources ask for without it.
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
    }
    chosen |= {name: environment[name] for name in chosen if name in environment}
    folders = [*(str(tensorflow / name) for name in _EXTERNAL_HEADERS), str(headers)]
    if environment.get("CPLUS_INCLUDE_PATH"):
        folders.append(environment["CPLUS_INCLUDE_PATH"])
    return {**chosen, "CPLUS_INCLUDE_PATH": os.pathsep.join(folders)}


def _tensorflow_headers() -> Path:
    """Where they are, without importing TensorFlow."""
    spec = importlib.util.find_spec("tensorflow")
    assert spec is not None and spec.submodule_search_locations, "its version is known"
    return Path(next(iter(spec.submodule_search_locations))) / "include"


if __name__ == "__main__":
    sys.exit(main())
