"""The pure readers: columns as agents give them → records."""

from __future__ import annotations

import pytest

from collectors.snmp.interfaces import TICK_NS, interface_names, interfaces, needs_32
from collectors.snmp.neighbours import lldp_neighbours, ospf_neighbours
from collectors.snmp.ping import ping_delays
from collectors.snmp.places import Places
from collectors.snmp.qos import queues
from collectors.snmp.rpm import rpm_delays
from collectors.snmp.rttmon import Operation, delays, operations
from collectors.snmp.tables import Columns, integer, text
from collectors.snmp.topology import addresses, addresses_old, routes, routes_old
from twin.records import InterfaceAddress, Neighbour, QueueCounters, Route

NAMES = {1: "eth0", 2: "eth1"}
S = 1_000_000_000


def test_odd_values_become_nothing_rather_than_an_error() -> None:
    """An agent's wrong type costs that value, not the poll."""
    assert (integer(b"x"), integer(None), integer(4)) == (None, None, 4)
    assert (text(b"Gi0/1\x00 "), text(b"\xff"), text(None), text(5)) == ("Gi0/1", "\\xff", "", "")


def _state(**columns: dict[int, object]) -> Columns:
    return {name: {(i,): value for i, value in column.items()} for name, column in columns.items()}  # type: ignore[misc]  # tests pass what agents send


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (_state(oper={1: 1}, name={1: b"ge-0/0/0"}, description={1: b"d"}), {1: "ge-0/0/0"}),
        (_state(oper={1: 1}, name={1: b""}, description={1: b"d"}), {1: "d"}),
        (_state(oper={7: 2}), {7: "if7"}),
        (_state(oper={1: 1, 2: 1}, name={1: b"eth", 2: b"eth"}), {1: "eth#1", 2: "eth#2"}),
    ],
)
def test_interfaces_are_named_by_ifname_first(state: Columns, names: dict[int, str]) -> None:
    """ifName, else ifDescr, else the index; names that come twice are told apart."""
    assert interface_names(state) == names


@pytest.mark.parametrize(
    ("speed", "mbps", "bps"),
    [
        (10_000_000, 10, 10e6),
        (2**32 - 1, 100_000, 100e9),
        (0, 0, None),
        (0, 40, 40e6),
        (1_544_000, 2, 1_544_000.0),
    ],
)
def test_speed_is_exact_where_it_fits(speed: int, mbps: int, bps: float | None) -> None:
    """ifSpeed up to 4.29 Gbit/s, ifHighSpeed beyond, None where the device knows neither."""
    state = _state(oper={1: 1}, speed_bps={1: speed}, speed_mbps={1: mbps})
    assert interfaces(state, {}, {})[0].speed_bps == bps


def test_high_capacity_counters_come_first_per_interface() -> None:
    """An interface without 64-bit counters gets its 32-bit ones and says so; the others keep theirs."""
    state = _state(oper={1: 1, 2: 2}, admin={1: 1, 2: 1})
    high = _state(discontinuity={1: 500}, in_octets={1: 2**40}, out_octets={1: 5}, in_errors={1: 1, 2: 2})
    low = _state(in_octets={1: 9, 2: 11}, out_octets={1: 9, 2: 12})
    assert needs_32(state, high)
    first, second = interfaces(state, high, low)
    assert (first.in_octets, first.out_octets, first.counter_bits) == (2**40, 5, 64)
    assert (second.in_octets, second.out_octets, second.counter_bits) == (11, 12, 32)
    assert (second.in_errors, second.oper_up, second.admin_up) == (2, False, True)
    assert (first.discontinuity_at_ns, second.discontinuity_at_ns) == (5 * S, None)


