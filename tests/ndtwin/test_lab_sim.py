"""The lab's driver and faults: time, counters, routes, and what each fault does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from ndtwin.lab.addressing import Addressing
from ndtwin.lab.device import Device
from ndtwin.lab.fault_records import UnknownFaultError
from ndtwin.lab.faults import FAULTS, FaultControl, read_journal
from ndtwin.lab.run import make_scenario
from ndtwin.lab.second import Period, Second
from ndtwin.lab.settings import LabSettings
from ndtwin.lab.sim import Driver
from twin.errors import ConfigError, TopologyError, UsageError
from twin.simulator import FlowDelays

SETTINGS = LabSettings(probe_period_s=1)
PLAY_S = 4.0


@pytest.fixture
def driver() -> Driver:
    """The default lab's driver, not started: a test plays it by hand."""
    return make_scenario(SETTINGS).driver


@pytest.fixture
def faults(driver: Driver, tmp_path: Path) -> FaultControl:
    """Its fault control."""
    return FaultControl(driver, tmp_path / "faults.jsonl")


@pytest.fixture
def started(driver: Driver) -> Iterator[Driver]:
    """The driver, in real time."""
    driver.start()
    yield driver
    driver.stop()
    assert driver.failure is None


def play(driver: Driver, seconds: float = PLAY_S) -> FlowDelays:
    """Advance by hand; the delays of that time alone."""
    driver.simulator.take_delays()
    driver.simulator.advance(driver.simulator.now_s + seconds)
    return driver.simulator.take_delays()


def traffic_delays(driver: Driver, delays: FlowDelays) -> np.ndarray:
    """Mean delay of every path's traffic, [P]."""
    return delays.mean_s[driver.plan.traffic_slice()]


# ------------------------------------------------------------------------------------------- real time


def wait_until(condition: object, timeout_s: float = 20.0) -> None:
    """Wait for a callable to be true."""
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_seconds_are_whole_seconds_of_the_wall_clock(started: Driver) -> None:
    """Every second handed out starts where the one before ended, on a whole second, about when it is over."""
    seconds: list[tuple[Second, int]] = []
    started.on_second = lambda second: seconds.append((second, time.time_ns()))
    wait_until(lambda: len(seconds) >= 3)
    for (one, _), (following, _) in pairwise(seconds):
        assert following.start_ns == one.end_ns
    assert all(second.start_ns % 10**9 == 0 for second, _ in seconds)
    assert all(0 <= at - second.end_ns < 10**9 for second, at in seconds)
    assert started.lag_s < 1.0


def test_probes_report_every_period(started: Driver) -> None:
    """Operations get results at multiples of their period: probes sent, none lost in a quiet network."""
    operation = started.devices[0].operations[0]
    wait_until(lambda: operation.result is not None)
    result = operation.result
    assert result is not None
    assert result.completed_ns % 10**9 == 0
    assert result.forward.sent >= result.forward.received > 0
    assert result.forward.min_s <= result.forward.mean_s <= result.forward.max_s


def test_calls_run_on_the_drivers_thread(started: Driver) -> None:
    """What is called runs between two steps, and its error comes back to the caller."""
    assert started.call(lambda: threading.current_thread().name).result(5) == "lab-simulator"
    with pytest.raises(TopologyError):
        started.call(lambda: started.simulator.set_rate(10**6, 1.0)).result(5)


# ------------------------------------------------------------------------------------------- the devices


def test_both_ends_of_a_link_count_the_same(driver: Driver) -> None:
    """What an interface sent is what its neighbour took in; together they account for every packet-hop."""
    play(driver)
    by_name = {device.name: device for device in driver.devices}
    total = 0
    for device in driver.devices:
        for interface in device.interfaces:
            if interface.neighbour is not None:
                far = by_name[interface.neighbour.device].interface(interface.neighbour.interface)
                assert interface.counter("out_octets") == far.counter("in_octets") > 0
                total += interface.counter("out_packets")
    assert total == driver.simulator.packet_hops


def test_customers_enter_and_leave_by_cust0(driver: Driver) -> None:
    """cust0 counts the traffic of its node's customers, probes left out."""
    play(driver)
    entered = sum(device.interface("cust0").counter("in_packets") for device in driver.devices)
    assert entered == driver.simulator.sent_packets[driver.plan.traffic_slice()].sum()
    left = sum(device.interface("cust0").counter("out_packets") for device in driver.devices)
    assert 0 < left <= entered


