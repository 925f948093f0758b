"""The loop with a calibrated twin: it comes right in quiet, and faults are told, named and not learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from closed_loop import FIRST_VERSION, Act, Drill, Loop, drill, lab_world, link_delay, wrong_route

from stream.forecast import ForecastProcessor
from twin.calibration import Calibration, CalibrationRules
from twin.network import Floats, Network
from twin.records import Alert
from twin.routing import shortest_paths

LINK = "PA->NY"


def untold(network: Network) -> Network:
    """Nobody told the propagation."""
    return replace(network, links=tuple(replace(link, propagation_delay_s=0.0) for link in network.links))


def calibrated(seed: int) -> Loop:
    """The lab's loop with calibration and without any propagation told."""
    world = lab_world(seed)
    return Loop(world, rules=CalibrationRules(), told=untold(world.network))


def learnt(loop: Loop) -> Calibration:
    """What the calibration knows by now."""
    assert loop.forecast.calibrations is not None
    return Calibration.load(loop.forecast.calibrations.known("nsfnet"), loop.told or loop.world.network)


def fired(alerts: list[Alert]) -> list[Alert]:
    return [alert for alert in alerts if alert.state == "firing"]


def test_untold_propagation_is_learnt_and_nothing_is_blamed_for_it() -> None:
    """From errors of 40 % to 2 % in ten windows, and not even a pending alert on the way."""
    loop = calibrated(1)
    assert loop.windows(20) == []
    assert loop.errors[0] > 0.4
    assert max(loop.errors[10:]) < 0.02


def test_without_calibration_untold_propagation_is_blamed_on_the_network() -> None:
    """The same twenty windows with the model alone: false alerts. This is what calibration is for."""
    world = lab_world(1)
    loop = Loop(world, told=untold(world.network))
    assert fired(loop.windows(20))
    assert loop.errors[-1] > 0.4


def sick(fault: tuple[Act, Act], target: str, seed: int) -> tuple[Loop, Drill, Floats]:
    """25 quiet windows and a drill; how far the links' delays were moved by it, [L] s."""
    loop = calibrated(seed)
    loop.windows(24)
    before = learnt(loop).links.offset_s
    result = drill(loop, target, fault, warm=1, sick=12, calm=8)
    return loop, result, np.abs(learnt(loop).links.offset_s - before)


def test_a_fault_beside_a_calibrated_twin_is_told_named_let_go_and_not_learnt() -> None:
    """5 ms more on a link: within three windows, first of the suspects, gone in four, 0.1 ms learnt of it."""
    link = lab_world(1).network.link_names.index(LINK)
    loop, result, moved = sick(link_delay(link, 0.005), LINK, 1)
    assert result.passed, result
    assert (result.rank, result.hypothesis) == (1, "extra-delay")
    assert moved[link] < 1e-4
    assert loop.errors[-1] < 0.02


def test_a_path_on_another_way_is_let_go_when_it_is_back() -> None:
    """A detour makes a link's uncertainty wide for as long as it lasts: the path learns nothing meanwhile."""
    network = lab_world(1).network
    path = network.path_index("GA", "CA2")
    loop, result, _ = sick(wrong_route(network, path), "GA->CA2", 1)
    assert result.passed, result
    assert result.hypothesis == "wrong-route"
    assert abs(learnt(loop).paths.factor[path] - 1) < 0.01


def test_a_link_that_was_lost_and_came_back_raises_no_alert() -> None:
    """All links keep what they learnt, also the one that was gone: no alert, but of its loss."""
    loop = calibrated(1)
    assert loop.told is not None
    whole, world = loop.told, loop.world
    loop.windows(12)
    cut = without(whole, "IL", "WA")
    told_of: list[Alert] = []
    for told, windows in ((cut, 8), (whole, 8)):
        loop.told, loop.topology_version = told, FIRST_VERSION + world.window
        for node in range(len(told.nodes)):
            for destination in set(range(len(told.nodes))) - {node}:
                link = told.link_names[told.next_link[node, destination]]
                world.simulator.set_next_link(node, destination, world.network.link_names.index(link))
        told_of += [alert for alert in loop.windows(windows) if alert.kind != "link-down"]
    assert told_of == []
    assert loop.errors[-1] < 0.02


def without(network: Network, a: str, b: str) -> Network:
    """The network after a cable was cut and routing has found other ways."""
    links = tuple(link for link in network.links if {link.source, link.target} != {a, b})
    return Network(nodes=network.nodes, links=links, next_link=shortest_paths(network.nodes, links))


@pytest.mark.parametrize(
    ("first", "then", "factor"),
    [(CalibrationRules(), None, 0.8), (None, CalibrationRules(), 1.2)],
    ids=["off", "on"],
)
def test_switching_calibration_raises_no_alert(
    first: CalibrationRules | None, then: CalibrationRules | None, factor: float
) -> None:
    """What was usual with it is not held against what is without, nor the other way round."""
    world = lab_world(1)
    links = [
        replace(one, propagation_delay_s=factor * one.propagation_delay_s) for one in world.network.links
    ]
    loop = Loop(world, rules=first, told=replace(world.network, links=tuple(links)))
    assert loop.windows(12) == []
    before, switched = loop.errors[-1], ForecastProcessor(loop.model, then)
    switched.restore(loop.forecast.snapshot())
    loop.forecast = switched
    assert loop.windows(12) == []
    calibrated_error, plain_error = sorted([before, loop.errors[-1]])
    assert calibrated_error < 0.02
    assert plain_error > 0.03


def test_an_alert_ends_when_its_fault_has_lasted_longer_than_the_patience() -> None:
    """Half an hour by default, here eight windows: then it is how the network is. Nothing else is told."""
    world = lab_world(1)
    loop = Loop(world, rules=CalibrationRules(patience_windows=8), told=untold(world.network))
    link = world.network.link_names.index(LINK)
    world.due = [(200.0, link_delay(link, 0.005)[0])]
    loop.windows(20)
    told = [(k, alert) for k in range(16) for alert in loop.window() if alert.state in ("firing", "resolved")]
    assert {alert.fingerprint for _, alert in told} == {told[0][1].fingerprint}
    assert (told[0][0], told[0][1].state) == (1, "firing")
    assert told[-1][1].state == "resolved"
    assert 8 <= told[-1][0] <= 13
    assert learnt(loop).links.offset_s[link] == pytest.approx(
        world.network.links[link].propagation_delay_s + 0.005, rel=0.02
    )
