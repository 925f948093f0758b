"""Faults on command: what can be broken, how, how much, and the journal of what was broken when.

Every fault is one row of the table ``FAULTS``: the kind of its target, the unit and range of its
magnitude, the target it takes when none is named, and a function that starts it and gives back how to undo
it. Those functions run on the driver's thread. No fault tells the telemetry about itself: a link that lost
capacity keeps its ifSpeed, hidden traffic is counted by interfaces and by no flow record, a lying probe's
figures look like any other's.

The journal is one JSON object a line: ``event`` (start, stop), ``at_ns`` (wall clock, when it took
effect), and the fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ndtwin.lab.fault_records import FaultKind, FaultRecord, TargetKind, UnknownFaultError
from ndtwin.lab.sim import Driver
from twin.errors import UsageError
from twin.routing import shortest_paths
from twin.traffic import link_load_bps

Undo = Callable[[], None]
WELL_LOADED = 0.7  # utilisation up to which a link counts as reasonably loaded


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    kind: FaultKind
    choose: Callable[[Driver], int]
    start: Callable[[Driver, int, float], Undo]


# ------------------------------------------------------------------------------------------ the targets


def _utilisation(driver: Driver) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return link_load_bps(driver.routed, driver.traffic_bps()) / driver.network.capacity_bps


def busiest_link(driver: Driver) -> int:
    """The link with the highest utilisation that is still reasonable; of all, when none is."""
    used = _utilisation(driver)
    fair = np.where(used <= WELL_LOADED, used, -used)
    return int(np.argmax(fair))


def spare_link(driver: Driver) -> int:
    """The busiest link without which every node is still reached."""
    for link in np.argsort(-_utilisation(driver), kind="stable"):
        if _still_connected(driver, int(link)):
            return int(link)
    raise UsageError("link-down: every link of this network is a bridge: name the target to cut it in two")


def _still_connected(driver: Driver, link: int) -> bool:
    lost = {link, driver.world.back[link]}
    kept = [one for i, one in enumerate(driver.routed.links) if i not in lost]
    next_link = shortest_paths(driver.network.nodes, kept)
    return bool((next_link >= 0).sum() == len(driver.network.nodes) * (len(driver.network.nodes) - 1))


def busiest_node(driver: Driver) -> int:
    """The node that sends most."""
    load = link_load_bps(driver.routed, driver.traffic_bps())
    return int(np.argmax(np.bincount(driver.network.source_index, load, minlength=len(driver.network.nodes))))


def busiest_detour(driver: Driver) -> int:
    """The path with most traffic that has another way out without a loop."""
    for path in np.argsort(-driver.traffic_bps(), kind="stable"):
        if _detour(driver, int(path)) is not None:
            return int(path)
    raise UsageError(
        "wrong-route: no node of this network has a second way to anywhere: use another topology"
    )


def _detour(driver: Driver, path: int) -> int | None:
    """Another link out of the path's source from which its destination is reached without coming back."""
    network = driver.routed
    source, destination = network.path_ends(path)
    current = network.next_link[source, destination]
    for link in np.flatnonzero(network.source_index == source):
        if link != current and network.links[link].up and _reaches(driver, int(link), source, destination):
            return int(link)
    return None


def _reaches(driver: Driver, first: int, source: int, destination: int) -> bool:
    network, node = driver.routed, int(driver.network.target_index[first])
    for _ in network.nodes:
        if node in (source, destination):
            break
        link = network.next_link[node, destination]
        if link < 0:
            return False
        node = int(network.target_index[link])
    return node == destination


# ------------------------------------------------------------------------------------------- the faults


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
    path = _shortest_over(driver, link)
    bps = share * driver.network.links[link].capacity_bps
    driver.set_hidden_rate(path, bps / driver.plan.mean_packet_bits(path))
    return lambda: driver.set_hidden_rate(path, 0.0)


def _shortest_over(driver: Driver, link: int) -> int:
    """The shortest path that uses a link; its own traffic then runs over few others."""
    paths = driver.routed.paths
    using = paths.hop_path[paths.links == link]
    if not using.size:
        name = driver.network.link_names[link]
        raise UsageError(f"hidden-traffic: no path runs over {name} now: choose another link")
    return int(using[np.argmin(paths.lengths[using])])


def _wrong_route(driver: Driver, path: int, _: float) -> Undo:
    detour = _detour(driver, path)
    if detour is None:
        raise UsageError(f"wrong-route: {driver.network.path_name(path)} has no other way without a loop")
    where = driver.network.path_ends(path)
    driver.forced[where] = detour
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


Size = tuple[float | None, str, float, float]  # default, unit, lowest, highest
NO_SIZE: Size = (None, "", 0.0, 0.0)


def _kind(fault: str, target: TargetKind, about: str, size: Size = NO_SIZE) -> FaultKind:
    magnitude, unit, low, high = size
    return FaultKind(
        fault=fault, target=target, about=about, magnitude=magnitude, unit=unit, low=low, high=high
    )


