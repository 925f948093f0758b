"""The customers: a thread that sends real packets between them at bounded rates.

Each path has several UDP flows (ports), and its packets come at random (Poisson), all of one size. What
arrives is thrown away by a socket that nobody reads. Beside that a TCP stream runs from every router's
customers to the next router's, at a rate of its own. The thread wakes every millisecond and sends what
is due. What a busy machine made it miss is sent late, but never more than ``MOST_BEHIND_S`` of it: what is
late goes at once, and a burst that no customer meant would make all queues of the network long together.

Hidden traffic starts and ends at routers, so no exporter sees it.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from collectors.stamp.sockets import within
from ndtwin.lab.netns.plan import DISCARD_PORT, SIZES, Plan
from ndtwin.lab.netns.tcp import Stream
from twin.network import Floats

FLOWS = 4  # UDP flows of a path
TICK_S = 0.001  # well below the time that a queue needs for a packet: what is due at once comes as a burst
MOST_BEHIND_S = 0.02  # at a load of one half 10 ms of a queue
MOST_PPS = 20_000.0  # of all paths together, whatever faults ask for
_HEADERS = 28  # IP and UDP
_SMALLEST_BUFFER = 4096
_PAYLOADS = tuple(bytes(bits // 8 - _HEADERS) for bits in SIZES.bits)


def due(away_s: float) -> tuple[float, float]:
    """For how many seconds packets are sent after so many without, and how many are left out."""
    return min(away_s, MOST_BEHIND_S), max(away_s - MOST_BEHIND_S, 0.0)


@dataclass
class Source:
    """A sender: sockets by source port, and where the packets of a path go."""

    sockets: list[socket.socket] = field(default_factory=list)

    def send(self, payload: bytes, where: tuple[str, int], flow: int) -> None:
        """Send; a full queue or a route that is gone loses the packet, as a customer's."""
        with contextlib.suppress(OSError):
            self.sockets[flow % len(self.sockets)].sendto(payload, where)


class Generator(threading.Thread):
    """See the module's docstring."""

    def __init__(self, plan: Plan, multipliers: Callable[[float], Floats], seed: int, *, tcp: bool) -> None:
        super().__init__(name="lab-traffic", daemon=True)
        self._plan, self._multipliers, self._tcp = plan, multipliers, tcp
        self._random = random.Random(seed)
        self._hidden = np.zeros(plan.network.path_count)
        self._stopping = threading.Event()
        self._open: list[socket.socket] = []
        self._customers = [Source() for _ in plan.routers]
        self._inner = [Source() for _ in plan.routers]
        self._streams: list[Stream] = []
        self.failure: BaseException | None = None
        self.sent = 0
        self.late_s = 0.0  # what was left out because the thread came too late

    def open(self) -> None:
        """Sockets in all namespaces."""
        for router, customers, inner in zip(self._plan.routers, self._customers, self._inner, strict=True):
            with within(router.host_space):
                customers.sockets = [self._udp(str(router.host.ip), 0) for _ in range(FLOWS)]
                self._udp(str(router.sink.ip), DISCARD_PORT)
            with within(router.space):
                inner.sockets = [self._udp(str(router.router_id), 0)]
                self._udp(str(router.router_id), DISCARD_PORT)
        if self._tcp:
            routers = self._plan.routers
            self._streams = [Stream(near, far) for near, far in pairwise((*routers, routers[0]))]

    def _udp(self, address: str, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._open.append(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALLEST_BUFFER)
        made.setblocking(False)
        made.bind((address, port))
        return made

    def offered_bps(self) -> Floats:
        """What customers offer on every path now, [P]."""
        bps: Floats = self._plan.traffic.bps * self._multipliers(time.monotonic())
        return bps

    def hide(self, path: int, bps: float) -> None:
        """Traffic between two routers that no flow record shows."""
        self._hidden[path] = bps / SIZES.mean_bits

    def stop(self) -> None:
        """End the thread and close everything."""
        self._stopping.set()
        if self.is_alive():
            self.join()
        for stream in self._streams:
            stream.close()
        for made in self._open:
            made.close()

    def run(self) -> None:
        """The thread."""
        try:
            self._play()
        except Exception as error:
            self.failure = error
            raise

    def _play(self) -> None:
        now_s = time.monotonic()
        done_s, second = now_s, 0.0
        rates = self._rates(now_s)
        while not self._stopping.wait(TICK_S):
            now_s = time.monotonic()
            if now_s - second >= 1.0:
                rates, second = self._rates(now_s), now_s
                for stream in self._streams:
                    stream.turn()
            due_s, left_out_s = due(now_s - done_s)
            self.late_s += left_out_s
            self._send_due(rates, due_s)
            done_s = now_s

    def _rates(self, now_s: float) -> Floats:
        """Packets a second, [2P]: customers', then hidden."""
        pps = np.concatenate([self._plan.traffic.pps * self._multipliers(now_s), self._hidden])
        bounded: Floats = pps * min(1.0, MOST_PPS / max(pps.sum(), 1.0))
        return bounded

    def _send_due(self, rates: Floats, seconds: float) -> None:
        """So many packets in so many seconds: Poisson, each of a path drawn by its rate."""
        total = float(rates.sum()) * seconds
        count = int(np.random.default_rng(self._random.getrandbits(64)).poisson(total))
        if not count:
            return
        for index in self._random.choices(range(len(rates)), weights=rates.tolist(), k=count):
            self._send(index)

    def _send(self, index: int) -> None:
        hidden, path = divmod(index, len(self._hidden))
        source, target = self._plan.network.path_ends(path)
        payload = self._random.choices(_PAYLOADS, SIZES.probabilities)[0]
        far = self._plan.routers[target]
        address = str(far.router_id) if hidden else str(far.sink.ip)
        sender = (self._inner if hidden else self._customers)[source]
        sender.send(payload, (address, DISCARD_PORT), self._random.randrange(FLOWS))
        self.sent += 1
