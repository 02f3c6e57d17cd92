"""The stores: what a URL leads to, and reading a range of bytes from it once.

`http` and `https` are spoken here, with connections that stay open. All others are fsspec's: `file`, `memory`, and with
a package of their own `gs` (gcsfs), `s3` (s3fs) and more.
"""

import http.client
import threading
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from trainer.data.checks import DataError

_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "abfs": "adlfs", "az": "adlfs"}
_WEB = ("http", "https")
_GONE = (404, 410)
_MAY_PASS = (408, 425, 429)


class StoreError(Exception):
    """A read failed, and may succeed when it is tried again. The message says how it failed."""


@dataclass(frozen=True)
class StoredObject:
    """One object of a store, in one state.

    Attributes:
        url: Where it is.
        size: Bytes.
        version: What the store says that changes with the content: an ETag, or the time of the last change.
    """

    url: str
    size: int
    version: str


class Store(Protocol):
    """Reads objects. Safe to use from several threads."""

    def find(self, pattern: str) -> list[str]:
        """The URLs that a pattern matches, sorted."""
        ...

    def look(self, url: str, timeout_s: float) -> StoredObject:
        """Asks for size and version.

        Raises:
            StoreError: It may be known later.
            DataError: It does not exist, or may not be read.
        """
        ...

    def read(self, one: StoredObject, start: int, stop: int, timeout_s: float) -> bytes:
        """Reads bytes [start, stop), or fewer where the store breaks off.

        Raises:
            StoreError: It may succeed later.
            DataError: The object is gone or has changed, or may not be read.
        """
        ...


def is_url(path: str) -> bool:
    """Whether a path leads to a store."""
    return "://" in path


def open_store(url: str) -> Store:
    """The store of a URL.

    Raises:
        DataError: Nothing that is installed reads such URLs.
    """
    scheme = urlsplit(url).scheme.lower()
    return HttpStore() if scheme in _WEB else FsspecStore(url, scheme)


class FsspecStore:
    """Whatever fsspec has a file system for."""

    def __init__(self, url: str, scheme: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            rule = "reading from an object store needs the package fsspec, which is not installed"
            raise DataError(url, "", rule, "install phalanx[buckets]") from error
        try:
            self._files: Any = fsspec.core.url_to_fs(url)[0]
        except ImportError as error:
            package = _PACKAGES.get(scheme, error.name or "that it needs")
            rule = f"reading {scheme}:// needs the package {package}, which is not installed"
            raise DataError(url, "", rule, f"install it with pip install {package}") from error
        except ValueError as error:
            rule = f"{scheme}:// is nothing that fsspec can read"
            raise DataError(url, "", rule, "use file, http, https, gs, s3, or one of fsspec's") from error
        self._scheme = scheme

    def find(self, pattern: str) -> list[str]:
        """See `Store`."""
        try:
            return sorted(self._files.unstrip_protocol(path) for path in self._files.glob(pattern))
        except Exception as error:
            raise _as_store_error(error, pattern) from error

    def look(self, url: str, timeout_s: float) -> StoredObject:
        """See `Store`."""
        try:
            info = self._files.info(url)
        except Exception as error:
            raise _as_store_error(error, url) from error
        names = ("etag", "ETag", "generation", "mtime", "LastModified", "updated", "created")
        version = next((str(info[name]) for name in names if info.get(name)), "")
        return StoredObject(url, int(info["size"]), version)

    def read(self, one: StoredObject, start: int, stop: int, timeout_s: float) -> bytes:
        """See `Store`."""
        try:
            return self._files.cat_file(one.url, start=start, end=stop)
        except Exception as error:
            raise _as_store_error(error, one.url) from error


class HttpStore:
    """Any server that answers requests for ranges."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def find(self, pattern: str) -> list[str]:
        """The pattern itself: such servers have no lists."""
        if "*" in pattern or "?" in pattern:
            rule = "a web server does not list what it has, so no pattern can be matched there"
            change = "name the files: with {00000..00063} for numbers, or {a,b,c}"
            raise DataError(pattern, "", rule, change)
        return [pattern]

    def look(self, url: str, timeout_s: float) -> StoredObject:
        """See `Store`."""
        answer, _ = self._ask(url, {"Range": "bytes=0-0"}, timeout_s)
        unit, _, total = (answer.headers.get("Content-Range") or "").partition("/")
        if answer.status == 416:  # of an empty object no byte can be asked for
            return StoredObject(url, 0, "")
        if answer.status != 206 or not unit.startswith("bytes") or not total.isdigit():
            rule = "the server does not give parts of a file (it takes no notice of Range)"
            raise DataError(url, "", rule, "use a server that does, or copy the files to this machine")
        return StoredObject(url, int(total), answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")

    def read(self, one: StoredObject, start: int, stop: int, timeout_s: float) -> bytes:
        """See `Store`."""
        answer, body = self._ask(one.url, {"Range": f"bytes={start}-{stop - 1}"}, timeout_s)
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        total = (answer.headers.get("Content-Range") or "").rpartition("/")[2]
        if answer.status == 416 or version != one.version or total != str(one.size):
            raise changed(one)
        return body

    def _ask(self, url: str, headers: dict[str, str], timeout_s: float) -> tuple[http.client.HTTPResponse, bytes]:
        parts = urlsplit(url)
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        try:
            connection = self._connection(parts.scheme, parts.netloc, timeout_s)
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            if answer.status == 200:  # all of it, though a part was asked for
                self._drop(parts.scheme, parts.netloc)
                return answer, b""
            body = answer.read()
        except http.client.IncompleteRead as error:
            self._drop(parts.scheme, parts.netloc)
            raise StoreError(f"it broke off after {len(error.partial)} bytes") from error
        except (OSError, http.client.HTTPException) as error:
            self._drop(parts.scheme, parts.netloc)
            raise StoreError(_told(error)) from error
        if answer.status in (206, 416):
            return answer, body
        said = f"the server answers {answer.status} {answer.reason}".strip()
        if answer.status >= 500 or answer.status in _MAY_PASS:
            raise StoreError(said)
        if answer.status in _GONE:
            raise DataError(url, "", f"it does not exist ({said})", "correct the URL, or restore it")
        raise DataError(url, "", f"it cannot be read ({said})", "correct the URL, or the rights to it")

    def _connection(self, scheme: str, place: str, timeout_s: float) -> http.client.HTTPConnection:
        held = self._connections()
        if (scheme, place) not in held:
            kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
            held[scheme, place] = kind(place, timeout=timeout_s)
        return held[scheme, place]

    def _connections(self) -> dict[tuple[str, str], http.client.HTTPConnection]:
        """Of this thread, by scheme and host."""
        if not hasattr(self._of_thread, "held"):
            self._of_thread.held = {}
        return self._of_thread.held

    def _drop(self, scheme: str, place: str) -> None:
        connection = self._connections().pop((scheme, place), None)
        if connection is not None:
            connection.close()


def changed(one: StoredObject) -> DataError:
    """The error of an object that is not what it was when the run began."""
    return DataError(one.url, "", "it changed after the run began", "start a new run on the new data")


def _as_store_error(error: Exception, url: str) -> Exception:
    if isinstance(error, FileNotFoundError):
        return DataError(url, "", "it does not exist", "correct the URL, or restore it")
    if isinstance(error, PermissionError):
        return DataError(url, "", f"it may not be read ({_told(error)})", "give this user the right to read it")
    return StoreError(_told(error))


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
