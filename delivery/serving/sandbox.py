"""What a serving process keeps of its rights: it reads its models and itself, writes its logs, and calls nobody.

A model is a program. Signatures say whose it is, and the list of operations (`delivery/package/op_list.py`) leaves out
those that touch files; should both fail, or a library that a request reaches have a hole, the kernel still refuses.
"""

from __future__ import annotations

import atexit
import os
import shutil
import site
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from delivery.serving.landlock import NETWORK_SINCE, READ, Files, Ports, Ruleset, kernel_version
from delivery.serving.otlp_endpoint import files_in, port_of
from delivery.serving.settings import STANDARD_ERROR, ServingSettings

_PACKAGES = ("trainer", "cluster", "delivery", "launch")
_LIBRARIES = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
# No folder of settings as a whole: what else is there is nobody's business.
_SYSTEM = (
    "/etc/host.conf", "/etc/hosts", "/etc/localtime", "/etc/mime.types", "/etc/nsswitch.conf", "/etc/os-release",
    "/etc/resolv.conf", "/etc/ssl/openssl.cnf", "/etc/timezone", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
    "/proc/sys/kernel", "/proc/sys/vm", "/proc/version", "/proc/driver/nvidia", "/proc/filesystems",
    "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage", "/sys/bus/pci",
    "/sys/module/nvidia", "/dev/random", "/dev/urandom", "/dev/zero",
)  # fmt: skip
_DEVICES = "nvidia*"
_APPENDS = Files.WRITE_FILE | Files.MAKE_REG


class SandboxRefused(ValueError):
    """The process cannot be confined. The message is one sentence for who runs the server."""


@dataclass(frozen=True)
class Confined:
    """What was given up.

    Attributes:
        version: Of Landlock.
        network: Whether TCP connections are refused too.
        temporary: The private folder for temporary files, gone with the process.
        exposed: What a log's folder holds besides, and can be overwritten: one sentence each.
    """

    version: int
    network: bool
    temporary: Path
    exposed: tuple[str, ...] = ()


def confine(settings: ServingSettings) -> Confined:
    """Gives up what a server with these settings does not need, for good. To be called before any thread begins.

    Raises:
        SandboxRefused: The kernel has no Landlock, or threads run already.
        OSError: The private folder cannot be made.
    """
    if not kernel_version():
        raise SandboxRefused(
            "this kernel has no Landlock, so a model could read and send all that this user may: serve on Linux 5.13 "
            "or later with Landlock turned on, or pass --sandbox off"
        )
    system = Path(tempfile.gettempdir())
    temporary = Path(tempfile.mkdtemp(prefix="phalanx-serving-"))
    atexit.register(_remove, temporary)
    # The folder of this process in /proc is made anew when nobody has it open, and rules are of what was there.
    _kept.append(os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    with Ruleset() as rules:
        rules.allow(READ, [Path("/proc/self"), *map(Path, _LIBRARIES), *map(Path, _SYSTEM), *_python()])
        rules.allow(Files.READ_DIR, map(Path, sys.path))  # "" among them is this folder
        rules.allow(READ, _inputs(settings))
        if settings.clients is not None:
            # The file is replaced as a whole when a token is made.
            rules.allow(READ, [settings.clients.absolute().parent])
        rules.allow(READ | Files.WRITE_FILE | Files.IOCTL_DEV, [Path("/dev/null"), *Path("/dev").glob(_DEVICES)])
        rules.allow(_APPENDS, map(_place_of, _logs(settings)))
        rules.allow(rules.files & ~Files.EXECUTE, [temporary])
        rules.allow(Files.REMOVE_DIR, [system])  # for the private folder itself, which is empty by then
        rules.allow_ports(Ports.BIND, [settings.grpc_port, settings.rest_port])
        if settings.otlp_traces_endpoint is not None:
            # The kernel knows of ports alone: this one may be called on any machine.
            rules.allow_ports(Ports.CONNECT, [port_of(settings.otlp_traces_endpoint)])
            rules.allow(READ, files_in(os.environ))
        try:
            rules.enforce()
        except RuntimeError as error:
            raise SandboxRefused(f"{error}, or pass --sandbox off") from None
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    return Confined(rules.version, rules.version >= NETWORK_SINCE, temporary, tuple(_exposed(settings)))


_kept: list[int] = []


def _remove(temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)


def _python() -> Iterator[Path]:
    """The interpreter, what is installed, and this project where it lies elsewhere; nothing else of that folder."""
    yield from {Path(one) for one in (sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values())}
    yield from map(Path, [*site.getsitepackages(), site.getusersitepackages()])
    project = Path(__file__).parents[2]
    yield from (project / name for name in _PACKAGES)
    yield Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"


def _inputs(settings: ServingSettings) -> Iterator[Path]:
    for model in settings.models:
        yield model.path
    yield from settings.trust.keys
    if settings.tls is not None:
        yield from (one for one in (settings.tls.certificate, settings.tls.key, settings.tls.client_ca) if one)


def _logs(settings: ServingSettings) -> list[Path]:
    return [log for log in (settings.audit_log, settings.json_log) if log is not None and log != STANDARD_ERROR]


def _exposed(settings: ServingSettings) -> Iterator[str]:
    inputs = [*_inputs(settings), *filter(None, [settings.clients])]
    for log in _logs(settings):
        place = _place_of(log).resolve()
        for path in inputs:
            if path.resolve().is_relative_to(place):
                yield (
                    f"the sandbox lets this process write to {place}, which holds {path}: give {log.name} a folder of "
                    "its own"
                )


def _place_of(log: Path) -> Path:
    """The folder, for a log that is moved away is begun anew there; of a device or a pipe only itself."""
    try:
        is_file = stat.S_ISREG(log.stat().st_mode)
    except OSError:
        is_file = True
    return log.absolute().parent if is_file else log