LLDP = {
    "local_subtype": {(1,): 5, (2,): 3},
    "local_port": {(1,): b"ge-0/0/0", (2,): b"\x02\x00\x5e\x00\x00\x01"},
    "port": {(0, 1, 1): b"xe-1", (9, 2, 4): b"\x02\x00\x00\x00\x00\x09", (3, 5, 1): b"p"},
    "port_subtype": {(0, 1, 1): 5, (9, 2, 4): 3, (3, 5, 1): 7},
    "port_description": {(9, 2, 4): b""},
    "chassis": {(0, 1, 1): b"\x02", (9, 2, 4): b"\x02\x00\x00\x00\x00\x01", (3, 5, 1): b""},
    "chassis_subtype": {(9, 2, 4): 4},
    "system_name": {(0, 1, 1): b"CA1", (9, 2, 4): b"", (3, 5, 1): b"R5"},
}


def test_lldp_names_ports_as_people_do() -> None:
    """Port ids that are names are taken, MAC addresses are replaced by ifName where that is known."""
    assert lldp_neighbours(LLDP, NAMES) == (
        Neighbour(
            local_interface="eth1", remote_device="02:00:00:00:00:01", remote_interface="02:00:00:00:00:09"
        ),
        Neighbour(local_interface="ge-0/0/0", remote_device="CA1", remote_interface="xe-1"),
        Neighbour(local_interface="port5", remote_device="R5", remote_interface="p"),
    )


def test_addresses_have_the_prefix_their_row_points_at() -> None:
    """ipAddressPrefix is a row pointer that ends with the length; without one it is a host address."""
    v4, broadcast, v6 = (1, 4, 192, 0, 2, 2), (1, 4, 192, 0, 2, 255), (2, 16, *([0] * 15), 1)
    table: Columns = {
        "interface": {v4: 1, broadcast: 1, v6: 2, (1, 4, 1): 1, (4, 4, 1, 2, 3, 4): 1},
        "kind": {v4: 1, broadcast: 3, v6: 1},
        "prefix": {v4: "1.3.6.1.2.1.4.32.1.5.1.1.4.192.0.2.0.24", v6: "0.0"},
    }
    assert addresses(table, NAMES) == (
        InterfaceAddress(interface="eth0", address="192.0.2.2", prefix="192.0.2.0/24"),
        InterfaceAddress(interface="eth1", address="::1", prefix="::1/128"),
    )


def test_the_old_address_table_serves_where_the_new_one_is_missing() -> None:
    """ipAddrTable gives addresses with netmasks; rows of unknown interfaces are left out."""
    table: Columns = {
        "interface": {(192, 0, 2, 2): 1, (10, 0, 0, 1): 9},
        "mask": {(192, 0, 2, 2): "255.255.255.252", (10, 0, 0, 1): "255.0.0.0"},
    }
    assert addresses_old(table, NAMES) == (
        InterfaceAddress(interface="eth0", address="192.0.2.2", prefix="192.0.2.0/30"),
    )


ATTACHED = (1, 4, 192, 0, 2, 0, 24, 3, 0, 0, 4, 1, 4, 0, 0, 0, 0)  # policy 0.0.4, as net-snmp numbers rows
REMOTE = (1, 4, 10, 2, 0, 0, 16, 2, 0, 0, 1, 4, 192, 0, 2, 1)
NO_HOP = (1, 4, 10, 1, 0, 0, 16, 2, 0, 0, 0, 0)  # next hop of unknown type, empty
BLACK_HOLE = (1, 4, 10, 9, 0, 0, 16, 2, 0, 0, 0, 0)
BROKEN = ((1, 4, 10), (), (1, 4, 10, 2, 0, 0, 40, 2, 0, 0, 0, 0), (7, 2, 1, 1, 3, 0, 0, 0))


def test_routes_are_read_from_their_index() -> None:
    """Prefix and next hop stand in the index, behind a policy of any length; odd rows are passed over."""
    table: Columns = {
        "kind": {ATTACHED: 3, REMOTE: 4, NO_HOP: 3, BLACK_HOLE: 5, **dict.fromkeys(BROKEN, 4)},
        "interface": {ATTACHED: 1, REMOTE: 1, NO_HOP: 2},
        "metric": {ATTACHED: -1, REMOTE: 20},
    }
    assert routes(table, NAMES) == (
        Route(prefix="10.1.0.0/16", interface="eth1", local=True),
        Route(prefix="10.2.0.0/16", next_hop="192.0.2.1", interface="eth0", metric=20),
        Route(prefix="192.0.2.0/24", interface="eth0", local=True),
    )


