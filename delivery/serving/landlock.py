"""Landlock, by which a process gives up rights for good: system calls of Linux, of one number on all machines.

https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Sequence
from enum import IntFlag
from pathlib import Path
from types import TracebackType

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_BELOW_PATH, _PORT = 1, 2
_NO_NEW_PRIVILEGES = 38  # of prctl


class Files(IntFlag):
    """What may be done with files, as the kernel numbers it."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


class Ports(IntFlag):
    """What may be done with TCP."""

    BIND = 1 << 0
    CONNECT = 1 << 1


READ = Files.READ_FILE | Files.READ_DIR
# What a rule of a single file may speak of.
_OF_FILES = Files.EXECUTE | Files.WRITE_FILE | Files.READ_FILE | Files.TRUNCATE | Files.IOCTL_DEV
_FILES_SINCE = {2: Files.REFER, 3: Files.TRUNCATE, 5: Files.IOCTL_DEV}
NETWORK_SINCE = 4
_SCOPES_SINCE = 6
_SCOPES = 0b11  # abstract Unix sockets and signals of processes outside


def kernel_version() -> int:
    """The version of Landlock that the kernel offers; 0: it has none, or it is turned off."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, _call(_CREATE_RULESET, None, 0, _VERSION, check=False))


class Ruleset:
    """Rights that are kept; everything else that this kernel's version knows of is given up.

    Raises:
        OSError: The kernel has no Landlock.
    """

    def __init__(self) -> None:
        self.version = kernel_version()
        self.files = Files(Files.REFER - 1)
        for since, right in _FILES_SINCE.items():
            if self.version >= since:
                self.files |= right
        self.ports = Ports.BIND | Ports.CONNECT if self.version >= NETWORK_SINCE else Ports(0)
        fields = [int(self.files)]
        if self.version >= NETWORK_SINCE:
            fields.append(int(self.ports))
        if self.version >= _SCOPES_SINCE:
            fields.append(_SCOPES)
        attributes = struct.pack(f"={len(fields)}Q", *fields)
        self._descriptor = _call(_CREATE_RULESET, attributes, len(attributes), 0)

    def __enter__(self) -> Ruleset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def allow(self, rights: Files, paths: Iterable[Path]) -> None:
        """Keeps rights on files, and on all that lies below folders; what is not there is passed over.

        A file that replaces another one later is another file, so only a rule of its folder covers it.
        """
        for path in paths:
            try:
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                kept = rights & self.files if path.is_dir() else rights & self.files & _OF_FILES
                if kept:
                    # The kernel's structure is packed: 64 bits, then 32.
                    _call(_ADD_RULE, self._descriptor, _BELOW_PATH, struct.pack("=Qi", kept, place), 0)
            finally:
                os.close(place)

    def allow_ports(self, rights: Ports, ports: Sequence[int]) -> None:
        """Keeps rights on TCP ports; 0 stands for any free one, and only for that."""
        if kept := rights & self.ports:
            for port in ports:
                _call(_ADD_RULE, self._descriptor, _PORT, struct.pack("=QQ", kept, port), 0)

    def enforce(self) -> None:
        """Gives the other rights up, for this thread and all that it begins; nothing brings them back.

        Raises:
            OSError: The kernel refuses.
            RuntimeError: There are other threads, which would keep their rights.
        """
        if len(threads := os.listdir("/proc/self/task")) != 1:
            raise RuntimeError(f"rights are to be given up, and {len(threads)} threads run: do it before they begin")
        if _libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        _call(_RESTRICT_SELF, self._descriptor, 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | None, check: bool = True) -> int:
    longs = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    answer = _libc().syscall(ctypes.c_long(number), *longs)
    if answer < 0 and check:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return answer
