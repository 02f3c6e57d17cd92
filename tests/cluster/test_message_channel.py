import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from cluster.message_channel import MessageChannel
from cluster.message_lines import encode
from tests.cluster.agent_workers import LIMIT_S, wait_until


class Ear:
    """One end that remembers what it hears."""

    def __init__(self, connection: socket.socket, **settings: float) -> None:
        self.messages: list[dict] = []
        self.silences: list[float] = []
        self.end: str | None = None
        self.ended = threading.Event()
        self.channel = MessageChannel(
            connection, self.messages.append, self._end, on_silence=self.silences.append, **settings
        )
        self.channel.begin()

    def _end(self, end: str) -> None:
        self.end = end
        self.ended.set()

    def how_it_ended(self) -> str | None:
        assert self.ended.wait(LIMIT_S)
        return self.end


@pytest.fixture
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    yield near, far
    near.close()
    far.close()


def test_messages_arrive_both_ways_in_their_order(tcp):
    one, other = map(Ear, tcp)
    for number in range(1000):
        one.channel.send({"type": "a", "number": number})
        other.channel.send({"type": "b", "number": number})
    wait_until(lambda: len(one.messages) == len(other.messages) == 1000)
    assert [message["number"] for message in other.messages] == list(range(1000))
    assert all(message["type"] == "b" for message in one.messages), "pulses are not for the owner"
    one.channel.close()
    assert (one.how_it_ended(), other.how_it_ended()) == ("left", "closed")


def test_what_waits_is_delivered_before_a_channel_is_closed(tcp):
    one, other = map(Ear, tcp)
    text = "x" * 100_000
    for _ in range(100):
        one.channel.send({"type": "a", "text": text})
    one.channel.close()
    assert other.how_it_ended() == "closed"
    assert len(other.messages) == 100


def test_a_reset_connection_is_not_taken_for_a_closed_one(tcp):
    near, far = tcp
    one = Ear(near)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    assert one.how_it_ended() == "broken"


def test_a_line_that_is_no_message_breaks_the_channel(tcp):
    near, far = tcp
    one = Ear(near)
    far.sendall(b"GET / HTTP/1.1\n")
    assert one.how_it_ended() == "broken"


def test_silence_is_told_until_the_channel_is_cut(tcp):
    near, _ = tcp
    one = Ear(near, silent_s=0.1, pulse_s=0.02)
    wait_until(lambda: len(one.silences) >= 3)
    assert one.silences == sorted(one.silences) and one.silences[0] > 0.1
    one.channel.cut()
    assert one.how_it_ended() == "left"


def test_pulses_are_signs_of_life(tcp):
    near, far = tcp
    one, _ = Ear(near, silent_s=1.5), Ear(far, pulse_s=0.02)
    threading.Event().wait(1.7)  # longer than the silence that would be told
    assert not one.silences


def test_an_end_that_does_not_read_costs_only_what_nobody_misses(tcp):
    near, far = tcp
    one = Ear(near)
    sent = dropped = 0
    while not dropped:
        taken = one.channel.send_if_room({"type": "output", "text": "x" * 10_000})
        sent, dropped = sent + taken, dropped + (not taken)
        assert sent < 5000
    one.channel.send({"type": "event"})
    far.settimeout(LIMIT_S)
    received = b""
    while not received.endswith(encode({"type": "event"})):
        received += far.recv(1 << 20)
    assert received.count(b'"output"') == sent
