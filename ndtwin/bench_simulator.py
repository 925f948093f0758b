"""How fast the packet simulator is: packet-hops a second on one core, NSFNET and 100 generated nodes."""

from __future__ import annotations

import time

from twin.simulator import PacketSizes, Simulator
from twin.topologies import nsfnet, power_law
from twin.topology import Topology
from twin.traffic import lab_scenario, path_flows

SIZES = PacketSizes.bimodal(2400, 13600)  # 300 and 1,700 octets, half each


def bench_simulator(seconds: float = 3.0) -> dict[str, float]:
    """``packet_hops_per_s`` (NSFNET), the same at 100 nodes, the time to compile the simulator or load it."""
    began = time.perf_counter()
    small = _simulator(nsfnet())
    small.advance(0.001)
    ready_s = time.perf_counter() - began
    return {
        "packet_hops_per_s": _rate(small, seconds),
        "packet_hops_per_s_100_nodes": _rate(_simulator(power_law(100, seed=1)), seconds),
        "first_run_s": ready_s,
    }


def _simulator(topology: Topology) -> Simulator:
    network, traffic = lab_scenario(topology, seed=1)
    return Simulator(network, path_flows(network, traffic, SIZES), seed=1)


def _rate(simulator: Simulator, seconds: float) -> float:
    """Packet-hops a second of wall clock over so many seconds, the warm-up left out."""
    simulator.advance(1.0)
    hops, began = simulator.packet_hops, time.perf_counter()
    while (elapsed_s := time.perf_counter() - began) < seconds:
        simulator.advance(simulator.now_s + 1.0)
    return (simulator.packet_hops - hops) / elapsed_s