# --------------------------------------------------------------------------------------------- delays

OPERATION = Operation(index=(5,), target="10.255.0.2", frequency_s=5, unit_s=1e-6, packet_bits=736.0)
ROW = {
    "completed": 1000,
    "rtt_count": 8,
    "rtt_sum": 160_000,
    "rtt_min": 19_000,
    "rtt_max": 22_000,
    "loss_sd": 1,
    "loss_ds": 1,
    "loss_mia": 0,
    "sd_sum": 4_000,
    "sd_sum_high": 1,
    "sd_sum2": 0,
    "sd_min": 9_000,
    "sd_max": 11_000,
    "ow_count": 8,
    "ntp_state": 1,
}


def _latest(**changes: int) -> Columns:
    return {name: {(5,): value} for name, value in (ROW | changes).items()}


def test_operations_are_the_jitter_rows() -> None:
    """Other kinds are left out; the target is an address, or the tag where there is none."""
    admin: Columns = {
        "kind": {(1,): 9, (2,): 7, (3,): 9, (4,): 9},
        "target": {(1,): bytes([10, 255, 0, 2]), (2,): bytes(4), (3,): b""},
        "tag": {(3,): b"to-NY", (4,): b""},
        "precision": {(1,): 2, (3,): 1},
        "request_size": {(1,): 64},
        "frequency_s": {(1,): 5},
    }
    first, second = operations(admin)
    assert (first.target, first.unit_s, first.packet_bits, first.frequency_s) == (
        "10.255.0.2",
        1e-6,
        736.0,
        5,
    )
    assert (second.target, second.unit_s) == ("to-NY", 1e-3)


def test_a_synchronised_run_is_one_way() -> None:
    """Sums are 64 bits in two objects; the run is dated by sysUpTime; losses count as sent."""
    found = delays((OPERATION,), _latest(), uptime_ticks=1200, asked_at_ns=100 * S, seen={})
    (one,) = found.one_way
    assert found.round_trip == ()
    assert one.mean_s == pytest.approx((2**32 + 4_000) / 8 * 1e-6)
    assert (one.min_s, one.max_s) == (pytest.approx(0.009), pytest.approx(0.011))
    assert (one.start_ns, one.end_ns) == (93 * S - TICK_NS, 98 * S - TICK_NS)
    assert (one.count, one.sent, one.lost, one.clock_synchronised) == (8, 10, 1, True)
    assert (one.error_s, one.packet_bits) == (1e-6, 736.0)


@pytest.mark.parametrize("sense", [0, 2, 5, 6, 7])
def test_an_echo_that_was_never_sent_tells_nothing(sense: int) -> None:
    """Busy, not connected and the like are no loss of the path, and no news: who stays so is stale."""
    echo = Operation((5,), "10.255.0.2", frequency_s=5, unit_s=1e-3, packet_bits=448.0, echo=True)
    latest = _latest(sense=sense, completion=3)
    found = delays((echo,), latest, uptime_ticks=1200, asked_at_ns=100 * S, seen={})
    assert (found.one_way, found.round_trip, found.runs) == ((), (), {})


def test_the_deviation_follows_from_the_sum_of_squares() -> None:
    """jitter_s is the standard deviation of the one-way delays."""
    values = [10, 14, 10, 14]
    row = _latest(ow_count=4, sd_sum=sum(values), sd_sum_high=0, sd_sum2=sum(v * v for v in values))
    (one,) = delays((OPERATION,), row, uptime_ticks=1000, asked_at_ns=S, seen={}).one_way
    assert one.jitter_s == pytest.approx(2e-6)


