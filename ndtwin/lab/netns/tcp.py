"""TCP among the customers' traffic: one stream from every router's customers to the next router's.

Every second a stream is given some bytes; TCP decides when they travel. A stream that breaks is opened again.
"""

from __future__ import annotations

import contextlib
import socket

from collectors.stamp.sockets import within
from ndtwin.lab.netns.plan import STREAM_PORT, Router

OCTETS_PER_TURN = 2_500  # a second: 20 kbit/s
_READ = 65_536


class Stream:
    """Both ends of one stream; :meth:`turn` once a second."""

    def __init__(self, near: Router, far: Router) -> None:
        self._near, self._where = near, (str(far.sink.ip), STREAM_PORT)
        with within(far.host_space):
            self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setblocking(False)
        self._listener.bind(self._where)
        self._listener.listen(4)
        self._sender: socket.socket | None = None
        self._receivers: list[socket.socket] = []

    def turn(self) -> None:
        """Accept, read, send."""
        with contextlib.suppress(BlockingIOError):
            accepted, _ = self._listener.accept()
            accepted.setblocking(False)
            self._receivers.append(accepted)
        self._receivers = [one for one in self._receivers if _drain(one)]
        if self._sender is None:
            self._sender = self._connect()
        try:
            self._sender.send(bytes(OCTETS_PER_TURN))
        except BlockingIOError:
            return  # its buffer is full: TCP waits for room in the network
        except OSError:
            self._sender.close()
            self._sender = None

    def _connect(self) -> socket.socket:
        with within(self._near.host_space):
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        made.bind((str(self._near.host.ip), 0))
        made.connect_ex(self._where)  # what comes of it is seen when something is sent
        return made

    def close(self) -> None:
        """Close all ends."""
        for one in (self._listener, self._sender, *self._receivers):
            if one is not None:
                one.close()


def _drain(receiver: socket.socket) -> bool:
    """Read what came; False, and closed, when the stream has ended."""
    try:
        while receiver.recv(_READ):
            continue
    except BlockingIOError:
        return True
    except OSError:
        pass  # reset, or no way there any more: the lab's faults do that, and turn() connects anew
    receiver.close()
    return False
