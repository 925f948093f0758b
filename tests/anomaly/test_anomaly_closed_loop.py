"""The whole loop without Kafka, on the lab's network and traffic: quiet stays quiet, faults are named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import closed_loop
import msgspec
import numpy as np
import pytest
from closed_loop import (
    FAULTS,
    WINDOW_S,
    Loop,
    drill,
    hidden_traffic,
    lab_world,
    link_capacity,
    lying_probe,
    slow_node,
    state_update,
    wrong_route,
)

from twin.packing import pack_integers, pack_magnitudes
from twin.records import QueuePlane, StateUpdate

SMALL_S = 5e-4


def test_two_hundred_quiet_windows_raise_no_alert() -> None:
    """Daily cycle, tides and surges, 33 minutes of them: nothing fires."""
    loop = Loop(lab_world(11))
    fired = [alert for alert in loop.windows(200) if alert.state == "firing"]
    assert fired == []
    assert loop.processor.unreadable == 0


@pytest.mark.parametrize(
    ("kind", "magnitude", "link", "seed", "within_s"),
    [
        ("link-delay", 0.01, "PA->NY", 1, 0.0),
        ("link-delay", 0.003, "CA1->WA", 2, 7.0),
        ("link-capacity", 0.5, "PA->NY", 1, 4.0),
        ("link-capacity", 0.5, "TX->GA", 3, 0.0),
        ("link-capacity", 0.4, "IL->PA", 2, 8.0),
    ],
)
def test_a_sick_link_is_told_named_and_let_go(
    kind: str, magnitude: float, link: str, seed: int, within_s: float
) -> None:
    """Within three windows, the link first or second, resolved within four of clearing, no other alert."""
    loop = Loop(lab_world(seed))
    index = loop.world.network.link_names.index(link)
    result = drill(loop, link, FAULTS[kind](index, magnitude), within_s=within_s)
    assert result.passed, result


def test_a_small_rise_that_lasts_is_told_in_the_end() -> None:
    """Half a millisecond, less than one packet's transmission: told within eight windows."""
    loop = Loop(lab_world(4))
    index = loop.world.network.link_names.index("PA->NY")
    result = drill(loop, "PA->NY", FAULTS["link-delay"](index, SMALL_S), warm=20, sick=10)
    assert result.windows_to_detect is not None, result
    assert result.windows_to_detect <= 8
    assert (result.rank, result.other_alerts) == (1, 0)


def test_a_slow_node_is_named() -> None:
    """5 ms on all a node sends: the node, not its links."""
    loop = Loop(lab_world(1))
    result = drill(loop, "DC", slow_node(loop.world.network.node_index["DC"], 0.005), within_s=3.0)
    assert result.passed, result
    assert (result.rank, result.hypothesis) == (1, "slow-node")


def test_the_classes_that_a_sick_link_drops_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the device tells of its class queues, worst first; no other link's evidence speaks of them."""
    loop = Loop(lab_world(1))
    link = loop.world.network.link_names.index("PA->NY")
    plane = QueuePlane(
        classes=("bulk", "gold", "voice"),
        link=pack_integers(np.full(3, link, np.int16)),
        name=pack_integers(np.arange(3, dtype=np.int16)),
        sent_bps=pack_magnitudes(np.full(3, 1e6)),
        drops_pps=pack_magnitudes(np.array([2.0, 40.0, 0.0])),
        depth_octets=pack_magnitudes(np.zeros(3)),
    )

    def with_queues(*parts: Any, **more: Any) -> StateUpdate:
        return msgspec.structs.replace(state_update(*parts, **more), queues=plane)

    monkeypatch.setattr(closed_loop, "state_update", with_queues)
    inject, _ = link_capacity(link, 0.5)
    loop.world.due = [((loop.world.window + 8) * WINDOW_S, inject)]
    suspects = [s for alert in loop.windows(14) if alert.state == "firing" for s in alert.suspects]
    told = {s.target for s in suspects if "drops by class: gold 40/s, bulk 2/s" in s.evidence}
    assert told == {"PA->NY"}
    assert {s.target for s in suspects if "drops by class" in s.evidence} == told


def test_a_lying_probe_is_not_blamed_on_the_network() -> None:
    """A device that doubles what its probes measure is named as an instrument (law 5)."""
    loop = Loop(lab_world(1))
    result = drill(loop, "DC", lying_probe(loop.world.network.node_index["DC"], 2.0), within_s=3.0)
    assert result.passed, result
    assert (result.rank, result.hypothesis) == (1, "lying-probe")


def test_hidden_traffic_is_told_by_the_counters() -> None:
    """40 % of a link's capacity that no flow record shows."""
    loop = Loop(lab_world(1))
    result = drill(loop, "PA->NY", hidden_traffic(loop.world.network.link_names.index("PA->NY"), 0.4))
    assert result.passed, result
    assert (result.rank, result.hypothesis) == (1, "hidden-traffic")


def test_a_wrong_route_is_named_by_its_path() -> None:
    """One source sends one destination's packets by another way."""
    loop = Loop(lab_world(1))
    network = loop.world.network
    target = "GA->CA2"
    result = drill(loop, target, wrong_route(network, network.path_index("GA", "CA2")))
    assert result.passed, result
    assert result.hypothesis == "wrong-route"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("stale:PA",), set()),
        (("stale:PA", "counters-stale:PA"), {"telemetry-stale"}),
        ((), {"load-divergence"}),
    ],
    ids=["a few windows", "its habit", "not recognised"],
)
def test_counters_from_a_cache_are_not_blamed_on_the_network(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], told: set[str]
) -> None:
    """An agent that refreshes every 30 s: of three windows two show nothing, one shows it all."""
    loop = Loop(lab_world(1))
    loop.windows(8)
    ends = [(link.source, link.target) for link in loop.world.network.links]
    links = np.array(["PA" in end for end in ends])

    def as_cached(network: Any, version: int, reading: Any, **more: Any) -> StateUpdate:
        loads_bps = np.where(links, reading.load_bps * (0.0, 0.0, 3.0)[version % 3], reading.load_bps)
        return state_update(network, version, replace(reading, load_bps=loads_bps), **more)

    monkeypatch.setattr(closed_loop, "state_update", as_cached)
    alerts = [alert for _ in range(9) for alert in loop.window(quality=flags)]
    assert {alert.kind for alert in alerts if alert.state == "firing"} == told
    assert len({alert.fingerprint for alert in alerts if alert.kind == "telemetry-stale"}) <= 1


def test_a_silent_device_is_a_matter_of_telemetry() -> None:
    """With its flows missing the twin predicts too little; the network is not blamed, the device is."""
    loop = Loop(lab_world(1))
    loop.windows(8)
    flags = ("delays-missing:IL", "flows-missing:IL", "silent:IL")
    told = [alert for _ in range(4) for alert in loop.window(quality=flags, without_flows_of="IL")]
    told += loop.windows(4)
    assert {alert.kind for alert in told} == {"telemetry-stale"}
    assert [alert.state for alert in told] == ["pending", "firing", "resolved"]
    assert told[1].suspects[0].target == "IL"
