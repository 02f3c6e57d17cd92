"""The handle on the process that has the compiler of TPUs."""

import contextlib
import importlib.util
import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any, NamedTuple

from launch.exit_code import RequestError
from launch.tpu_check.compiler_process import ENVIRONMENT

_STOP_S = 5.0


class OutOfTime(RuntimeError):
    """The time limit is over."""


class Slice(NamedTuple):
    """What a topology consists of.

    Attributes:
        devices: that compute apart, each a replica.
        chips: that they are on.
        kind: the compiler's name of a device.
    """

    devices: int
    chips: int
    kind: str


class Compiled(NamedTuple):
    """A program that the compiler took; bytes, and figures of one device.

    Attributes:
        alias: outputs that take the place of arguments and need no memory of their own.
        collectives: "kind", "bytes" and "types" of each.
    """

    arguments: int
    outputs: int
    alias: int
    temporaries: int
    code: int
    flops: float
    bytes_accessed: float
    collectives: list[dict[str, Any]]
    compile_s: float

    @property
    def total(self) -> int:
        """Bytes of HBM that the program needs at once."""
        return self.arguments + self.outputs - self.alias + self.temporaries + self.code


def check_installed() -> None:
    """Makes sure that the compiler is there.

    Raises:
        RequestError: the extra is not installed.
    """
    missing = [name for name in ("jax", "libtpu") if importlib.util.find_spec(name) is None]
    if missing:
        raise RequestError(
            f"check --tpu needs the compiler of TPUs, of which {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed: pip install 'phalanx[tpu-check]', on Python 3.11 "
            "or newer"
        )


class TpuCompiler:
    """Compiles for one topology; to be used in a `with`.

    Args:
        topology: such as "v5e:2x2".
        limit_s: seconds for everything that it is asked.
    """

    def __init__(self, topology: str, limit_s: float) -> None:
        self._topology, self.limit_s = topology, limit_s
        self._deadline = time.monotonic() + limit_s

    def __enter__(self) -> "TpuCompiler":
        self._folder = tempfile.TemporaryDirectory(prefix="phalanx-tpu-check-")
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._folder.cleanup()

    def _start(self) -> None:
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._notes = tempfile.TemporaryFile()  # noqa: SIM115 (closed by _stop)
        environment = {name: value for name, value in os.environ.items() if name != "TPU_LOAD_LIBRARY"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "launch.tpu_check.compiler_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._notes,
            text=True,
            env={**environment, **ENVIRONMENT},
        )
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout, self._answers), daemon=True).start()

    def _stop(self) -> None:
        self._process.kill()  # it has nothing to lose, and a compilation does not listen
        self._process.wait(_STOP_S)
        for stream in (self._process.stdin, self._process.stdout, self._notes):
            if stream is not None:
                stream.close()

    @property
    def left_s(self) -> float:
        """Seconds until the limit."""
        return max(0.0, self._deadline - time.monotonic())

    def slice(self) -> Slice:
        """What the topology consists of.

        Raises:
            RequestError: the compiler does not know it.
        """
        answer = self._ask({})
        if "error" in answer:
            first = answer["error"].splitlines()[0]
            raise RequestError(f"--tpu {self._topology} must be a slice that the compiler knows: {first}")
        return Slice(answer["devices"], answer["chips"], answer["kind"])

    def restart(self) -> None:
        """Gives up what is being compiled."""
        self._stop()
        self._start()

    def compile(self, program: bytes, quick: bool = False, within_s: float = math.inf) -> Compiled | str:
        """Compiles a serialized HLO module; returns the compiler's message where it refuses.

        Args:
            program: of one replica.
            quick: whether to save time, at the price of temporaries that are overstated.
            within_s: seconds for this one.

        Raises:
            OutOfTime: a limit is over.
        """
        path = Path(self._folder.name, "program.hlo")
        path.write_bytes(program)
        answer = self._ask({"program": str(path), "quick": quick}, within_s)
        if "error" in answer:
            return answer["error"]
        rest = {name: answer[name] for name in ("flops", "bytes_accessed", "collectives", "compile_s")}
        return Compiled(**answer["memory"], **rest)

    def _ask(self, request: dict[str, Any], within_s: float = math.inf) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"topology": self._topology, **request}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=max(0.001, min(within_s, self.left_s)))
        except BrokenPipeError:
            line = None
        except queue.Empty:
            raise OutOfTime(
                f"the compiler must be ready within {self.limit_s:g} s and was not: give it more with --tpu-limit, or "
                "a smaller model"
            ) from None
        if line is None:
            return {"error": self._death()}
        return json.loads(line)

    def _death(self) -> str:
        """What the compiler said before it ended; some programs end it instead of being refused."""
        code = self._process.wait(_STOP_S)
        self._notes.seek(0)
        lines = [line for line in self._notes.read().decode(errors="replace").splitlines() if line.strip()]
        told = next(
            (line for line in lines if "Check failed" in line or line.startswith("F")), lines[-1] if lines else ""
        )
        return f"the compiler ended with exit code {code}: {told[:300]}"

    @staticmethod
    def _read(lines: IO[str], answers: "queue.Queue[str | None]") -> None:
        with contextlib.suppress(ValueError):  # closed, because nobody asks any more
            for line in lines:
                answers.put(line)
        answers.put(None)
