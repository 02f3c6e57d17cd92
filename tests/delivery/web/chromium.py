"""A headless Chromium, told what to do over a pipe (the DevTools protocol), with no way to any other host."""

import base64
import fcntl
import functools
import http.server
import itertools
import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One page of the browser."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer = write, read, b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Page.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser is gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression: str) -> Any:
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, is_true: Callable[["Page"], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not is_true(self):
            assert time.monotonic() < deadline, self.evaluate("document.body.innerText")
            self.evaluate("new Promise((resolve) => setTimeout(resolve, 50))")

    def draw(self, points: list[tuple[float, float]]) -> None:
        """Drags the mouse over places of the window, in pixels."""
        for index, (x, y) in enumerate([*points, points[-1]]):
            kind = "mousePressed" if index == 0 else "mouseReleased" if index == len(points) else "mouseMoved"
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextmanager
def browser(profile: Path, width: int = 980, height: int = 900) -> Iterator[Page]:
    """A page in a browser of its own, which ends with the context."""
    chromium = find_chromium()
    assert chromium
    # Chromium reads orders from descriptor 3 and writes answers to 4.
    orders_read, orders_write = os.pipe()
    answers_read, answers_write = os.pipe()
    command = [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--remote-debugging-pipe",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-first-run", "--disable-background-networking",
        f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank",
    ]  # fmt: skip
    # Copies above 4, so that neither is overwritten by the other one's place.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 5) for end in (orders_read, answers_write)]
    process = subprocess.Popen(
        command,
        pass_fds=(3, 4),
        preexec_fn=lambda: [os.dup2(end, place) for place, end in enumerate(ends, 3)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in ends:
        os.close(end)
    os.close(orders_read)
    os.close(answers_write)
    try:
        yield Page(orders_write, answers_read)
    finally:
        process.terminate()
        process.wait(30)
        os.close(orders_write)
        os.close(answers_read)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder's files, on this machine alone."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
