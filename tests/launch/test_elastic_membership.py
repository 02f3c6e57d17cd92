"""A worker that hears wrong data, between its agent and its peers."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.assignment import Assignment, Member
from cluster.message_lines import MessageReader, encode
from cluster.process_group import Endpoint, GroupAborted, ProcessGroup
from cluster.worker_link import WorkerLink
from launch import elastic_membership
from launch.elastic_membership import ElasticMembership
from launch.host_memory import HostMemory

KEY = b"of the run"


@pytest.fixture
def agent() -> Iterator[tuple[socket.socket, WorkerLink]]:
    """An agent's end of a link, and the worker's."""
    end, workers = socket.socketpair()
    end.settimeout(20.0)
    link = WorkerLink(workers, name="w1")
    yield end, link
    link.close()
    end.close()


def accusations(end: socket.socket, number: int) -> list[dict]:
    """The next ones that the worker makes."""
    reader, found = MessageReader(), []
    while len(found) < number:
        found += [message for message in reader.feed(end.recv(1 << 16)) if message["type"] == "accusation"]  # type: ignore[index]
    return found


def test_wrong_data_is_reported_until_the_next_group_is_ordered(agent, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(elastic_membership, "_ACCUSE_AGAIN_S", 0.05)
    end, link = agent
    with contextlib.ExitStack() as stack:
        own, bad, good = (stack.enter_context(Endpoint(name, "127.0.0.1", KEY, None)) for name in ("w1", "w2", "w3"))

        def form(generation: int, peer: Endpoint) -> ProcessGroup:
            """Orders a group; the peer's view of it."""
            members = (Member("w1", "a", 0, own.address), Member(peer.worker, "b", 1, peer.address))
            assignment = Assignment(generation, 0, members, None)
            end.sendall(encode({"type": "form", "assignment": assignment.to_json()}))
            return peer.join(members, 1, generation, 20.0)

        membership = ElasticMembership(link, own, HostMemory(tmp_path))
        link.on_form = membership.ordered
        faults: list[Exception] = []

        def work() -> None:
            for _ in range(2):
                collective = membership.join().collective
                try:
                    collective.reduction([range(1), range(1, 2)], 2, 8, "float32")
                except GroupAborted as fault:  # what a training catches, and then joins again
                    faults.append(fault)

        worker = threading.Thread(target=work)
        worker.start()
        form(1, bad).all_gather(b"no JSON")
        first, again = accusations(end, 2)
        assert first == again
        assert (first["generation"], first["accused"]) == (1, "w2") and "not JSON" in first["what"]
        form(2, good).reduction([range(1), range(1, 2)], 2, 8, "float32")
        worker.join(20.0)
        assert not worker.is_alive() and len(faults) == 1 and "worker w2 on host b" in str(faults[0])
