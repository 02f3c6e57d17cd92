"""An agent on another machine: it takes its orders from the launcher over a connection, and sends events back."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.agent import Agent
from cluster.assignment import Assignment
from cluster.message_channel import End, MessageChannel
from cluster.mutual_proof import connect
from cluster.supervisor.events import Event, HostJoined, SnapshotTaken
from cluster.supervisor.records import to_record
from cluster.worker_environment import Share, WorkerProgram
from cluster.worker_output import OutputLines

_log = logging.getLogger(__name__)

# An agent that hears nothing of its launcher for so long ends its workers: the launcher may have given it up, and
# gives the workers' places to others when it can be sure of this. See `GIVEN_UP_S`.
LEASE_S = 30.0
# After so long a launcher that hears nothing of an agent, and cannot have it ended, counts on its lease being over.
GIVEN_UP_S = 45.0
# So long the snapshots of a run whose launcher is gone wait in the host's memory for the next launcher.
STAY_S = 600.0


class RemoteAgent:
    """The agent of one host, in a process of that host. It ends its workers when the launcher is gone.

    Args:
        launcher: the address that the launcher listens at.
        secret: of the run.
        host: the host's name.
        program: what its workers run.
        logs: the folder of the workers' log files.
        shares: what each of the members that it runs at once may use.
        address: the host's own address, which its workers' peers reach.
        folder: goes with the agent, however it ends, and stays for `STAY_S` where the launcher is gone; None: there is
            none.
        outlives: whether it also stays when the agent is killed, because that may be the launcher's end, too, or
            another agent comes to this host.
        held: generation and step of each snapshot that the folder holds from an earlier launcher, oldest first.
        lease_s: see `LEASE_S`.

    Raises:
        ProofFailed: what answers at the address is not the launcher.
        OSError: nothing answers there.
    """

    def __init__(
        self,
        launcher: str,
        secret: str,
        host: str,
        program: WorkerProgram,
        logs: Path,
        *,
        shares: Sequence[Share],
        address: str,
        folder: Path | None = None,
        outlives: bool = False,
        held: Sequence[tuple[int, int]] = (),
        lease_s: float = LEASE_S,
    ) -> None:
        self._host = host
        self._ended = threading.Event()
        self._is_released = False
        self._channel = MessageChannel(
            connect(launcher, secret, host),
            self._obey,
            self._end,
            on_silence=lambda seconds: self._channel.cut(),
            silent_s=lease_s,
        )
        self._agent = Agent(
            host,
            program,
            logs,
            self._tell,
            shares=shares,
            address=address,
            on_output=self._pass_on,
            folder=folder,
            folder_stays_s=STAY_S if outlives else 0.0,
        )
        self._orders: dict[str, Callable[[dict[str, Any]], object]] = {
            "start": lambda order: self._agent.start(order["worker"]),
            "form": lambda order: self._agent.form(order["worker"], Assignment.from_json(order["assignment"])),
            "stop": lambda order: self._agent.stop(order["worker"], order["reason"]),
            "kill": lambda order: self._agent.kill(order["worker"], order["reason"]),
            "dump_stacks": lambda order: self._agent.dump_stacks(order["worker"]),
            "profile": lambda order: self._agent.profile(order["worker"], order["steps"]),
            "close": lambda order: threading.Thread(target=self._close, daemon=True).start(),
        }
        self._channel.begin()
        self._tell(HostJoined(0.0, host, len(shares)))
        for generation, step in held:
            self._channel.send({"type": "left", "record": to_record(SnapshotTaken(0.0, host, generation, step))})

    def drain(self, notice_s: float) -> None:
        """Says that this host has been given notice."""
        self._agent.drain(notice_s)

    def wait(self) -> None:
        """Waits until the launcher is gone, or needs this agent no longer, and all workers have ended."""
        self._ended.wait()

    def _tell(self, event: Event) -> None:
        self._channel.send({"type": "event", "record": to_record(event)})

    def _pass_on(self, output: OutputLines) -> None:
        # All lines are in the logs; the launcher's terminal can do without those that the network has no room for.
        self._channel.send_if_room(
            {"type": "output", "worker": output.worker, "rank": output.rank, "lines": list(output.lines)}
        )

    def _obey(self, message: dict[str, Any]) -> None:
        try:
            self._orders[message["type"]](message)
        except (KeyError, TypeError) as error:
            _log.error("%s was sent an order that it cannot carry out (%r): %r", self._host, error, message)

    def _close(self) -> None:
        self._is_released = True
        self._agent.leave_folder(0.0)
        # In this order: the end of the channel says that the workers have ended.
        self._agent.close()
        self._channel.close()

    def _end(self, end: End) -> None:
        if not self._is_released:
            self._agent.leave_folder(STAY_S)
        self._agent.close()
        self._ended.set()
