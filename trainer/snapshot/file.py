"""The file of a snapshot, which lies in memory (tmpfs): two slots, written in turn.

A slot is a page of its own for the header, the image of a checkpoint's file, and metadata. While a slot is being
written its header is invalid, and the other slot holds the snapshot before; the header, written last, has the digests
of the slot and of itself. So a kill at any moment leaves a whole snapshot, or none where none was finished yet. A
reader may copy the file at any time: what changes under it does not fit its digest.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from trainer.checkpoint.host_buffer import ArraySpec, HostBuffer, num_image_bytes, read_image

_PAGE = 4096
_SLOTS = 2
_METADATA_BYTES = 64 << 10
_PIECE = 1 << 20  # bytes digested at a time: the digest holds the GIL
_FILE_HEADER = struct.Struct("<16sQ")  # magic, bytes of a slot; then a crc32c of both
_SLOT_HEADER = struct.Struct("<QqQQI")  # sequence, step, bytes of image and metadata, crc32c of both; then its own
_CRC = struct.Struct("<I")
_MAGIC = b"phalanx-snap-1\0\0"


@dataclass(frozen=True)
class Snapshot:
    """A training state that was read back.

    Attributes:
        step: Steps done.
        arrays: By name.
        metadata: As of a checkpoint.
    """

    step: int
    arrays: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class _SlotHeader:
    sequence: int
    step: int
    image_bytes: int
    metadata_bytes: int
    crc: int


class SnapshotMissing(OSError):
    """A file does not hold the snapshot that it ought to hold: a matter of the machine, not of the user."""


def read_snapshot(path: Path, step: int | None = None) -> Snapshot | None:
    """A whole snapshot of a file. Its arrays do not depend on the file.

    Args:
        path: The file.
        step: The snapshot of this step, which is one of the last two; None is the newest.

    Returns:
        None where no step was asked for and there is none.

    Raises:
        SnapshotMissing: There is no whole snapshot of that step.
    """
    found = _whole_slots(path)
    wanted = [one for one in found if step is None or one[1].step == step]
    if step is not None and not wanted:
        held = ", ".join(str(header.step) for _, header, _ in found) or "none"
        raise SnapshotMissing(f"there is no whole snapshot of step {step} in {path} (those of steps: {held})")
    if not wanted:
        return None
    _, header, body = max(wanted, key=lambda one: one[1].sequence)
    return Snapshot(header.step, read_image(body[: header.image_bytes]), _metadata(header, body))


def held_snapshots(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """Step and metadata of each whole snapshot of a file that nobody writes any more, oldest first."""
    found = sorted(_whole_slots(path, mapped=True), key=lambda one: one[1].sequence)
    return [(header.step, _metadata(header, body)) for _, header, body in found]


def _whole_slots(path: Path, mapped: bool = False) -> list[tuple[int, _SlotHeader, np.ndarray]]:
    try:
        data = np.memmap(path, np.uint8, "r") if mapped else np.fromfile(path, np.uint8)
    except (FileNotFoundError, ValueError):  # of an empty file there is nothing to map
        return []
    slot_bytes = _slot_bytes_of(data)
    headers = [(slot, _header(data, slot, slot_bytes)) for slot in range(_SLOTS)] if slot_bytes else []
    return [(slot, header, _body(data, slot, slot_bytes)) for slot, header in headers if header is not None]


def _metadata(header: _SlotHeader, body: np.ndarray) -> Mapping[str, Any]:
    return json.loads(body[header.image_bytes : header.image_bytes + header.metadata_bytes].tobytes())


class SnapshotFile:
    """Writes snapshots of one layout. The newest one that the file holds already stays until there is a newer one.

    Args:
        path: On a tmpfs, such as below /dev/shm; its folder is created. One process at a time may write.
        specs: Shape and type of each array, by name.

    Raises:
        OSError: There is not enough memory for two slots, or the file cannot be made.
    """

    def __init__(self, path: Path, specs: Mapping[str, ArraySpec]) -> None:
        self.path = path
        image_bytes = num_image_bytes(specs)
        self._slot_bytes = -(-(_PAGE + image_bytes + _METADATA_BYTES) // _PAGE) * _PAGE
        path.parent.mkdir(parents=True, exist_ok=True)
        self._data = _open(path, self._slot_bytes, lambda data: _lays_out(data, self._slot_bytes, specs))
        newest = _newest(self._data, self._slot_bytes)
        self._sequence = newest[1].sequence if newest else 0
        self._next = 1 - newest[0] if newest else 0
        self._buffers = [
            HostBuffer(specs, _body(self._data, slot, self._slot_bytes)[:image_bytes]) for slot in range(_SLOTS)
        ]

    def write(self, step: int, values: Mapping[str, Callable[[], np.ndarray]], metadata: Mapping[str, Any]) -> None:
        """Writes a snapshot; when it returns, a kill cannot take it back.

        Args:
            step: Steps done.
            values: For each name, what gives the array.
            metadata: Anything that JSON can hold.

        Raises:
            ValueError: The metadata is longer than 64 KiB.
        """
        text = json.dumps(metadata).encode()
        if len(text) > _METADATA_BYTES:
            raise ValueError(f"the snapshot's metadata has {len(text)} bytes, which must be at most {_METADATA_BYTES}")
        slot, buffer = self._next, self._buffers[self._next]
        self._write_header(slot, bytes(_SLOT_HEADER.size + _CRC.size))
        for name, view in buffer.views.items():
            np.copyto(view, values[name]())
        body = _body(self._data, slot, self._slot_bytes)
        image_bytes = len(buffer.image)
        body[image_bytes : image_bytes + len(text)] = np.frombuffer(text, np.uint8)
        crc = _digest(body[: image_bytes + len(text)])
        header = _SLOT_HEADER.pack(self._sequence + 1, step, image_bytes, len(text), crc)
        self._write_header(slot, header + _CRC.pack(google_crc32c.value(header)))
        self._sequence, self._next = self._sequence + 1, 1 - slot

    def _write_header(self, slot: int, header: bytes) -> None:
        begin = _PAGE + slot * self._slot_bytes
        self._data[begin : begin + len(header)] = np.frombuffer(header, np.uint8)


def _open(path: Path, slot_bytes: int, fits: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The file's bytes, shared with it: of the file that is there if it fits, else of a new one in its place."""
    size = _PAGE + _SLOTS * slot_bytes
    if path.exists() and path.stat().st_size == size:
        data = _map(path, os.O_RDWR, size)
        if fits(data):
            return data
    path.unlink(missing_ok=True)  # its memory is needed, and no state of this layout is in it
    new = path.with_name(f"{path.name}.new")
    try:
        data = _map(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, size)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    header = _FILE_HEADER.pack(_MAGIC, slot_bytes)
    data[: len(header) + _CRC.size] = np.frombuffer(header + _CRC.pack(google_crc32c.value(header)), np.uint8)
    os.replace(new, path)
    return data


