"""One worker's process as its agent sees it: its group, its link, its output and its end."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.assignment import Assignment, ErrorReport
from cluster.message_lines import BadMessage, MessageReader, encode
from cluster.process import identity_of
from cluster.worker_environment import WorkerProgram, worker_environment
from cluster.worker_link import STACKS_SIGNAL
from cluster.worker_output import WorkerOutput

_PIECE = 1 << 16
# More than the kernel holds of a dead worker's messages and output; a bound, because what the worker has started may
# still hold the other ends.
_MOST_PIECES_LEFT = 64


class WorkerProcess:
    """A worker in a session and process group of its own. Nothing here blocks.

    The thread that makes it must live as long as the agent: the kernel kills the worker when that thread ends.

    Attributes:
        name: the worker's name.
        pid: its pid, and the number of its process group.
        error: the exception it has reported.
        share: which of the host's shares it has as a member; None: it is a standby.
        is_killed: whether its agent has killed it.
        link: the agent's end of the pair of sockets.
        printed: the descriptor from which its standard output and standard error are read.
        ended: a descriptor that is readable when the process has ended; None where the kernel has none.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(
        self,
        name: str,
        program: WorkerProgram,
        output: WorkerOutput,
        *,
        host_address: str,
        limits: Mapping[str, str],
    ) -> None:
        self.name = name
        self.error: ErrorReport | None = None
        self.share: int | None = None
        self.is_killed = False
        self._output = output
        self._reader, self._outgoing = MessageReader(), bytearray()
        self._has_spoken = False
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            self.link, link = socket.socketpair()
            ours.callback(self.link.close)
            theirs.callback(link.close)
            self.printed, printed = os.pipe()
            ours.callback(os.close, self.printed)
            theirs.callback(os.close, printed)
            self.link.setblocking(False)
            os.set_blocking(self.printed, False)
            self._process = subprocess.Popen(
                program.command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                pass_fds=[link.fileno()],
                start_new_session=True,
                cwd=program.folder,
                env=worker_environment(
                    program, limits, worker=name, host_address=host_address, descriptor=link.fileno()
                ),
            )
            self._ours = ours.pop_all()
        self.pid = self._process.pid
        self.ended: int | None = None
        with contextlib.suppress(AttributeError, OSError):
            self.ended = os.pidfd_open(self.pid)
            self._ours.callback(os.close, self.ended)
        output.note(f"worker {name} is process {self.pid}")

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended; it keeps its pid until `reap`."""
        return identity_of(self.pid) is None

    @property
    def has_unsent(self) -> bool:
        """Whether orders wait until the worker reads."""
        return bool(self._outgoing)

    def send(self, order: Mapping[str, Any]) -> None:
        """Gives an order; what the worker does not take at once waits for `send_more`."""
        self._outgoing += encode(order)
        self.send_more()

    def send_more(self) -> None:
        """Sends what waits. Orders to a worker that has closed its link are dropped: it is about to end."""
        try:
            while self._outgoing:
                del self._outgoing[: self.link.send(self._outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing.clear()

    def form(self, assignment: Assignment, environment: Mapping[str, str]) -> None:
        """Hands over its part in a generation, whose log its output goes to from here on.

        Args:
            environment: what it needs to know besides, as variables.
        """
        self.read_left_output()
        self._output.assign(assignment.generation, assignment.rank)
        self._output.note(f"worker {self.name}, process {self.pid}, is rank {assignment.rank}")
        self.send({"type": "form", "assignment": assignment.to_json(), "environment": dict(environment)})

    def read_messages(self) -> list[dict[str, Any]] | None:
        """The messages in the next piece that has come; None when the worker has closed its link."""
        data = self._receive()
        return None if data == b"" else self._parse(data or b"")

    def read_left_messages(self) -> list[dict[str, Any]]:
        """All messages that are left of a worker that has ended."""
        messages = []
        for _ in range(_MOST_PIECES_LEFT):
            if not (data := self._receive()):
                break
            messages += self._parse(data)
        return messages

    def read_output(self) -> bool:
        """Passes on the next piece of output that has come.

        Returns:
            Whether more may come: False when nobody holds the other end any more.
        """
        try:
            data = os.read(self.printed, _PIECE)
        except BlockingIOError:
            return True
        self._output.write(data)
        return bool(data)

    def read_left_output(self) -> None:
        """Passes on what has been printed so far."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST_PIECES_LEFT):
                if not (data := os.read(self.printed, _PIECE)):
                    return
                self._output.write(data)

    def note(self, text: str) -> None:
        """Adds a line of the agent's to the worker's log."""
        self._output.note(text)

    def dump_stacks(self) -> None:
        """Has the worker write the stacks of all its threads to its log, wherever it is stuck."""
        if not self._has_spoken:
            self.note("no stacks: the worker has not opened its link yet")  # the signal would still kill it
            return
        if self._is_stopped():
            self.note("no stacks: the process is stopped (SIGSTOP)")
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, STACKS_SIGNAL)

    def kill(self, reason: str) -> None:
        """Ends the whole process group, and says why in the log."""
        if not self.is_killed:
            self.note(f"killed by its agent: {reason}")
        self.is_killed = True
        self.kill_group()

    def kill_group(self) -> None:
        """Ends the process and all that it has started, except what has left its process group."""
        # Until `reap` the pid is this worker's, even if it has ended, and so is the group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> tuple[int | None, int | None]:
        """Collects a process that has ended.

        Returns:
            Its exit code and the signal that ended it, of which one is None; both when somebody else has collected it.
        """
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            self._process.returncode = 0  # so that subprocess does not look for it either
            return None, None
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        how = f"exited with code {code}" if code >= 0 else f"was ended by {signal_name(-code)}"
        self.note(f"worker {self.name}, process {self.pid}, {how}")
        return (code, None) if code >= 0 else (None, -code)

    def close(self) -> None:
        """Closes the agent's ends of everything."""
        self._ours.close()
        self._output.close()

    def _receive(self) -> bytes | None:
        """The next piece that has come: None without one, empty when none can come any more."""
        try:
            data = self.link.recv(_PIECE)
        except BlockingIOError:
            return None
        except OSError:  # the worker has ended without having read all orders
            return b""
        self._has_spoken = self._has_spoken or bool(data)
        return data

    def _parse(self, data: bytes) -> list[dict[str, Any]]:
        messages = self._reader.feed(data)
        for message in messages:
            if isinstance(message, BadMessage):
                self.note(str(message))
        return [message for message in messages if isinstance(message, dict)]

    def _is_stopped(self) -> bool:
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        return text[text.rindex(")") + 2] in "Tt"


def signal_name(number: int) -> str:
    """A signal's name, such as `SIGKILL`; those for real-time use have only a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