def follow(devices: list[Device], start: str, destination: IPv4Address) -> list[str]:
    """The routers a packet meets when each forwards by its longest matching route."""
    owner = {i.address.ip: d for d in devices for i in d.interfaces if i.address is not None}
    device = next(device for device in devices if device.name == start)
    seen = [device.name]
    while len(seen) <= len(devices):
        matching = [route for route in device.routes if destination in route.prefix]
        best = max(matching, key=lambda route: route.prefix.prefixlen)
        if best.next_hop is None:
            return seen
        device = owner[best.next_hop]
        seen.append(device.name)
    return seen


def test_route_tables_lead_where_the_simulator_forwards(driver: Driver) -> None:
    """Following next hops from router to router visits exactly the nodes of the simulator's path."""
    network = driver.network
    for path in range(0, network.path_count, 7):
        source, destination = network.path_ends(path)
        way = follow(driver.devices, network.nodes[source], driver.devices[destination].router_id)
        links = [network.links[i] for i in network.paths.of(path)]
        assert way == [links[0].source, *(link.target for link in links)]


def test_addresses_of_a_cable_are_neighbours() -> None:
    """Both ends of every cable share a /31, and no address is given twice."""
    devices = make_scenario(LabSettings(topology="power-law:60")).driver.devices
    taken = [i.address.ip for d in devices for i in d.interfaces if i.address is not None]
    assert len(taken) == len(set(taken))
    by_name = {device.name: device for device in devices}
    for device in devices:
        for interface in device.interfaces:
            if interface.neighbour is not None and interface.address is not None:
                far = by_name[interface.neighbour.device].interface(interface.neighbour.interface)
                assert far.address is not None
                assert far.address.network == interface.address.network


@pytest.mark.parametrize("devices", [14, 250, 251, 1000])
def test_customer_prefixes_do_not_overlap(devices: int) -> None:
    """Customer prefixes are apart from each other and from the router ids, at any size."""
    plan = Addressing(devices)
    prefixes = [plan.customers(i) for i in range(1, devices + 1)]
    assert all(not a.overlaps(b) for a, b in pairwise(prefixes))
    assert not any(plan.router_id(i) in prefixes[-1] for i in range(1, devices + 1))


def test_a_period_merges_its_seconds() -> None:
    """Mean, deviation, extremes and losses over two seconds are those of all packets together."""
    random = np.random.default_rng(1)
    parts = [random.random(30), random.random(50) + 1]
    period = Period(slice(0, 1))
    for values in parts:
        figures = [np.array([f(values)]) for f in (np.mean, np.min, np.max, np.std)]
        period.add(FlowDelays(np.array([len(values)]), *figures), np.array([2]))
    way = period.one_way(0)
    every = np.concatenate(parts)
    assert (way.received, way.sent, way.lost) == (80, 84, 4)
    assert [way.mean_s, way.min_s, way.max_s, way.std_s] == pytest.approx(
        [every.mean(), every.min(), every.max(), every.std()]
    )


# -------------------------------------------------------------------------------------------- the faults


def test_extra_delay_reaches_the_paths_over_the_link_and_no_other(
    driver: Driver, faults: FaultControl
) -> None:
    """link-delay adds its magnitude to every path over the link; clearing takes it away again."""
    quiet = traffic_delays(driver, play(driver))
    record = faults.start("link-delay", magnitude=0.02)
    link = driver.network.link_names.index(record.target)
    slowed = traffic_delays(driver, play(driver))
    faults.stop(record.id)
    play(driver, 0.5)
    again = traffic_delays(driver, play(driver))
    over = np.zeros(driver.plan.paths, dtype=bool)
    over[driver.network.paths.hop_path[driver.network.paths.links == link]] = True
    assert (slowed - quiet)[over] == pytest.approx(np.full(over.sum(), 0.02), abs=0.004)
    assert np.abs(slowed - quiet)[~over].max() < 0.01
    assert np.abs(again - quiet).max() < 0.01


def test_lost_capacity_slows_and_is_not_told(driver: Driver, faults: FaultControl) -> None:
    """link-capacity makes the link's paths slower while ifSpeed says what it always said."""
    quiet = traffic_delays(driver, play(driver))
    record = faults.start("link-capacity")
    link = driver.network.link_names.index(record.target)
    slowed = traffic_delays(driver, play(driver))
    over = driver.network.paths.hop_path[driver.network.paths.links == link]
    assert (slowed[over] > quiet[over] + 0.0003).all()
    assert driver.world.source_interfaces[link].speed_bps == driver.network.links[link].capacity_bps


