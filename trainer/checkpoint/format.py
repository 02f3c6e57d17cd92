"""One checkpoint on disk: a folder that holds the arrays and a manifest, complete or not there at all.

```
step-00000500/state.safetensors   the arrays
              manifest.json       {"sha256": digest of what follows, "checkpoint": {format, step, created, metadata,
                                   files: {name: {bytes, sha256}}, arrays: {name: {file, shape, dtype}}}}
```
Everything is written and synced under a hidden name first; one rename then makes it visible. So a kill or a power
failure at any moment leaves either the whole checkpoint or none. What a disk damages later is found on reading:
the manifest's digest covers the manifest, and the manifest's digests cover the files.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.atomic_file import sync_folder
from trainer.checkpoint.host_buffer import HostBuffer, read_image, specs_of
from trainer.observe.json_lines import encode_line

STATE = "state.safetensors"
MANIFEST = "manifest.json"
WRITING = ".writing-"
REPLACED = ".replaced-"
_FORMAT = 1
_CHUNK = 8 << 20  # bytes hashed and written in turn, so that the second finds them in the processor's cache
_BEGIN, _MIDDLE, _END = b'{"sha256": "', b'", "checkpoint": ', b"}\n"
# Where there is fdatasync it is enough: it covers the size of the file, and leaves out only its times.
_sync_file: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class DamagedCheckpoint(Exception):
    """A checkpoint is not what was written.

    Attributes:
        path: the checkpoint's folder.
        file: the file in it that is damaged.
        rule: what is wrong with that file.
    """

    def __init__(self, path: Path, file: str, rule: str) -> None:
        super().__init__(f"{path} is damaged: {file} {rule}")
        self.path, self.file, self.rule = path, file, rule


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and verified.

    Attributes:
        path: its folder.
        step: the step it was taken after.
        arrays: by name, read-only views of one block of memory.
        metadata: what was given when it was written.
    """

    path: Path
    step: int
    arrays: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any]


def folder_name(step: int) -> str:
    """The name of a step's checkpoint: `step-00000500`."""
    return f"step-{step:08d}"