@pytest.mark.parametrize("changes", [{"ntp_state": 2}, {"ow_count": 0}, {"ntp_state": 0, "ow_count": 0}])
def test_without_synchronised_clocks_only_the_round_trip_is_believed(changes: dict[str, int]) -> None:
    """One-way figures of an unsynchronised run are left-overs: the report is a round trip."""
    found = delays((OPERATION,), _latest(**changes), uptime_ticks=1000, asked_at_ns=S, seen={})
    (one,) = found.round_trip
    assert found.one_way == ()
    assert (one.mean_s, one.lost, one.sent) == (pytest.approx(0.02), 2, 10)
    assert one.clock_synchronised is (changes.get("ntp_state", 1) == 1)


def test_a_run_in_which_all_was_lost_still_tells_the_loss() -> None:
    """No delay, count 0, and every packet lost."""
    row = _latest(rtt_count=0, ow_count=0, loss_sd=10, loss_ds=0)
    (one,) = delays((OPERATION,), row, uptime_ticks=1000, asked_at_ns=S, seen={}).one_way
    assert (one.count, one.mean_s, one.min_s, one.sent, one.lost) == (0, 0.0, None, 10, 10)


def test_a_run_is_reported_once() -> None:
    """A poll that meets the run of the poll before reports nothing; a new run is news."""
    first = delays((OPERATION,), _latest(), uptime_ticks=1000, asked_at_ns=S, seen={})
    again = delays((OPERATION,), _latest(), uptime_ticks=1100, asked_at_ns=2 * S, seen=first.runs)
    fresh = delays(
        (OPERATION,), _latest(completed=1500), uptime_ticks=1600, asked_at_ns=3 * S, seen=again.runs
    )
    assert [len(found.one_way) for found in (first, again, fresh)] == [1, 0, 1]