_ROWS: tuple[Fault, ...] = (
    Fault(
        _kind("link-delay", "link", "extra delay on one direction of a link", (0.01, "s", 1e-6, 10.0)),
        busiest_link,
        _link_delay,
    ),
    Fault(
        _kind("link-capacity", "link", "a share of a link's capacity is lost", (0.5, "share", 0.01, 0.99)),
        busiest_link,
        _link_capacity,
    ),
    Fault(
        _kind("link-down", "link", "both directions of a link go down"),
        spare_link,
        _link_down,
    ),
    Fault(
        _kind(
            "hidden-traffic",
            "link",
            "traffic that no flow record shows, as a share of the link's capacity",
            (0.3, "share", 0.01, 2.0),
        ),
        busiest_link,
        _hidden_traffic,
    ),
    Fault(
        _kind("wrong-route", "path", "the source of a path takes another next hop to its destination"),
        busiest_detour,
        _wrong_route,
    ),
    Fault(
        _kind("slow-node", "node", "every packet a node sends on takes longer", (0.005, "s", 1e-6, 10.0)),
        busiest_node,
        _slow_node,
    ),
    Fault(
        _kind(
            "lying-probe", "node", "a device multiplies the delays it measures", (2.0, "factor", 0.01, 100.0)
        ),
        busiest_node,
        _lying_probe,
    ),
    Fault(
        _kind("silent-device", "node", "a device answers nothing and exports nothing"),
        busiest_node,
        _silent_device,
    ),
)
FAULTS = {row.kind.fault: row for row in _ROWS}


# ------------------------------------------------------------------------------------------ the control


class FaultControl:
    """Starts and stops faults on a driver and keeps the journal."""

    def __init__(self, driver: Driver, journal: Path) -> None:
        self._driver, self._journal = driver, journal
        self._active: dict[str, tuple[FaultRecord, Undo]] = {}
        self._started = 0

    def active(self) -> list[FaultRecord]:
        """Faults that are on."""
        return [record for record, _ in self._active.values()]

    def start(self, fault: str, target: str | None = None, magnitude: float | None = None) -> FaultRecord:
        """Inject; UsageError lists what is valid. Call it on the driver's thread."""
        row = FAULTS.get(fault)
        if row is None:
            raise UsageError(f"unknown fault {fault!r}: there is {', '.join(FAULTS)}")
        size = check_magnitude(row.kind, magnitude)
        names = target_names(self._driver, row.kind.target)
        index = row.choose(self._driver) if target is None else find_target(row.kind, names, target)
        self._refuse_twice(fault, names[index])
        undo = row.start(self._driver, index, size if size is not None else 0.0)
        self._started += 1
        record = FaultRecord(
            id=f"f{self._started}", fault=fault, target=names[index], magnitude=size, unit=row.kind.unit,
            started_at_ns=time.time_ns(),
        )  # fmt: skip
        self._active[record.id] = (record, undo)
        self._write("start", record.started_at_ns, record)
        return record

    def stop(self, fault_id: str) -> FaultRecord:
        """Undo; UnknownFaultError when it is not on. Call it on the driver's thread."""
        if fault_id not in self._active:
            active = ", ".join(self._active) or "none"
            raise UnknownFaultError(f"no active fault {fault_id!r}: active: {active}")
        record, undo = self._active.pop(fault_id)
        undo()
        record = msgspec.structs.replace(record, stopped_at_ns=time.time_ns())
        self._write("stop", record.stopped_at_ns or 0, record)
        return record

    def _refuse_twice(self, fault: str, target: str) -> None:
        for record in self.active():
            if record.fault == fault and (
                record.target == target or self._same_cable(fault, record.target, target)
            ):
                raise UsageError(f"{fault} on {record.target} is on already as {record.id}: stop it first")

    def _same_cable(self, fault: str, one: str, other: str) -> bool:
        names = self._driver.network.link_names
        return fault == "link-down" and self._driver.world.back[names.index(one)] == names.index(other)

    def _write(self, event: str, at_ns: int, record: FaultRecord) -> None:
        line = msgspec.json.encode({"event": event, "at_ns": at_ns, **msgspec.structs.asdict(record)})
        with self._journal.open("ab") as journal:
            journal.write(line + b"\n")


def target_names(driver: Driver, kind: TargetKind) -> tuple[str, ...]:
    """All targets of a kind, by index."""
    network = driver.network
    if kind == "link":
        return network.link_names
    if kind == "node":
        return network.nodes
    return tuple(network.path_name(path) for path in range(network.path_count))


def find_target(kind: FaultKind, names: tuple[str, ...], target: str) -> int:
    """Index of a target by name."""
    if target not in names:
        known = ", ".join(names[:60]) + (f", … ({len(names)} in all)" if len(names) > 60 else "")
        raise UsageError(f"{kind.fault}: unknown {kind.target} {target!r}: there is {known}")
    return names.index(target)


def check_magnitude(kind: FaultKind, magnitude: float | None) -> float | None:
    """The magnitude in force."""
    if magnitude is None or kind.magnitude is None:
        if magnitude is not None:
            raise UsageError(f"{kind.fault} has no magnitude: leave it out")
        return kind.magnitude
    if not kind.low <= magnitude <= kind.high:
        valid = f"{kind.low:g} to {kind.high:g} {kind.unit}"
        raise UsageError(f"{kind.fault}: magnitude {magnitude:g} is out of range: give {valid}")
    return magnitude


def read_journal(path: Path) -> Iterator[dict[str, object]]:
    """The journal's lines, oldest first."""
    if path.exists():
        for line in path.read_bytes().splitlines():
            yield msgspec.json.decode(line, type=dict[str, object])