def write_checkpoint(
    folder: Path,
    step: int,
    arrays: Mapping[str, np.ndarray] | HostBuffer,
    metadata: Mapping[str, Any] | bytes,
    *,
    spare: Path | None = None,
    before_commit: Callable[[], None] | None = None,
) -> Path:
    """Writes a checkpoint, durably; one of the same step is replaced.

    Args:
        folder: where checkpoints are kept; it exists.
        step: the step that the state belongs to.
        arrays: the state by name, or a buffer that has been filled with it.
        metadata: anything that JSON can hold, or the JSON itself.
        spare: a discarded checkpoint's folder, whose blocks are written over. That saves the file system the
            allocation, which costs more than all the rest (10 times for 1 MB).
        before_commit: called when everything is on the disk and nothing visible yet.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: it could not be written; nothing of it is left.
        ValueError: a type cannot be stored.
    """
    if not isinstance(arrays, HostBuffer):
        given, arrays = arrays, HostBuffer(specs_of(arrays))
        arrays.fill(given)
    target = folder / folder_name(step)
    temporary = folder / f"{WRITING}{step:08d}-{os.getpid()}"
    try:
        if spare is None:
            temporary.mkdir()
        else:
            os.rename(spare, temporary)
        state = _write_file(temporary / STATE, arrays.image)
        manifest = _encode_manifest(step, arrays, metadata, {STATE: state})
        _write_file(temporary / MANIFEST, memoryview(manifest))
        if spare is None:
            sync_folder(temporary)
        if before_commit:
            before_commit()
        _publish(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks every byte of it.

    Raises:
        DamagedCheckpoint: a file is missing, cut off or changed.
        FileNotFoundError: there is no such folder.
        PermissionError: it may not be read.
    """
    manifest = read_manifest(path)
    arrays: dict[str, np.ndarray] = {}
    for name, entry in manifest["files"].items():
        image = np.empty(entry["bytes"], np.uint8)
        _check_file(path, name, entry, image)
        try:
            arrays.update(read_image(image))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedCheckpoint(path, name, f"cannot be understood: {error}") from None
    for array in arrays.values():
        array.flags.writeable = False
    return Checkpoint(path, manifest["step"], arrays, manifest["metadata"])


def verify(path: Path) -> None:
    """Checks every byte of a checkpoint without keeping it in memory.

    Raises:
        DamagedCheckpoint: a file is missing, cut off or changed.
        FileNotFoundError: there is no such folder.
        PermissionError: it may not be read.
    """
    for name, entry in read_manifest(path)["files"].items():
        _check_file(path, name, entry, None)


def read_manifest(path: Path) -> dict[str, Any]:
    """What the manifest says: step, metadata, files and arrays. Only the manifest itself is verified.

    Raises:
        DamagedCheckpoint: it is missing, cut off or changed, or a later version wrote it.
        FileNotFoundError: there is no such folder.
        PermissionError: it may not be read.
    """
    if not path.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such checkpoint", str(path))
    with _reading(path, MANIFEST):
        text = (path / MANIFEST).read_bytes()
    body_at = len(_BEGIN) + 64 + len(_MIDDLE)
    body = text[body_at : -len(_END)]
    head = _BEGIN + hashlib.sha256(body).hexdigest().encode() + _MIDDLE
    if text[:body_at] != head or not text.endswith(_END):
        raise DamagedCheckpoint(path, MANIFEST, "does not match its sha256")
    manifest = json.loads(body)
    if manifest["format"] > _FORMAT:
        raise DamagedCheckpoint(
            path, MANIFEST, f"has format {manifest['format']}, this version reads up to {_FORMAT}: install a newer one"
        )
    return manifest


def encode_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Metadata as it stands in the manifest; numbers that JSON lacks become "NaN", "Infinity", "-Infinity"."""
    return encode_line(metadata).rstrip()


def _encode_manifest(
    step: int, buffer: HostBuffer, metadata: Mapping[str, Any] | bytes, files: Mapping[str, Any]
) -> bytes:
    encoded = metadata if isinstance(metadata, bytes) else encode_metadata(metadata)
    head = f'{{"format": {_FORMAT}, "step": {step}, "created": {time.time()!r}, "metadata": '.encode()
    tail = f', "files": {json.dumps(files)}, "arrays": '.encode()
    body = head + encoded + tail + buffer.index_json(STATE) + b"}"
    return _BEGIN + hashlib.sha256(body).hexdigest().encode() + _MIDDLE + body + _END


def _write_file(path: Path, content: memoryview) -> dict[str, Any]:
    """Writes and syncs a file, over an older one where there is one; gives its entry in the manifest."""
    if os.path.lexists(path) and os.lstat(path).st_nlink > 1:
        path.unlink()  # someone keeps the old checkpoint under another name: its blocks are not ours to write over
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        offset = 0
        while offset < len(content):
            chunk = content[offset : offset + _CHUNK]
            digest.update(chunk)
            written = 0
            while written < len(chunk):
                written += os.pwrite(descriptor, chunk[written:], offset + written)
            offset += len(chunk)
        if os.fstat(descriptor).st_size > len(content):
            os.ftruncate(descriptor, len(content))
        _sync_file(descriptor)
    finally:
        os.close(descriptor)
    return {"bytes": len(content), "sha256": digest.hexdigest()}


def _publish(temporary: Path, target: Path) -> None:
    try:
        os.rename(temporary, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # The step has a checkpoint already. A kill between the two renames leaves it under a name that
        # `restore_replaced` recognises, so that there is no moment at which the step could be lost.
        replaced = target.with_name(REPLACED + target.name)
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(target, replaced)
        os.rename(temporary, target)
        sync_folder(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        return
    sync_folder(target.parent)


def restore_replaced(folder: Path) -> None:
    """Finishes replacements that a kill has interrupted: the old checkpoint comes back unless the new one is there."""
    for replaced in folder.glob(f"{REPLACED}*"):
        target = folder / replaced.name.removeprefix(REPLACED)
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            os.rename(replaced, target)


@contextlib.contextmanager
def _reading(path: Path, name: str):
    try:
        yield
    except FileNotFoundError:
        raise DamagedCheckpoint(path, name, "is missing") from None
    except PermissionError:
        raise
    except OSError as error:
        raise DamagedCheckpoint(path, name, f"cannot be read: {error.strerror}") from None


def _check_file(path: Path, name: str, entry: Mapping[str, Any], into: np.ndarray | None) -> None:
    """Compares a file with its entry in the manifest, and keeps its bytes where a place for them is given."""
    size, digest = entry["bytes"], hashlib.sha256()
    scratch = None if into is not None else np.empty(min(size, _CHUNK), np.uint8)
    with _reading(path, name), (path / name).open("rb", buffering=0) as file:
        if (actual := os.fstat(file.fileno()).st_size) != size:
            raise DamagedCheckpoint(path, name, f"has {actual} bytes instead of {size}")
        offset = 0
        while offset < size:
            place = into[offset : offset + _CHUNK] if into is not None else scratch
            count = file.readinto(memoryview(place))  # type: ignore[arg-type]
            if not count:
                raise DamagedCheckpoint(path, name, f"ends after {offset} of {size} bytes")
            digest.update(memoryview(place)[:count])  # type: ignore[arg-type]
            offset += count
    if digest.hexdigest() != entry["sha256"]:
        raise DamagedCheckpoint(path, name, "does not match its sha256")
