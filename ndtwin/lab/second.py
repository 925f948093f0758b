"""What one second of the simulator looked like, and the probes' statistics over the seconds of one period."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ndtwin.lab.device import OneWay
from twin.network import Floats, Ints, Network
from twin.simulator import FlowDelays, Simulator


@dataclass(frozen=True)
class Second:
    """[start, end) of wall-clock time; all arrays over flows, [F]."""

    start_ns: int
    end_ns: int
    sent_packets: Ints
    sent_octets: Ints
    delays: FlowDelays
    routed: Network  # the routing in force at its end


class Deltas:
    """Cumulative counters of a simulator → what they grew by since the last call."""

    def __init__(self, simulator: Simulator) -> None:
        self._counters = (simulator.sent_packets, simulator.sent_octets, simulator.lost_packets)
        self._before = [counter.copy() for counter in self._counters]

    def take(self) -> tuple[Ints, Ints, Ints]:
        """Packets sent, octets sent, packets lost, [F] each."""
        now = [counter.copy() for counter in self._counters]
        packets, octets, lost = (after - before for after, before in zip(now, self._before, strict=True))
        self._before = now
        return packets, octets, lost


@dataclass
class Period:
    """Delays and losses of some flows gathered over several seconds."""

    flows: slice
    seconds: int = 0
    count: Ints = field(init=False)
    total_s: Floats = field(init=False)
    squares_s2: Floats = field(init=False)
    min_s: Floats = field(init=False)
    max_s: Floats = field(init=False)
    lost: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin a new period."""
        size = self.flows.stop - self.flows.start
        self.seconds = 0
        self.count, self.lost = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        self.total_s, self.squares_s2 = np.zeros(size), np.zeros(size)
        self.min_s, self.max_s = np.full(size, np.inf), np.zeros(size)

    def add(self, delays: FlowDelays, lost: Ints) -> None:
        """One second more."""
        part = self.flows
        count, mean, std = delays.count[part], delays.mean_s[part], delays.std_s[part]
        self.seconds += 1
        self.count += count
        self.lost += lost[part]
        self.total_s += count * mean
        self.squares_s2 += count * (mean**2 + std**2)
        self.min_s = np.where(count > 0, np.minimum(self.min_s, delays.min_s[part]), self.min_s)
        self.max_s = np.maximum(self.max_s, delays.max_s[part])

    def one_way(self, i: int, scale: float = 1.0) -> OneWay:
        """The statistics of the i-th flow; ``scale`` is what a lying probe multiplies its figures by."""
        received, lost = int(self.count[i]), int(self.lost[i])
        if not received:
            return OneWay(sent=lost, received=0)
        mean_s = float(self.total_s[i]) / received
        variance_s2 = max(0.0, float(self.squares_s2[i]) / received - mean_s**2)
        figures = (mean_s, float(self.min_s[i]), float(self.max_s[i]), variance_s2**0.5)
        return OneWay(received + lost, received, *(scale * figure for figure in figures))
