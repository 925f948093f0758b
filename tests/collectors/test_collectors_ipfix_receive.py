"""Receiving many datagrams at once: the same datagrams, lengths and senders as one by one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random

import pytest
from ipfix_bytes import message

from collectors import receive
from collectors.flows.burst import Burst
from collectors.flows.decoder import Exporter
from collectors.receive import SLOTS, OneByOne, Receiver, Together, open_socket, receiver_of


def _together(sock: socket.socket) -> Receiver:
    function = receive._recvmmsg()
    if function is None:
        pytest.skip("the C library has no recvmmsg")
    return Together(sock, function)


RECEIVERS = pytest.mark.parametrize("make", [_together, OneByOne])
Make = Callable[[socket.socket], Receiver]


@pytest.fixture(params=["127.0.0.1", "::1", "::"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, tuple[str, int], ExitStack]]:
    """A socket that listens, where to send to, and what closes senders."""
    host = str(request.param)
    try:
        sock = open_socket((host, 0))
    except OSError:
        pytest.skip(f"no socket on {host}")
    with sock, ExitStack() as senders:
        # Over the socket for both families come IPv4 addresses too.
        yield sock, ("127.0.0.1" if host == "::" else host, sock.getsockname()[1]), senders


def _sender(to: tuple[str, int], senders: ExitStack) -> socket.socket:
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    sock = senders.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    sock.bind((to[0], 0))
    sock.connect(to)
    return sock


def _content(burst: Burst) -> list[tuple[Exporter, bytes]]:
    return [(burst.sender(k), bytes(burst.datagram(k))) for k in range(len(burst))]


@RECEIVERS
def test_what_was_sent_comes_in_order_with_its_sender(
    pair: tuple[socket.socket, tuple[str, int], ExitStack], make: Make
) -> None:
    """Of several senders, of all lengths from none to the most that UDP has, in more than one burst."""
    sock, to, senders = pair
    random, exporters = Random(1), [_sender(to, senders) for _ in range(5)]
    receiver, sent, found = make(sock), [], []  # type: ignore[var-annotated]  # filled below
    for length in [0, 1, 65_507, *(random.randrange(1500) for _ in range(200)), 40_000]:
        sender, datagram = random.choice(exporters), random.randbytes(length)
        sender.send(datagram)
        sent.append(((to[0], sender.getsockname()[1]), datagram))
        if len(sent) % 70 == 0:
            found += _content(receiver.receive())
    found += _content(receiver.receive())
    assert found == sent


@RECEIVERS
def test_a_socket_without_datagrams_gives_none(make: Make) -> None:
    """Not an error: another process that shares the port may have been quicker."""
    with open_socket(("127.0.0.1", 0)) as sock:
        assert len(make(sock).receive()) == 0


@RECEIVERS
def test_a_burst_is_as_large_as_there_are_slots(make: Make) -> None:
    """What is more comes with the next one."""
    with open_socket(("127.0.0.1", 0)) as sock, socket.socket(type=socket.SOCK_DGRAM) as sender:
        for i in range(SLOTS + 3):
            sender.sendto(i.to_bytes(2, "big"), sock.getsockname())
        receiver = make(sock)
        first, second = _content(receiver.receive()), _content(receiver.receive())
    assert [int.from_bytes(datagram, "big") for _, datagram in first] == list(range(SLOTS))
    assert [int.from_bytes(datagram, "big") for _, datagram in second] == list(range(SLOTS, SLOTS + 3))


@RECEIVERS
def test_a_socket_that_was_closed_is_an_error(make: Make) -> None:
    """Not silence without end."""
    sock = open_socket(("127.0.0.1", 0))
    receiver = make(sock)
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        receiver.receive()


def test_peers_that_come_and_go_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends from ever new ports costs no memory."""
    monkeypatch.setattr(receive, "_MAX_PEERS", 10)
    with open_socket(("127.0.0.1", 0)) as sock:
        receiver = _together(sock)
        for _ in range(50):
            with socket.socket(type=socket.SOCK_DGRAM) as sender:
                sender.sendto(message(), sock.getsockname())
            assert len(receiver.receive()) == 1
    assert isinstance(receiver, Together)
    assert len(receiver._peers) <= 10


def test_linux_receives_together() -> None:
    """Where the C library can, the quick one is taken."""
    with open_socket(("127.0.0.1", 0)) as sock:
        quick = receive._recvmmsg() is not None
        assert isinstance(receiver_of(sock), Together if quick else OneByOne)
