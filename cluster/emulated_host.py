"""The process of one emulated host: an agent that takes its orders from a socket and sends its events there.

python -m cluster.emulated_host DESCRIPTOR LAUNCHER_PID

What ends a machine of a cluster ends this process: SIGTERM is its notice, SIGKILL its loss.
"""

import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.agent import Agent
from cluster.assignment import Assignment
from cluster.message_lines import BadMessage, MessageReader, encode
from cluster.parent_death import die_with_parent
from cluster.supervisor.events import Event, HostJoined
from cluster.supervisor.records import to_record
from cluster.worker_environment import Share, WorkerProgram
from cluster.worker_output import OutputLines


class _Sender:
    """Sends from a thread of its own: a launcher that does not read must not hold up the agent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send, name="sender", daemon=True)
        self._thread.start()

    def event(self, event: Event) -> None:
        self._messages.put({"type": "event", "record": to_record(event)})

    def output(self, output: OutputLines) -> None:
        self._messages.put({"type": "output", "worker": output.worker, "rank": output.rank, "lines": output.lines})

    def close(self) -> None:
        self._messages.put(None)
        self._thread.join()

    def _send(self) -> None:
        while (message := self._messages.get()) is not None:
            try:
                self._connection.sendall(encode(message))
            except OSError:
                return  # the launcher is gone, and this process with it


def main() -> None:
    """Serves the launcher until it says that the host is released, or is gone."""
    descriptor, launcher = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(launcher)
    os.set_inheritable(descriptor, False)
    with socket.socket(fileno=descriptor) as connection:
        orders = _orders(connection)
        first = next(orders, None)
        if first is None:
            return
        sender = _Sender(connection)
        with _agent(first, sender) as agent:
            # A Python handler runs on this thread, which waits for orders and is free to.
            signal.signal(signal.SIGTERM, lambda *_: agent.drain(first["notice_s"]))
            sender.event(HostJoined(time.monotonic(), first["host"], len(first["shares"])))
            for order in orders:
                if order["type"] == "release":
                    break
                _order(agent, order)
        sender.close()


def _agent(begin: dict[str, Any], sender: _Sender) -> Agent:
    return Agent(
        begin["host"],
        WorkerProgram(tuple(begin["command"]), begin["environment"], begin["folder"]),
        Path(begin["logs"]),
        sender.event,
        shares=[
            Share(share["threads"], None if share["devices"] is None else tuple(share["devices"]))
            for share in begin["shares"]
        ],
        address=begin["address"],
        on_output=sender.output,
    )


def _orders(connection: socket.socket):
    """What the launcher wants, until it is gone."""
    reader = MessageReader()
    while data := connection.recv(1 << 16):
        for message in reader.feed(data):
            if isinstance(message, BadMessage):
                raise message
            yield message


def _order(agent: Agent, order: dict[str, Any]) -> None:
    worker = order["worker"]
    known: dict[str, Callable[[], object]] = {
        "start": lambda: agent.start(worker),
        "form": lambda: agent.form(worker, Assignment.from_json(order["assignment"])),
        "stop": lambda: agent.stop(worker, order["reason"]),
        "kill": lambda: agent.kill(worker, order["reason"]),
        "dump_stacks": lambda: agent.dump_stacks(worker),
        "profile": lambda: agent.profile(worker, order["steps"]),
    }
    known[order["type"]]()


if __name__ == "__main__":
    main()
