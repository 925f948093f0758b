"""Faults of the simulated lab: what can be broken, how, and how much.

Every fault is one row of the table ``FAULTS``: the kind of its target, the unit and range of its
magnitude, the target it takes when none is named, and a function that starts it and gives back how to undo
it. Those functions run on the driver's thread. No fault tells the telemetry about itself: a link that lost
capacity keeps its ifSpeed, hidden traffic is counted by interfaces and by no flow record, a lying probe's
figures look like any other's.
"""

from __future__ import annotations

from pathlib import Path

from ndtwin.lab.fault_desk import Fault, FaultDesk, Undo, fault_kind, read_journal
from ndtwin.lab.fault_targets import (
    busiest_detour,
    busiest_link,
    busiest_node,
    detour,
    shortest_over,
    spare_link,
)
from ndtwin.lab.sim import Driver
from twin.errors import UsageError

__all__ = ["FAULTS", "FaultControl", "read_journal"]


def _link_delay(driver: Driver, link: int, extra_s: float) -> Undo:
    driver.simulator.set_link(link, extra_delay_s=extra_s)
    return lambda: driver.simulator.set_link(link, extra_delay_s=0.0)


def _link_capacity(driver: Driver, link: int, share_lost: float) -> Undo:
    nominal_bps = driver.network.links[link].capacity_bps
    driver.simulator.set_link(link, capacity_bps=nominal_bps * (1 - share_lost))
    return lambda: driver.simulator.set_link(link, capacity_bps=nominal_bps)


def _link_down(driver: Driver, link: int, _: float) -> Undo:
    driver.set_cable(link, up=False)
    return lambda: driver.set_cable(link, up=True)


def _hidden_traffic(driver: Driver, link: int, share: float) -> Undo:
    path = shortest_over(driver, link)
    bps = share * driver.network.links[link].capacity_bps
    driver.set_hidden_rate(path, bps / driver.plan.mean_packet_bits(path))
    return lambda: driver.set_hidden_rate(path, 0.0)


def _wrong_route(driver: Driver, path: int, _: float) -> Undo:
    link = detour(driver, path)
    if link is None:
        raise UsageError(f"wrong-route: {driver.network.path_name(path)} has no other way without a loop")
    where = driver.network.path_ends(path)
    driver.forced[where] = link
    driver.converge()

    def undo() -> None:
        driver.forced.pop(where, None)
        driver.converge()

    return undo


def _slow_node(driver: Driver, node: int, delay_s: float) -> Undo:
    driver.simulator.set_node_delay(node, delay_s)
    return lambda: driver.simulator.set_node_delay(node, 0.0)


def _lying_probe(driver: Driver, node: int, factor: float) -> Undo:
    driver.probe_scale[node] = factor

    def undo() -> None:
        driver.probe_scale[node] = 1.0

    return undo


def _silent_device(driver: Driver, node: int, _: float) -> Undo:
    driver.devices[node].silent = True

    def undo() -> None:
        driver.devices[node].silent = False

    return undo


_ROWS: tuple[Fault[Driver], ...] = (
    Fault(
        fault_kind("link-delay", "link", "extra delay on one direction of a link", (0.01, "s", 1e-6, 10.0)),
        busiest_link,
        _link_delay,
    ),
    Fault(
        fault_kind(
            "link-capacity", "link", "a share of a link's capacity is lost", (0.5, "share", 0.01, 0.99)
        ),
        busiest_link,
        _link_capacity,
    ),
    Fault(
        fault_kind("link-down", "link", "both directions of a link go down"),
        spare_link,
        _link_down,
    ),
    Fault(
        fault_kind(
            "hidden-traffic",
            "link",
            "traffic that no flow record shows, as a share of the link's capacity",
            (0.3, "share", 0.01, 2.0),
        ),
        busiest_link,
        _hidden_traffic,
    ),
    Fault(
        fault_kind("wrong-route", "path", "the source of a path takes another next hop to its destination"),
        busiest_detour,
        _wrong_route,
    ),
    Fault(
        fault_kind("slow-node", "node", "all that a node sends on takes longer", (0.005, "s", 1e-6, 10.0)),
        busiest_node,
        _slow_node,
    ),
    Fault(
        fault_kind(
            "lying-probe", "node", "a device multiplies the delays it measures", (2.0, "factor", 0.01, 100.0)
        ),
        busiest_node,
        _lying_probe,
    ),
    Fault(
        fault_kind("silent-device", "node", "a device answers nothing and exports nothing"),
        busiest_node,
        _silent_device,
    ),
)
FAULTS = {row.kind.fault: row for row in _ROWS}


class FaultControl(FaultDesk[Driver]):
    """The faults of a driver; start and stop them on its thread."""

    def __init__(self, driver: Driver, journal: Path) -> None:
        super().__init__(driver, FAULTS, journal)
