"""A store of objects at a loopback address, and fsspec's way to it: whole objects, and none replaced unseen."""

import http.client
import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

import fsspec
from fsspec.spec import AbstractFileSystem


class ObjectStore:
    """Listens until it is closed. `If-None-Match: *` is decided under a lock, as such stores promise.

    Args:
        heeds: Whether it pays heed to that header.

    Attributes:
        objects: By key.
        loses_answer: Whether it stores what a key that contains this is sent for, and then breaks off, once.
    """

    def __init__(self, heeds: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.loses_answer: str | None = None
        self._lock = threading.Lock()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self, status: int, content: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_PUT(self) -> None:
                content, key = self.rfile.read(int(self.headers["content-length"])), unquote(self.path[1:])
                with store._lock:
                    if heeds and self.headers.get("if-none-match") == "*" and key in store.objects:
                        return self._answer(412)
                    store.objects[key] = content
                    if store.loses_answer is not None and store.loses_answer in key:
                        store.loses_answer = None
                        self.close_connection = True
                        return None
                return self._answer(200)

            def do_GET(self) -> None:
                with store._lock:
                    sizes = {key: len(it) for key, it in store.objects.items()}
                    content = store.objects.get(unquote(self.path[1:]))
                if self.path == "/":
                    return self._answer(200, json.dumps(sizes).encode())
                return self._answer(404) if content is None else self._answer(200, content)

            def do_DELETE(self) -> None:
                store.objects.pop(unquote(self.path[1:]), None)
                self._answer(200)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"loopback://{self._server.server_address[1]}/models"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class LoopbackFileSystem(AbstractFileSystem):
    """`loopback://PORT/KEY`."""

    protocol = "loopback"
    cachable = False  # codespell:ignore cachable

    def _request(self, path: str, method: str = "GET", content: bytes | None = None, **headers: str) -> bytes:
        port, _, key = self._strip_protocol(path).partition("/")
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{quote(key)}", content, headers, method=method)
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return answer.read()
            except urllib.error.HTTPError as error:
                raise {404: FileNotFoundError, 412: FileExistsError}[error.code](path) from None
            except http.client.RemoteDisconnected:
                continue  # as clients of stores do

    def ls(self, path, detail=True, **kwargs):
        place = self._strip_protocol(path).strip("/")
        port, _, prefix = place.partition("/")
        found: dict[str, dict] = {}
        for key, size in json.loads(self._request(port)).items():
            if key.startswith(f"{prefix}/"):
                first, deeper, _ = key[len(prefix) + 1 :].partition("/")
                name = f"{port}/{prefix}/{first}"
                found[name] = {"name": name, "size": size, "type": "directory" if deeper else "file"}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        headers = {"If-None-Match": "*"} if mode == "create" else {}
        self._request(path, "PUT", bytes(value), **headers)

    def put_file(self, lpath, rpath, callback=None, mode="overwrite", **kwargs):
        with open(lpath, "rb") as file:
            self.pipe_file(rpath, file.read())

    def cat_file(self, path, start=None, end=None, **kwargs):
        return self._request(path)[start:end]

    def get_file(self, rpath, lpath, **kwargs):
        with open(lpath, "wb") as file:
            file.write(self._request(rpath))

    def _rm(self, path):
        self._request(path, "DELETE")

    def rm(self, path, recursive=False, maxdepth=None):
        for one in self.find(path):
            self._rm(one)


fsspec.register_implementation("loopback", LoopbackFileSystem, clobber=True)