def test_a_link_that_goes_down_is_routed_around(driver: Driver, faults: FaultControl) -> None:
    """link-down: both ends are down at once; after convergence everything arrives another way."""
    record = faults.start("link-down")
    link = driver.network.link_names.index(record.target)
    ends = [driver.world.source_interfaces[i] for i in (link, driver.world.back[link])]
    assert not any(interface.oper_up for interface in ends)
    driver.converge()
    play(driver, 1.0)
    lost, carried = driver.simulator.lost_packets.sum(), driver.simulator.link_packets[link]
    play(driver, 2.0)
    assert driver.simulator.lost_packets.sum() == lost
    assert driver.simulator.link_packets[link] == carried
    assert link not in driver.routed.paths.links
    faults.stop(record.id)
    driver.converge()
    assert all(interface.oper_up for interface in ends)
    assert (driver.routed.next_link == driver.network.next_link).all()


def test_routing_reconverges_by_itself(started: Driver, tmp_path: Path) -> None:
    """A second after a link went down in real time, no route uses it any more."""
    faults = FaultControl(started, tmp_path / "faults.jsonl")
    wait_until(lambda: started.playing)
    record = started.call(lambda: faults.start("link-down")).result(10)
    link = started.network.link_names.index(record.target)
    wait_until(lambda: link not in started.routed.paths.links, 10.0)


def test_hidden_traffic_loads_the_link(driver: Driver, faults: FaultControl) -> None:
    """hidden-traffic raises the load of its link by about its share of the capacity."""
    link_octets = driver.simulator.link_octets
    play(driver)
    before = link_octets.copy()
    play(driver)
    quiet = link_octets - before
    record = faults.start("hidden-traffic", magnitude=0.3)
    link = driver.network.link_names.index(record.target)
    before = link_octets.copy()
    play(driver)
    extra_bps = float((link_octets - before - quiet)[link]) * 8 / PLAY_S
    assert extra_bps == pytest.approx(0.3 * driver.network.links[link].capacity_bps, rel=0.15)


def test_a_wrong_route_shows_in_the_route_table(driver: Driver, faults: FaultControl) -> None:
    """wrong-route: the packets take another way, the router's own table says so, and clearing restores it."""
    shown = {device.name: device.routes for device in driver.devices}
    record = faults.start("wrong-route")
    source, destination = record.target.split("->")
    path = driver.network.path_index(source, destination)
    far = driver.devices[driver.network.node_index[destination]]
    way = follow(driver.devices, source, far.router_id)
    links = [driver.network.links[i] for i in driver.routed.paths.of(path)]
    assert way == [links[0].source, *(link.target for link in links)]
    assert list(driver.routed.paths.of(path)) != list(driver.network.paths.of(path))
    play(driver)
    faults.stop(record.id)
    assert {device.name: device.routes for device in driver.devices} == shown


def test_a_slow_node_delays_what_it_sends_on(driver: Driver, faults: FaultControl) -> None:
    """slow-node adds its delay at each visit of the node."""
    quiet = traffic_delays(driver, play(driver))
    record = faults.start("slow-node", magnitude=0.01)
    node = driver.network.node_index[record.target]
    slowed = traffic_delays(driver, play(driver))
    own = [path for path in range(driver.plan.paths) if driver.network.path_ends(path)[0] == node]
    assert (slowed - quiet)[own] == pytest.approx(np.full(len(own), 0.01), abs=0.004)


def test_a_lying_probe_lies_about_its_own_operations_only(driver: Driver, faults: FaultControl) -> None:
    """lying-probe multiplies what one device tells; packets and other devices' figures are as before."""
    record = faults.start("lying-probe", magnitude=3.0)
    node = driver.network.node_index[record.target]
    other = (node + 1) % len(driver.devices)
    driver._probes.add(play(driver), driver.simulator.lost_packets)
    driver._set_results(node, driver.devices[node], 1)
    driver._set_results(other, driver.devices[other], 1)
    told = next(o for o in driver.devices[node].operations if o.index == other + 1).result
    true = next(o for o in driver.devices[other].operations if o.index == node + 1).result
    assert told is not None
    assert true is not None
    assert told.forward.mean_s == pytest.approx(3 * true.backward.mean_s)
    assert told.backward.mean_s == pytest.approx(3 * true.forward.mean_s)


