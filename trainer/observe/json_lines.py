"""JSON lines that survive kills, torn writes and a full disk; floats read back to the same bits.

JSON has no NaN and no infinity, so these three are written as the strings `"NaN"`, `"Infinity"` and `"-Infinity"`,
which any JSON reader accepts and which `decode_line` turns back into floats where they are a field of the record
itself.
"""

import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.atomic_file import sync_folder

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _plain(value: Any) -> Any:
    """What the encoder does not know: numpy scalars (a float32 becomes the float64 it equals), arrays, paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


# One encoder for all lines: `json.dumps` with options builds a new one a call, which costs more than the encoding.
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(", ", ": "), default=_plain).encode


def _named(value: Any) -> Any:
    """`value` with each float that JSON cannot hold replaced by its name."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _named(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_named(item) for item in value]
    return value


def encode_line(record: Mapping[str, Any]) -> bytes:
    """One record as a line of JSON, newline included."""
    try:
        text = _encode(record)
    except ValueError:  # a NaN or an infinity, which is too rare to look for in every record
        text = _encode(_named(record))
    return text.encode() + b"\n"


def decode_line(line: bytes) -> dict[str, Any] | None:
    """The record of a line, or None for one that a kill or a power failure has torn."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    for key, value in record.items():
        if isinstance(value, str) and value in _NON_FINITE:
            record[key] = _NON_FINITE[value]
    return record


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole records of a file, in order; none when there is no file. Torn lines are left out."""
    try:
        with path.open("rb") as file:
            for line in file:
                record = decode_line(line)
                if record is not None:
                    yield record
    except FileNotFoundError:
        return


class JsonLines:
    """A file that only grows, one record a line, in the kernel's hands as soon as `append` returns.

    A write that fails (full disk, lost mount) does not stop training: the bytes are kept and written before the next
    record, and `on_failure` hears of it once for every spell of failures. Lines are never torn by it.

    Safe to use from several threads: the one that writes checkpoints syncs the log while the loop appends to it.

    Args:
        path: the file; its folder is created. A torn last line of an earlier process is closed with a newline.
        on_failure: called with the error of a failed write.
    """

    def __init__(self, path: Path, on_failure: Callable[[OSError], None] | None = None) -> None:
        self.path = path
        self._on_failure = on_failure
        self._pending = b""
        self._failing = False
        self._file = -1
        # Held over a write and the shortening of what is pending: between the two another thread would write it again.
        self._lock = threading.RLock()
        self._open()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._pending = b"\n" + self._pending

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one record: about 10 microseconds for ten numbers."""
        self.append_bytes(encode_line(record))

    def append_bytes(self, lines: bytes) -> None:
        """Writes lines that are encoded already; each ends with a newline."""
        with self._lock:
            self._pending += lines
            try:
                self._write_pending()
            except OSError as refused:
                error, first, self._failing = refused, not self._failing, True
            else:
                return
        # Without the lock: who hears of it may write to this very file.
        if first and self._on_failure:
            self._on_failure(error)

    def _write_pending(self) -> None:
        while self._pending:
            written = os.write(self._file, self._pending)
            self._pending = self._pending[written:]
        self._failing = False

    def sync(self) -> None:
        """Puts everything on the disk.

        Raises:
            OSError: lines are still unwritten, or the disk refuses.
        """
        with self._lock:
            self._write_pending()
        os.fsync(self._file)

    def rewrite(self, keep: Callable[[dict[str, Any]], bool]) -> int:
        """Drops in one atomic step the records that `keep` refuses, and torn lines.

        Returns:
            The number of lines dropped; the file is not touched when that is 0.
        """
        kept = bytearray()
        dropped = 0
        with self._lock:
            self._write_pending()
            for line in self.path.read_bytes().splitlines(keepends=True):
                record = decode_line(line)
                if record is not None and line.endswith(b"\n") and keep(record):
                    kept += line
                else:
                    dropped += 1
            if dropped:
                self._replace(kept)
        return dropped

    def _replace(self, content: bytes | bytearray) -> None:
        temporary = self.path.with_name(f".{self.path.name}.new")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        sync_folder(self.path.parent)
        os.close(self._file)
        self._open()

    def close(self) -> None:
        """Ends the file; what a full disk still refuses is lost, and `on_failure` has said so."""
        if self._file >= 0:
            self.append_bytes(b"")
            os.close(self._file)
            self._file = -1
