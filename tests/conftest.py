"""In which order and length the tests run, and storage that misbehaves for real, for every test that needs it."""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.order import longest_first

NOBODY = 65534
CAP_SYS_ADMIN = 1 << 21


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the long tests, on every process that the tests are divided among, without what nobody asked for."""
    if items and not items[0].config.getoption("--e2e"):
        items[:] = [item for item in items if item.get_closest_marker("e2e") is None]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        items[:] = longest_first(items, processes)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--e2e", action="store_true", help="the road from the data to a model that is watched: make e2e")
    parser.addoption("--chaos-long", action="store_true", help="what takes minutes, in full length: twenty kills ...")
    parser.addoption("--fuzz-seconds", type=float, default=0.0, help="new made-up input for so long, in all: make fuzz")
    parser.addoption("--fuzz-seed", type=int, default=0, help="of its first round; a failing one prints its own")
    parser.addoption("--fuzz-json", type=Path, help="file that is told what was tried")


@pytest.fixture
def chaos_long(request: pytest.FixtureRequest) -> bool:
    """Whether the long forms are asked for."""
    return bool(request.config.getoption("--chaos-long"))


@pytest.fixture
def read_only_folder() -> Iterator[tuple[Path, Callable[[], AbstractContextManager[None]]]]:
    """A folder, and a context in which this process cannot write to it.

    Permission bits mean nothing to root, so root becomes another user meanwhile, all threads included. That works in
    a container without any capability to mount. The folder is not below `tmp_path`, which only its owner may enter.
    """
    folder = Path(tempfile.mkdtemp(prefix="phalanx-read-only-"))
    folder.chmod(0o755)

    @contextmanager
    def read_only() -> Iterator[None]:
        modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")] if path.is_dir()}
        for path in modes:
            path.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if is_root:
                os.seteuid(0)
            for path, mode in modes.items():
                path.chmod(mode)

    yield folder, read_only
    shutil.rmtree(folder)


class SmallDisk:
    """A folder whose disk can be filled up: a tmpfs of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(b"\0" * 4096) == 4096:
                    pass
            except OSError:
                pass

    def free(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)


class FileSizeLimit(SmallDisk):
    """The same failure by the process's own limit, where nothing may be mounted: a write stops in the middle."""

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def may_mount() -> bool:
    """Whether this process may mount a disk."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    capabilities = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(capabilities, 16) & CAP_SYS_ADMIN) and shutil.which("mount") is not None


@pytest.fixture(params=["file size limit", "full disk"] if may_mount() else ["file size limit"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 2 MB that can be filled up, where one may be mounted; everywhere, a limit on the size of files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "full disk":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
        yield SmallDisk(folder)
        subprocess.run(["umount", folder], check=True)
    else:
        disk = FileSizeLimit(folder)
        yield disk
        disk.free()