def _map(path: Path, flags: int, size: int) -> np.ndarray:
    file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        if flags & os.O_CREAT:
            # All of it now: a page that finds no memory later would end the process with SIGBUS.
            os.posix_fallocate(file, 0, size)
        return np.frombuffer(mmap.mmap(file, size), np.uint8)
    finally:
        os.close(file)


def _lays_out(data: np.ndarray, slot_bytes: int, specs: Mapping[str, ArraySpec]) -> bool:
    """Whether a file holds a snapshot of exactly this layout."""
    if _slot_bytes_of(data) != slot_bytes or (newest := _newest(data, slot_bytes)) is None:
        return False
    arrays = read_image(_body(data, newest[0], slot_bytes)[: newest[1].image_bytes])
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    return found == {name: (spec.shape, spec.numpy_dtype) for name, spec in specs.items()}


def _slot_bytes_of(data: np.ndarray) -> int:
    """Bytes of a slot as the file says; 0 where it is no file of ours."""
    if len(data) < _PAGE:
        return 0
    header = data[: _FILE_HEADER.size].tobytes()
    magic, slot_bytes = _FILE_HEADER.unpack(header)
    crc = _CRC.unpack(data[_FILE_HEADER.size : _FILE_HEADER.size + _CRC.size].tobytes())[0]
    is_ours = magic == _MAGIC and crc == google_crc32c.value(header) and len(data) == _PAGE + _SLOTS * slot_bytes
    return slot_bytes if is_ours else 0


def _newest(data: np.ndarray, slot_bytes: int) -> tuple[int, _SlotHeader] | None:
    """The slot with the newest whole snapshot."""
    headers = ((slot, _header(data, slot, slot_bytes)) for slot in range(_SLOTS))
    found = [(slot, header) for slot, header in headers if header is not None]
    return max(found, key=lambda pair: pair[1].sequence, default=None)


def _header(data: np.ndarray, slot: int, slot_bytes: int) -> _SlotHeader | None:
    """The header of a slot; None where the slot is torn or was never written."""
    begin, end = _PAGE + slot * slot_bytes, _PAGE + slot * slot_bytes + _SLOT_HEADER.size
    packed = data[begin:end].tobytes()
    header = _SlotHeader(*_SLOT_HEADER.unpack(packed))
    if not header.sequence or _CRC.unpack(data[end : end + _CRC.size].tobytes())[0] != google_crc32c.value(packed):
        return None
    used = header.image_bytes + header.metadata_bytes
    if used > slot_bytes - _PAGE or _digest(_body(data, slot, slot_bytes)[:used]) != header.crc:
        return None
    return header


def _body(data: np.ndarray, slot: int, slot_bytes: int) -> np.ndarray:
    return data[_PAGE + slot * slot_bytes + _PAGE : _PAGE + (slot + 1) * slot_bytes]


def _digest(data: np.ndarray) -> int:
    crc = 0
    for begin in range(0, len(data), _PIECE):
        crc = google_crc32c.extend(crc, data[begin : begin + _PIECE].tobytes())
    return crc
