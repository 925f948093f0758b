"""The flows of the lab's simulator and what they stand for.

Three groups, each over all ordered pairs of nodes in the canonical path order
(:class:`twin.network.Network`), one after the other: customers' **traffic**, the **probes** of the RTTMON
operations, and **hidden** traffic, which is silent until a fault gives it a rate and which no flow record
ever shows. The index of a flow tells its group and path.
"""

from __future__ import annotations

from dataclasses import dataclass

from twin.network import Ints, Network
from twin.workload import Flow, PacketSizes


@dataclass(frozen=True)
class FlowPlan:
    """Which flow is what. P paths, 3 · P flows."""

    network: Network
    traffic: tuple[Flow, ...]
    probe_pps: float
    probe_bits: float

    @property
    def paths(self) -> int:
        """P."""
        return self.network.path_count

    def flows(self) -> list[Flow]:
        """All flows for the simulator; hidden ones look like the traffic of their path."""
        sizes = PacketSizes.fixed(self.probe_bits)
        probes = [Flow(f.source, f.destination, self.probe_pps, sizes) for f in self.traffic]
        hidden = [Flow(f.source, f.destination, 0.0, f.sizes) for f in self.traffic]
        return [*self.traffic, *probes, *hidden]

    def traffic_slice(self) -> slice:
        """Customers' traffic."""
        return slice(0, self.paths)

    def probe_slice(self) -> slice:
        """Probes."""
        return slice(self.paths, 2 * self.paths)

    def probe(self, path: int) -> int:
        """The probe flow of a path."""
        return self.paths + path

    def hidden(self, path: int) -> int:
        """The hidden flow of a path."""
        return 2 * self.paths + path

    def mean_packet_bits(self, path: int) -> float:
        """Of the traffic, and so of the hidden traffic, of a path."""
        return self.traffic[path].sizes.mean_bits

    def ends(self) -> tuple[Ints, Ints]:
        """Source and destination node of every path, [P] each."""
        return self.network.ends
