"""A worker between its agent and its peers: groups that somebody joins, and wrong data."""

import contextlib
import queue
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
PATIENCE_S = 120.0


@pytest.fixture
def agent() -> Iterator[tuple[socket.socket, WorkerLink]]:
    """An agent's end of a link, and the worker's."""
    end, workers = socket.socketpair()
    end.settimeout(PATIENCE_S)
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


class Crew:
    """A worker w1 with the orders that it gets, and its peers' endpoints."""

    def __init__(self, agent: tuple[socket.socket, WorkerLink], folder: Path, stack: contextlib.ExitStack) -> None:
        self.end, link = agent
        self.endpoints = [stack.enter_context(Endpoint(name, "127.0.0.1", KEY, None)) for name in ("w1", "w2", "w3")]
        self.membership = ElasticMembership(link, self.endpoints[0], HostMemory(folder))
        link.on_form = self.membership.ordered
        self.pool = stack.enter_context(ThreadPoolExecutor(4))

    def order(self, generation: int, size: int) -> tuple[Member, ...]:
        """Orders w1 into a group with others, whose names and places stay as they are."""
        members = tuple(Member(one.worker, "a", rank, one.address) for rank, one in enumerate(self.endpoints[:size]))
        assignment = Assignment(generation, 0, members, None)
        self.end.sendall(encode({"type": "form", "assignment": assignment.to_json()}))
        return members

    def join(self, generation: int, members: tuple[Member, ...], rank: int) -> Future[ProcessGroup]:
        """Has a peer become a member."""
        return self.pool.submit(self.endpoints[rank].join, members, rank, generation, PATIENCE_S)


@pytest.fixture
def crew(agent, tmp_path: Path) -> Iterator[Crew]:
    with contextlib.ExitStack() as stack:
        yield Crew(agent, tmp_path, stack)


def test_a_group_that_only_grows_is_formed_beside_the_last_one(crew: Crew) -> None:
    prepared: queue.Queue[bool] = queue.Queue()
    crew.membership.prepare = lambda joined, goes_on: prepared.put(goes_on) or True
    other = crew.join(1, crew.order(1, 2), 1)
    small = crew.membership.join().collective
    assert not prepared.get(timeout=PATIENCE_S)
    peer = other.result(PATIENCE_S)
    members = crew.order(2, 3)
    newcomer, beside = crew.join(2, members, 2), crew.pool.submit(crew.endpoints[1].form, members, 1, 2, PATIENCE_S)
    assert prepared.get(timeout=PATIENCE_S), "on another thread, while the last group is there"
    heard = crew.pool.submit(peer.all_gather, b"two")
    assert small.all_gather(b"one") == heard.result(PATIENCE_S) == [b"one", b"two"]
    large = crew.membership.join().collective
    assert large.size == 3 and crew.membership.assignment.generation == 2
    heard = [crew.pool.submit(group.result(PATIENCE_S).all_gather, b"") for group in (beside, newcomer)]
    assert large.all_gather(b"x") == heard[0].result(PATIENCE_S) == heard[1].result(PATIENCE_S)
    with pytest.raises(GroupAborted):
        small.all_gather(b"one")


@pytest.mark.parametrize("reason", ["another has left it", "this one takes no more steps"])
def test_a_group_ends_where_not_all_go_on_until_the_next_one_is_there(crew: Crew, reason: str) -> None:
    crew.membership.prepare = lambda joined, goes_on: reason != "another has left it"
    other = crew.join(1, crew.order(1, 2), 1)
    small = crew.membership.join().collective
    other.result(PATIENCE_S)
    members = crew.order(2, 3)
    others = [crew.join(2, members, rank) for rank in (1, 2)]
    if reason != "another has left it":
        crew.membership.leave()
    with pytest.raises(GroupAborted):
        small.wait_for_end()
    assert crew.membership.join().collective.size == 3
    assert [group.result(PATIENCE_S).size for group in others] == [3, 3]


def test_wrong_data_in_a_group_is_reported_in_the_one_that_is_formed_beside_it(crew: Crew) -> None:
    prepared: queue.Queue[bool] = queue.Queue()
    crew.membership.prepare = lambda joined, goes_on: prepared.put(goes_on) or True
    other = crew.join(1, crew.order(1, 2), 1)
    small = crew.membership.join().collective
    peer = other.result(PATIENCE_S)
    members = crew.order(2, 3)
    beside = crew.pool.submit(crew.endpoints[1].form, members, 1, 2, PATIENCE_S)
    newcomer = crew.join(2, members, 2)
    while not prepared.get(timeout=PATIENCE_S):
        pass
    nonsense = crew.pool.submit(peer.all_gather, b"no JSON")
    with pytest.raises(GroupAborted, match="not JSON"):
        small.reduction([range(1), range(1, 2)], 2, 8, "float32")
    joining = crew.pool.submit(crew.membership.join)
    [accusation] = accusations(crew.end, 1)
    assert (accusation["generation"], accusation["accused"]) == (2, "w2"), "the older one would not be heard"
    assert nonsense.result(PATIENCE_S) and beside.result(PATIENCE_S) and newcomer.result(PATIENCE_S)
    last = crew.join(3, crew.order(3, 2), 1)
    assert joining.result(PATIENCE_S).collective.size == last.result(PATIENCE_S).size == 2
