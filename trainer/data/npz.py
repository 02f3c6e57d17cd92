"""Reads .npz files; arrays that are stored uncompressed can be mapped instead of loaded."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np

from trainer.data.checks import DataError

# Sizes and offsets of the local header before each member of a zip file (APPNOTE.TXT of PKWARE, section 4.3.7).
LOCAL_HEADER_SIZE = 30
NAME_LENGTHS = 26


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """Loads all arrays of a file.

    Raises:
        DataError: The file is missing, damaged, or holds Python objects.
    """
    with _open(file) as archive:
        return {_name(member): _read(archive, member, file) for member in _members(archive)}


def map_npz(file: Path) -> dict[str, np.ndarray]:
    """Maps the arrays of a file; those that are compressed are loaded.

    Raises:
        DataError: As `read_npz`.
    """
    with _open(file) as archive:
        return {
            _name(member): _read(archive, member, file) if member.compress_type else _map(member, file)
            for member in _members(archive)
        }


def _open(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile) as error:
        rule = f"it cannot be read as .npz ({error})"
        raise DataError(file, "", rule, "write it with numpy.savez, and set data.path to it") from error


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [member for member in archive.infolist() if member.filename.endswith(".npy")]


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: Path) -> np.ndarray:
    try:
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(file, f"array {_name(member)}", f"it cannot be read ({error})", "write it again") from error


def _map(member: zipfile.ZipInfo, file: Path) -> np.ndarray:
    with file.open("rb") as stream:
        stream.seek(member.header_offset + NAME_LENGTHS)
        lengths = struct.unpack("<HH", stream.read(4))
        stream.seek(member.header_offset + LOCAL_HEADER_SIZE + sum(lengths))
        try:
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, fortran_order, dtype = read_header(stream)
        except ValueError as error:
            raise DataError(file, f"array {_name(member)}", f"it cannot be read ({error})", "write it again") from error
        if dtype.hasobject:
            raise DataError(file, f"array {_name(member)}", "it holds Python objects", "store numbers instead")
        return np.memmap(file, dtype, "r", stream.tell(), shape, "F" if fortran_order else "C")
