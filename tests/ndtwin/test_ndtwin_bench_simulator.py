"""The simulator's bench."""

from __future__ import annotations

from ndtwin.bench_simulator import bench_simulator


def test_the_bench_measures_millions_of_packet_hops_a_second() -> None:
    """Even on a busy machine one core makes over a million packet-hops a second, at 14 and at 100 nodes."""
    figures = bench_simulator(seconds=0.3)
    assert figures["packet_hops_per_s"] > 1e6
    assert figures["packet_hops_per_s_100_nodes"] > 1e6
    assert 0 < figures["first_run_s"] < 60