def test_a_silent_device_is_marked(driver: Driver, faults: FaultControl) -> None:
    """silent-device: what the agents and the exporter look at, on and off."""
    record = faults.start("silent-device", "NE")
    device = driver.devices[driver.network.node_index["NE"]]
    assert device.silent
    faults.stop(record.id)
    assert not device.silent


def test_the_journal_says_what_was_on_when(driver: Driver, faults: FaultControl, tmp_path: Path) -> None:
    """Each start and stop of every kind of fault is one line, in order, with wall-clock times."""
    before = time.time_ns()
    for fault in FAULTS:
        faults.stop(faults.start(fault).id)
    events = list(read_journal(tmp_path / "faults.jsonl"))
    assert [(event["event"], event["fault"]) for event in events] == [
        (event, fault) for fault in FAULTS for event in ("start", "stop")
    ]
    times = [int(str(event["at_ns"])) for event in events]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.time_ns()
    assert faults.active() == []


@pytest.mark.parametrize(
    ("fault", "target", "magnitude", "words"),
    [
        ("flood", None, None, ["unknown fault 'flood'", "link-delay", "silent-device"]),
        ("link-delay", "WA->MARS", None, ["unknown link 'WA->MARS'", "WA->CA1"]),
        ("slow-node", "MARS", None, ["unknown node 'MARS'", "WA"]),
        ("link-delay", None, -1.0, ["out of range", "10 s"]),
        ("link-delay", None, float("nan"), ["out of range"]),
        ("link-down", None, 1.0, ["no magnitude"]),
    ],
)
def test_wrong_wishes_are_explained(
    faults: FaultControl, fault: str, target: str | None, magnitude: float | None, words: list[str]
) -> None:
    """An unknown fault or target lists the valid ones, a wrong magnitude the range. Nothing is started."""
    with pytest.raises(UsageError) as caught:
        faults.start(fault, target, magnitude)
    assert all(word in str(caught.value) for word in words)
    assert faults.active() == []


def test_a_fault_is_on_once(faults: FaultControl) -> None:
    """The same fault on the same target is refused while it is on; a link is down for both directions."""
    record = faults.start("link-down", "WA->CA1")
    with pytest.raises(UsageError, match=record.id):
        faults.start("link-down", "CA1->WA")
    with pytest.raises(UnknownFaultError, match="f99"):
        faults.stop("f99")


# ------------------------------------------------------------------------------------------ the settings


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (LabSettings(topology="atlantis"), TopologyError, "nsfnet"),
        (LabSettings(base_address="here"), ConfigError, "127.20.0.0"),
        (LabSettings(base_address="192.0.2.0"), TopologyError, "loopback"),
        (LabSettings(sampling_ratio=0), ConfigError, "sampling_ratio"),
        (LabSettings(probe_pps=-1), ConfigError, "probe_pps"),
    ],
)
def test_wrong_settings_say_what_to_do(settings: LabSettings, error: type[Exception], words: str) -> None:
    """Settings that make no lab fail with one line that names the key or the choices."""
    with pytest.raises(error, match=words):
        make_scenario(settings)


def test_a_graphml_file_makes_a_lab(tmp_path: Path) -> None:
    """A file of the user's is a topology like any other; its name is the network's."""
    graph = nx.cycle_graph(5)
    nx.set_node_attributes(graph, {node: f"city {node}" for node in graph}, "label")
    nx.write_graphml(graph, tmp_path / "ring.graphml")
    scenario = make_scenario(LabSettings(topology=str(tmp_path / "ring.graphml")))
    assert len(scenario.driver.devices) == 5
    assert scenario.name
    play(scenario.driver, 2.0)
    assert scenario.driver.simulator.delivered_packets[scenario.driver.plan.traffic_slice()].min() > 0


@pytest.mark.parametrize("topology", ["geant2", "gbn", "power-law:30"])
def test_other_topologies_play(topology: str) -> None:
    """Any topology makes a lab in which packets arrive everywhere."""
    driver = make_scenario(LabSettings(topology=topology)).driver
    driver.simulator.advance(3.0)
    assert (driver.simulator.delivered_packets[driver.plan.traffic_slice()] > 0).mean() > 0.95
