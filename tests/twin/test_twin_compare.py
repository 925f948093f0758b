"""Predictions and measurements meet on equal terms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from twin.compare import comparable_mean_s, reverse_paths
from twin.network import Link, Network, Traffic


@dataclass(frozen=True)
class Probes:
    """How something was measured."""

    direction: str = "one-way"
    packet_bits: float | None = None


def pair(*, back: bool = True) -> Network:
    """Two nodes, 1 Mbit/s there and 2 Mbit/s back."""
    links = (Link("a", "b", 1e6), Link("b", "a", 2e6, up=back))
    return Network(nodes=("a", "b"), links=links, next_link=np.array([[-1, 0], [1, -1]], dtype=np.int16))


TRAFFIC = Traffic(bps=np.array([4e5, 0.0]), pps=np.array([100.0, 0.0]))  # 4,000-bit packets
PREDICTED_S = np.array([0.010, 0.020])


@pytest.mark.parametrize(
    ("probes", "expected_s"),
    [
        (Probes(), (0.010, 0.020)),
        (Probes(packet_bits=1_000), (0.010 - 0.003, 0.020 - 0.0015)),
        (Probes(packet_bits=12_000), (0.010 + 0.008, 0.020 + 0.004)),
        (Probes("round-trip"), (0.030, 0.030)),
        (Probes("round-trip", 1_000), (0.030 - 0.0045, 0.030 - 0.0045)),
    ],
    ids=["own traffic", "small probes", "large probes", "round trip", "small round trip"],
)
def test_size_and_direction_are_corrected(probes: Probes, expected_s: tuple[float, float]) -> None:
    """Probe size changes the transmission only, and a round trip is the sum of both ways."""
    comparable = comparable_mean_s(pair(), TRAFFIC, PREDICTED_S, probes)
    assert comparable == pytest.approx(np.array(expected_s))


def test_no_way_back_means_nothing_to_compare() -> None:
    """A round trip needs both ways; one-way keeps the way that is there."""
    network = pair(back=False)
    assert comparable_mean_s(network, TRAFFIC, PREDICTED_S, Probes("round-trip")).tolist() == [0, 0]
    assert comparable_mean_s(network, TRAFFIC, PREDICTED_S, Probes()).tolist() == [0.010, 0]


def test_reverse_paths_agree_with_the_network() -> None:
    """The reverse of path k runs between the same two nodes the other way, for every k."""
    nodes = tuple("abcde")
    network = Network(nodes=nodes, links=(), next_link=np.full((5, 5), -1, dtype=np.int16))
    back = reverse_paths(5)
    for path in range(network.path_count):
        assert network.path_ends(int(back[path])) == network.path_ends(path)[::-1]


def test_inputs_are_left_alone() -> None:
    """The caller's prediction is not changed."""
    predicted = PREDICTED_S.copy()
    comparable_mean_s(pair(), TRAFFIC, predicted, Probes("round-trip", 1_000))
    assert (predicted == PREDICTED_S).all()