def test_a_run_is_never_dated_after_its_end() -> None:
    """TimeTicks are truncated: whatever the phase of the ticks, the end is at most two ticks early."""
    for phase_ns in range(0, TICK_NS, TICK_NS // 10):
        ended_ns, asked_ns = 50 * S, 53 * S + 3_000_000
        row = _latest(completed=(ended_ns + phase_ns) // TICK_NS)
        uptime_ticks = (asked_ns + phase_ns) // TICK_NS
        found = delays((OPERATION,), row, uptime_ticks=uptime_ticks, asked_at_ns=asked_ns, seen={})
        assert ended_ns - 2 * TICK_NS <= found.one_way[0].end_ns <= ended_ns


def test_ping_results_are_round_trips_in_milliseconds() -> None:
    """DISMAN-PING gives average, loss and its coarse resolution, once for every new count of probes."""
    index = (1, 65, 1, 66)
    table: Columns = {
        "sent": {index: 20, (9,): 0},
        "responses": {index: 19},
        "target": {index: bytes([10, 0, 0, 1]), (9,): b"x"},
        "average_ms": {index: 12},
        "min_ms": {index: 11},
        "max_ms": {index: 15},
        "frequency_s": {index: 60},
        "data_size": {index: 56},
    }
    found = ping_delays(table, observed_at_ns=100 * S, seen={})
    (one,) = found.round_trip
    assert (one.destination, one.mean_s, one.sent, one.lost) == ("10.0.0.1", pytest.approx(0.012), 20, 1)
    assert (one.error_s, one.packet_bits, one.start_ns) == (0.0005, 672.0, 40 * S)
    assert ping_delays(table, observed_at_ns=101 * S, seen=found.runs).round_trip == ()
    # The next run of the test has sent as many when it is read; only the time of its last answer tells.
    table = {**table, "last_good": dict.fromkeys(table["sent"], b"\x07\xea\x0b\x1a\x12\x01\x00\x00")}
    assert len(ping_delays(table, observed_at_ns=161 * S, seen=found.runs).round_trip) == 1


# ------------------------------------------------------------------------- LLDP of 2009, OSPF, older routes

ADDRESSES = (
    InterfaceAddress(interface="eth0", address="172.16.0.0", prefix="172.16.0.0/31"),
    InterfaceAddress(interface="eth1", address="10.0.0.1", prefix="10.0.0.0/8"),
)


def test_lldp_of_2009_is_read_by_ifindex() -> None:
    """lldpV2RemTable's second index is the ifIndex, whatever the local port is called."""
    row = (77, 2, 1, 5)
    lldp: Columns = {
        "port": {row: b"ge-0/0/7", (77, 9, 1, 5): b"x", (1, 2): b"short"},
        "port_subtype": {row: 5},
        "system_name": {row: b"CA1", (77, 9, 1, 5): b"CA2"},
        "local_port": {(2,): b"elsewhere"},
        "local_subtype": {(2,): 5},
    }
    assert lldp_neighbours(lldp, NAMES) == (
        Neighbour(local_interface="eth1", remote_device="CA1", remote_interface="ge-0/0/7"),
        Neighbour(local_interface="port9", remote_device="CA2", remote_interface="x"),
    )


def test_full_ospf_neighbours_are_named_by_what_they_say_of_themselves() -> None:
    """Router id or address tells the device, the prefix or the addressless index our interface."""
    places = Places()
    theirs = InterfaceAddress(interface="ge-7", address="172.16.0.1", prefix="172.16.0.0/31")
    places.learn("CA1", (theirs,), "10.255.0.2")
    places.learn("CA2", (), "10.255.0.3")
    table: Columns = {
        "state": {
            (172, 16, 0, 1, 0): 8,
            (0, 0, 0, 0, 2): 8,  # unnumbered
            (10, 9, 9, 9, 0): 8,  # nobody knows it
            (10, 0, 0, 7, 0): 4,  # not full
            (300, 0, 0, 1, 0): 8,  # no address
        },
        "router_id": {(172, 16, 0, 1, 0): "10.255.0.2", (0, 0, 0, 0, 2): "10.255.0.3"},
    }
    found, unknown = ospf_neighbours(table, NAMES, ADDRESSES, places)
    assert found == (
        Neighbour(local_interface="eth1", remote_device="CA2", remote_interface="", protocol="ospf"),
        Neighbour(local_interface="eth0", remote_device="CA1", remote_interface="ge-7", protocol="ospf"),
    )
    assert unknown == 1


def test_an_address_of_two_devices_belongs_to_none() -> None:
    """Anycast, and what a device gave up, tell nobody; the inventory's addresses stay."""
    places = Places()
    places.settle("A", ["192.0.2.1"])
    shared = InterfaceAddress(interface="lo", address="10.9.9.9", prefix="10.9.9.9/32")
    host = InterfaceAddress(interface="lo", address="127.0.0.1", prefix="127.0.0.0/8")
    places.learn("A", (shared, host), "")
    assert places.at("10.9.9.9") == ("A", "lo")
    places.learn("B", (shared, host), "0.0.0.0")
    assert (places.at("10.9.9.9"), places.at("127.0.0.1"), places.router("0.0.0.0")) == (("", ""),) * 2 + (
        "",
    )
    places.learn("A", (), "")
    assert (places.at("10.9.9.9"), places.at("192.0.2.1")) == (("B", "lo"), ("A", ""))


def test_routes_of_the_older_table_are_read() -> None:
    """ipCidrRouteTable gives the same routes; masks with holes and other kinds are left out."""
    learnt, local, odd, rejected = (
        (10, 2, 0, 0, 255, 255, 0, 0, 0, 172, 16, 0, 1),
        (172, 16, 0, 0, 255, 255, 255, 254, 0, 0, 0, 0, 0),
        (10, 3, 0, 0, 255, 0, 255, 0, 0, 172, 16, 0, 1),
        (10, 4, 0, 0, 255, 255, 0, 0, 0, 172, 16, 0, 1),
    )
    table: Columns = {
        "kind": {learnt: 4, local: 3, odd: 4, rejected: 2, (1, 2): 4},
        "interface": {learnt: 1, local: 1},
        "metric": {learnt: 20, local: -1},
    }
    assert routes_old(table, NAMES) == (
        Route(prefix="10.2.0.0/16", next_hop="172.16.0.1", interface="eth0", metric=20),
        Route(prefix="172.16.0.0/31", interface="eth0", local=True),
    )


# ----------------------------------------------------------------------------------- RPM and class queues


def test_rpm_results_are_round_trips_in_microseconds() -> None:
    """The last completed run of a test, once for each date; other collections are other statistics."""
    test = (1, 65, 2, 66, 67)
    done, current = (*test, 2), (*test, 1)
    table: Columns = {
        "sent": {done: 10, current: 4},
        "date": {done: b"\x07\xea\x0b\x19\x17\x00\x00\x00"},
        "samples": {(*done, 1): 9, (*done, 4): 9},
        "average_us": {(*done, 1): 12_345, (*done, 4): 6_000},
        "min_us": {(*done, 1): 12_000},
        "max_us": {(*done, 1): 13_000},
        "deviation_us": {(*done, 1): 150},
        "target": {test: bytes([10, 0, 0, 1])},
        "data_size": {test: 72},
        "frequency_s": {test: 30},
    }
    found = rpm_delays(table, observed_at_ns=100 * S, seen={})
    (one,) = found.round_trip
    assert (one.destination, one.count, one.sent, one.lost) == ("10.0.0.1", 9, 10, 1)
    assert (one.mean_s, one.min_s, one.max_s) == pytest.approx((0.012345, 0.012, 0.013))
    assert (one.jitter_s, one.packet_bits, one.start_ns) == (pytest.approx(0.00015), 800.0, 70 * S)
    assert rpm_delays(table, observed_at_ns=101 * S, seen=found.runs).round_trip == ()
    later = {**table, "date": {done: b"\x07\xea\x0b\x19\x17\x00\x1e\x00"}}
    assert len(rpm_delays(later, observed_at_ns=130 * S, seen=found.runs).round_trip) == 1


def test_class_queues_are_joined_from_their_tables() -> None:
    """Counters stand under the class's object, its name under its configuration, its depth under a child."""
    policies: Columns = {"if_index": {(100,): 1, (200,): 9}, "direction": {(100,): 2, (200,): 1}}
    objects: Columns = {
        "kind": {(100, 1): 1, (100, 2): 2, (100, 3): 4, (200, 2): 2},
        "config": {(100, 2): 5000, (200, 2): 5000},
        "parent": {(100, 2): 1, (100, 3): 2},
        "name": {(5000,): b"voice"},
        "offered_octets": {(100, 2): 2**40},
        "sent_octets": {(100, 2): 2**40 - 500},
        "dropped_packets": {(100, 2): 1},
        "dropped_octets": {(100, 2): 500},
        "depth_packets": {(100, 3): 7},
    }
    assert queues(policies, objects, NAMES) == (
        QueueCounters(
            interface="eth0",
            direction="out",
            name="voice",
            offered_octets=2**40,
            sent_octets=2**40 - 500,
            dropped_packets=1,
            dropped_octets=500,
            depth_packets=7,
        ),
    )


def test_of_nested_classes_the_innermost_are_told() -> None:
    """The outer class counts their packets too; a circle of an agent's ends."""
    policies: Columns = {"if_index": {(100,): 1}, "direction": {(100,): 2}}
    kinds = {(100, 1): 1, (100, 2): 2, (100, 3): 1, (100, 4): 2, (100, 5): 2, (100, 6): 2}
    objects: Columns = {
        "kind": kinds,
        "config": {index: index[1] for index in kinds},
        "parent": {(100, 1): 0, (100, 2): 1, (100, 3): 2, (100, 4): 3, (100, 5): 3, (100, 6): 7, (100, 7): 6},
        "name": {(2,): b"shaped", (4,): b"voice", (5,): b"bulk", (6,): b"circle"},
        "dropped_packets": {(100, 2): 9, (100, 4): 4, (100, 5): 5},
    }
    assert [(q.name, q.dropped_packets) for q in queues(policies, objects, NAMES)] == [
        ("bulk", 5), ("circle", None), ("voice", 4),
    ]  # fmt: skip
