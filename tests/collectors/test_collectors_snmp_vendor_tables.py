"""Vendors' tables as a real snmpd serves them: rows with the indices of their MIBs and of published walks.

What Debian's snmpd does not implement it hands to a `pass_persist` program; encoding, ordering, GETNEXT and
GETBULK are net-snmp's own, and so is ifTable, in which ifIndex 1 is the loopback. The index layouts:

- CISCO-CLASS-BASED-QOS-MIB: IOS numbers policies and objects from one counter (policy 1043, its class maps
  1045 and 1051), IOS XR with numbers beyond 2^31; settings stand under the configIndex alone.
  Policers are objects below their class, their statistics under (policy, object), actions under configIndex.
- JUNIPER-RPM-MIB: owner "nmc", test "vantx2-pgtx1", collection 2, set 1 is 3.110.109.99.12.118…49.2.1.
- CISCO-RTTMON-MIB: everything under rttMonCtrlAdminIndex.
- DISMAN-PING-MIB: (owner, test) as JUNIPER-RPM-MIB, without more.
- LLDP-V2-MIB: an EOS switch's neighbour is 0.18.1.1: time mark, ifIndex, destination address, number.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from collector_peers import inventory_of, running_snmpd

from collectors.inventory import Engine
from collectors.snmp.open import Shared, open_engine
from collectors.snmp.poller import SnmpPoller
from twin.records import Neighbour, QueueCounters

pytestmark = pytest.mark.live
ENGINES = ["gufo", "pysnmp"]
LOOPBACK = 1  # Linux: the first interface of every network namespace
QOS, RTT = "1.3.6.1.4.1.9.9.166.1", "1.3.6.1.4.1.9.9.42.1"
RPM, PING, LLDP2 = "1.3.6.1.4.1.2636.3.50.1", "1.3.6.1.2.1.80.1", "1.3.111.2.802.1.1.13.1"
Value = int | bytes
Rows = Mapping[str, Mapping[str, tuple[str, Value]]]  # column → index → (type of snmpd.conf(5), value)


def column(kind: str, values: Mapping[str, Value]) -> dict[str, tuple[str, Value]]:
    """The cells of a column, all of one type."""
    return {index: (kind, value) for index, value in values.items()}


XR = 3_221_225_472  # IOS XR: policies and objects are numbered beyond 2^31
CLASSES = {  # policy → its objects: (number, QosObjectType, parent, configIndex)
    1043: ((1043, 1, 0, 900), (1045, 2, 1043, 901), (1047, 4, 1045, 902), (1051, 2, 1043, 903)),
    XR: ((XR + 1, 1, 0, 900), (XR + 2, 2, XR + 1, 901)),
}


def objects(field: int) -> dict[str, Value]:
    """A field of all QoS objects, by (policy, object)."""
    return {f"{policy}.{one[0]}": one[field] for policy, found in CLASSES.items() for one in found}


QOS_ROWS: Rows = {
    f"{QOS}.1.1.1.3": column("integer", {"1043": 2, f"{XR}": 1}),
    f"{QOS}.1.1.1.4": column("integer", {"1043": LOOPBACK, f"{XR}": LOOPBACK}),
    f"{QOS}.5.1.1.2": column("unsigned", objects(3)),
    f"{QOS}.5.1.1.3": column("integer", objects(1)),
    f"{QOS}.5.1.1.4": column("unsigned", objects(2)),
    f"{QOS}.7.1.1.1": column("octet", {"901": b"voice", "903": b"class-default"}),
    f"{QOS}.15.1.1.5": column("counter", {"1043.1045": 784, "1043.1051": 114_630, f"{XR}.{XR + 2}": 1}),
    f"{QOS}.15.1.1.6": column(
        "counter64", {"1043.1045": 2**40 + 784, "1043.1051": 114_630, f"{XR}.{XR + 2}": 2**33}
    ),
    f"{QOS}.15.1.1.10": column(
        "counter64", {"1043.1045": 2**40, "1043.1051": 114_630, f"{XR}.{XR + 2}": 2**33}
    ),
    f"{QOS}.15.1.1.14": column("counter64", {"1043.1045": 7, "1043.1051": 0, f"{XR}.{XR + 2}": 0}),
    f"{QOS}.15.1.1.17": column("counter64", {"1043.1045": 784, "1043.1051": 0, f"{XR}.{XR + 2}": 0}),
    f"{QOS}.18.1.1.1": column("gauge", {"1043.1047": 3000}),
    f"{QOS}.18.1.1.2": column("gauge", {"1043.1047": 96_000}),
    f"{QOS}.18.1.1.9": column("gauge", {"1043.1047": 2}),
}

NMC = "3.110.109.99.12.118.97.110.116.120.50.45.112.103.116.120.49"  # "nmc", "vantx2-pgtx1"
ALL_LOST = "2.112.49.2.116.49"  # "p1", "t1": a test of which no probe came back has no calculated rows
DATE = bytes([7, 234, 11, 26, 16, 0, 0, 0, ord("+"), 0, 0])  # DateAndTime with its zone: 11 octets
RPM_ROWS: Rows = {
    f"{RPM}.2.1.2": column("unsigned", {f"{NMC}.1": 4, f"{NMC}.2": 10, f"{NMC}.4": 900, f"{ALL_LOST}.2": 5}),
    f"{RPM}.2.1.3": column("unsigned", {f"{NMC}.1": 4, f"{NMC}.2": 9, f"{NMC}.4": 880, f"{ALL_LOST}.2": 0}),
    f"{RPM}.2.1.5": column("octet", {f"{NMC}.1": DATE, f"{NMC}.2": DATE, f"{ALL_LOST}.2": DATE}),
    f"{RPM}.3.1.2": column(
        "unsigned", {f"{NMC}.1.1": 4, f"{NMC}.2.1": 9, f"{NMC}.2.2": 8, f"{NMC}.4.1": 880}
    ),
    f"{RPM}.3.1.3": column("integer", {f"{NMC}.1.1": 1, f"{NMC}.2.1": 11_900, f"{NMC}.2.2": 3}),
    f"{RPM}.3.1.4": column("integer", {f"{NMC}.1.1": 9, f"{NMC}.2.1": 14_200, f"{NMC}.2.2": 90}),
    f"{RPM}.3.1.5": column("integer", {f"{NMC}.1.1": 5, f"{NMC}.2.1": 12_345, f"{NMC}.2.2": 40}),
    f"{RPM}.3.1.7": column("integer", {f"{NMC}.1.1": 2, f"{NMC}.2.1": 150, f"{NMC}.2.2": 11}),
    f"{RPM}.3.1.8": column("counter64", {f"{NMC}.1.1": 20, f"{NMC}.2.1": 111_105, f"{NMC}.2.2": 320}),
    f"{PING}.2.1.3": column("integer", {NMC: 1, ALL_LOST: 2}),
    f"{PING}.2.1.4": column("octet", {NMC: bytes([10, 0, 0, 1]), ALL_LOST: bytes([32, 1, *bytes(13), 1])}),
    f"{PING}.2.1.5": column("unsigned", {NMC: 64, ALL_LOST: 0}),
    f"{PING}.2.1.10": column("unsigned", {NMC: 30, ALL_LOST: 60}),
    f"{PING}.3.1.6": column("unsigned", {NMC: 12, ALL_LOST: 0}),
    f"{PING}.3.1.8": column("unsigned", {NMC: 900, ALL_LOST: 5}),
}

ANSWERED, NEVER = (
    "2.110.49.3.119.97.110",
    "2.110.49.0",
)  # owner "n1" with tests "wan" and "": a name may be empty
PING_ROWS: Rows = {
    f"{PING}.2.1.3": column("integer", {ANSWERED: 1, NEVER: 16}),  # InetAddressType: ipv4, dns
    f"{PING}.2.1.4": column("octet", {ANSWERED: bytes([192, 0, 2, 9]), NEVER: b"far.example.net"}),
    f"{PING}.2.1.5": column("unsigned", {ANSWERED: 56, NEVER: 0}),
    f"{PING}.2.1.10": column("unsigned", {ANSWERED: 60, NEVER: 300}),
    f"{PING}.3.1.4": column("unsigned", {ANSWERED: 11, NEVER: 0}),
    f"{PING}.3.1.5": column("unsigned", {ANSWERED: 19, NEVER: 0}),
    f"{PING}.3.1.6": column("unsigned", {ANSWERED: 12, NEVER: 0}),
    f"{PING}.3.1.7": column("gauge", {ANSWERED: 19, NEVER: 0}),
    f"{PING}.3.1.8": column("gauge", {ANSWERED: 20, NEVER: 3}),
    f"{PING}.3.1.10": column("octet", {ANSWERED: DATE, NEVER: bytes(8)}),
}

# rttMonCtrlAdminIndex, 1 to 2^31 - 1: two jitter operations, an echo that came back, one that did not, and an
# HTTP operation, of which rttMonLatestRttOperTable tells in the same way
JITTER_US, ECHO, JITTER_MS, NO_ECHO, HTTP = "10", "20", "2147483647", "21", "22"
TARGETS = {JITTER_US: 0, ECHO: 1, JITTER_MS: 2, NO_ECHO: 3, HTTP: 4}
RTT_ROWS: Rows = {
    f"{RTT}.2.1.1.3": column("octet", {JITTER_US: b"to-NY", ECHO: b"", JITTER_MS: b""}),
    f"{RTT}.2.1.1.4": column("integer", {JITTER_US: 9, ECHO: 1, JITTER_MS: 9, NO_ECHO: 5, HTTP: 7}),
    f"{RTT}.2.1.1.6": column("integer", {JITTER_US: 60, ECHO: 60, JITTER_MS: 30, NO_ECHO: 60, HTTP: 60}),
    f"{RTT}.2.2.1.2": column("octet", {index: bytes([10, 255, 0, n]) for index, n in TARGETS.items()}),
    f"{RTT}.2.2.1.3": column("integer", {JITTER_US: 32, ECHO: 28, JITTER_MS: 172, NO_ECHO: 16, HTTP: 1}),
    f"{RTT}.2.2.1.37": column("integer", {JITTER_US: 2, ECHO: 2, JITTER_MS: 1, NO_ECHO: 1, HTTP: 1}),
    f"{RTT}.2.10.1.1": column("gauge", {JITTER_US: 25, ECHO: 31, JITTER_MS: 20, NO_ECHO: 0, HTTP: 90}),
    f"{RTT}.2.10.1.2": column("integer", {JITTER_US: 1, ECHO: 3, JITTER_MS: 1, NO_ECHO: 4, HTTP: 1}),
    f"{RTT}.2.10.1.5": column("timetick", {JITTER_US: 1, ECHO: 1, JITTER_MS: 2, NO_ECHO: 1, HTTP: 1}),
} | {
    f"{RTT}.5.2.1.{number}": column(kind, {JITTER_US: precise, JITTER_MS: coarse})
    for number, kind, precise, coarse in (
        (1, "gauge", 10, 9),  # NumOfRTT
        (2, "gauge", 250_000, 180),  # RTTSum
        (4, "gauge", 24_000, 18),
        (5, "gauge", 27_000, 23),
        (26, "gauge", 1, 0),  # lost on the way there
        (27, "gauge", 0, 1),
        (29, "gauge", 0, 0),
        (33, "gauge", 120_000, 77),  # OWSumSD
        (34, "gauge", 1_440_400_000, 0),  # OWSum2SD
        (35, "gauge", 11_000, 7),
        (36, "gauge", 13_000, 9),
        (41, "gauge", 10, 9),  # NumOfOW
        (51, "integer", 1, 2),  # NTPState
        (53, "gauge", 0, 0),
        (55, "gauge", 0, 0),
        (56, "gauge", 0, 0),
    )
}

# Policers, each under a class: of "voice" cbQosCMDropPkt counts what they drop, of "bulk" this agent forgets
# that, "video" has several actions and none of them is to drop, "scavenger" one of several, "odd" tells none.
POLICED = ("voice", "bulk", "video", "scavenger", "odd")
_PLACE = {name: (2000 + 10 * n, 2001 + 10 * n, 950 + n) for n, name in enumerate(POLICED)}  # class, policer


def policed(values: Mapping[str, Value], *, policer: bool = True) -> dict[str, Value]:
    """Values by name as those of the policers, or of the classes, of policy 7."""
    return {f"7.{_PLACE[name][1 if policer else 0]}": value for name, value in values.items()}


POLICE_ROWS: Rows = {
    f"{QOS}.1.1.1.3": column("integer", {"7": 1}),
    f"{QOS}.1.1.1.4": column("integer", {"7": LOOPBACK}),
    f"{QOS}.5.1.1.2": column(
        "unsigned",
        policed({name: 100 + place[2] for name, place in _PLACE.items()}, policer=False)
        | policed({name: place[2] for name, place in _PLACE.items()}),
    ),
    f"{QOS}.5.1.1.3": column(
        "integer", policed(dict.fromkeys(POLICED, 2), policer=False) | policed(dict.fromkeys(POLICED, 7))
    ),
    f"{QOS}.5.1.1.4": column(
        "unsigned",
        policed(dict.fromkeys(POLICED, 1), policer=False)
        | policed({name: place[0] for name, place in _PLACE.items()}),
    ),
    f"{QOS}.7.1.1.1": column("octet", {f"{100 + _PLACE[name][2]}": name.encode() for name in POLICED}),
    f"{QOS}.15.1.1.14": column(
        "counter64", policed({"voice": 9, "bulk": 2, "video": 0, "scavenger": 0, "odd": 0}, policer=False)
    ),
    f"{QOS}.15.1.1.17": column("counter64", policed({"voice": 9000, "bulk": 2000}, policer=False)),
    f"{QOS}.17.1.1.3": column("counter64", policed(dict.fromkeys(POLICED, 1000))),
    f"{QOS}.17.1.1.10": column("counter64", policed(dict.fromkeys(POLICED, 5))),
    f"{QOS}.17.1.1.13": column("counter64", policed(dict.fromkeys(POLICED, 5000))),
    f"{QOS}.17.1.1.17": column("counter64", policed(dict.fromkeys(POLICED, 2**33))),
    f"{QOS}.17.1.1.20": column("counter64", policed(dict.fromkeys(POLICED, 2**43))),
    # transmit(1), setIpDSCP(2), drop(5)
    f"{QOS}.12.1.1.4": column("integer", {"950": 1, "951": 1}),
    f"{QOS}.12.1.1.6": column("integer", {"950": 5, "951": 5}),
    f"{QOS}.12.1.1.8": column("integer", {"950": 1, "951": 5}),
    f"{QOS}.21.1.1.2": column("integer", {"952.1": 1, "953.1": 1}),
    f"{QOS}.21.1.1.4": column("integer", {"952.1": 2, "952.2": 1, "953.1": 2, "953.2": 5}),
    f"{QOS}.21.1.1.6": column("integer", {"952.1": 2, "953.1": 2}),
}

# What a run that ended badly leaves behind: figures of an earlier run, or what it counted itself.
STALE, COUNTED, NO_SENSE, SLOW, DAMAGED, UNSENT, OTHER = "1", "2", "3", "4", "5", "6", "7"
ENDED_ROWS: Rows = {
    f"{RTT}.2.1.1.4": column(
        "integer", {STALE: 9, COUNTED: 9, NO_SENSE: 9, SLOW: 9, DAMAGED: 1, UNSENT: 1, OTHER: 9}
    ),
    f"{RTT}.2.1.1.6": column("integer", dict.fromkeys((STALE, COUNTED, SLOW, DAMAGED, UNSENT, OTHER), 60)),
    f"{RTT}.2.2.1.2": column("octet", {str(n): bytes([10, 255, 1, n]) for n in range(1, 8)}),
    f"{RTT}.2.2.1.18": column("integer", {STALE: 20}),
    f"{RTT}.2.2.1.37": column("integer", dict.fromkeys((STALE, COUNTED, SLOW, OTHER), 2)),
    f"{RTT}.2.10.1.1": column("gauge", {DAMAGED: 31, UNSENT: 31}),
    # timeout(4), notConnected(6), overThreshold(3), verifyError(9), disconnected(2)
    f"{RTT}.2.10.1.2": column(
        "integer", {STALE: 1, COUNTED: 4, NO_SENSE: 1, SLOW: 1, DAMAGED: 9, UNSENT: 2, OTHER: 1}
    ),
    f"{RTT}.2.10.1.5": column("timetick", {str(n): 1 for n in range(1, 8)}),
    f"{RTT}.5.2.1.1": column("gauge", {STALE: 10, COUNTED: 0, NO_SENSE: 10, SLOW: 10, OTHER: 10}),
    f"{RTT}.5.2.1.2": column("gauge", dict.fromkeys((STALE, NO_SENSE, SLOW, OTHER), 250_000)),
    f"{RTT}.5.2.1.29": column("gauge", {COUNTED: 10}),
    f"{RTT}.5.2.1.31": column("integer", {STALE: 4, COUNTED: 4, SLOW: 3, OTHER: 6}),
    f"{RTT}.5.2.1.51": column("integer", {COUNTED: 1}),
}

# RPM in hardware at both ends, with clocks that cannot be far apart, and with clocks that are; the third
# stamps in hardware at the client only.
TOGETHER, APART, CLIENT_ONLY = "1.111.1.97", "1.111.1.98", "1.111.1.99"
WAYS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    # samples, least, most, average, deviation of: round trip, egress, ingress
    TOGETHER: ((9, 3000, 5000, 4000, 90), (8, 900, 1500, 1100, 40), (8, 2000, 3500, 2900, 80)),
    APART: ((9, 3000, 5000, 4000, 90), (9, 6000, 7000, 6500, 40), (9, 0, 0, 0, 0)),
    CLIENT_ONLY: ((9, 3000, 5000, 4000, 90), (9, 900, 1500, 1100, 40), (9, 2000, 3500, 2900, 80)),
}
RPM_WAYS_ROWS: Rows = {
    f"{RPM}.1.1.3": column("integer", {f"{TOGETHER}.4": 3, f"{APART}.4": 3, f"{CLIENT_ONLY}.4": 2}),
    f"{RPM}.2.1.2": column("unsigned", {f"{test}.2": 10 for test in WAYS}),
    f"{RPM}.2.1.5": column("octet", {f"{test}.2": DATE for test in WAYS}),
    f"{PING}.2.1.4": column("octet", {test: bytes([10, 3, 0, n]) for n, test in enumerate(WAYS)}),
    f"{PING}.2.1.10": column("unsigned", dict.fromkeys(WAYS, 30)),
} | {
    f"{RPM}.3.1.{number}": column(
        "unsigned",
        {
            f"{test}.2.{measured}": figures[place]
            for test, ways in WAYS.items()
            for measured, figures in zip((1, 4, 7), ways, strict=True)
        },
    )
    for place, number in enumerate((2, 3, 4, 5, 7))
}

NAMED, UNNAMED = f"0.{LOOPBACK}.1.1", "0.10073.1.2"  # an interface of ifTable, and one that is not in it
MAC = bytes.fromhex("28993abf2646")
LLDP2_ROWS: Rows = {
    f"{LLDP2}.3.7.1.2": column("integer", {"1": 7, "10073": 5}),
    f"{LLDP2}.3.7.1.3": column("octet", {"1": b"17", "10073": b"Ethernet9"}),
    f"{LLDP2}.4.1.1.5": column("integer", {NAMED: 4, UNNAMED: 4}),
    f"{LLDP2}.4.1.1.6": column("octet", {NAMED: MAC, UNNAMED: MAC}),
    f"{LLDP2}.4.1.1.7": column("integer", {NAMED: 5, UNNAMED: 3}),
    f"{LLDP2}.4.1.1.8": column("octet", {NAMED: b"Ethernet46", UNNAMED: MAC}),
    f"{LLDP2}.4.1.1.9": column("octet", {NAMED: b"", UNNAMED: b""}),
    f"{LLDP2}.4.1.1.10": column("octet", {NAMED: b"switch123.example.net", UNNAMED: b""}),
}


def _written(rows: Rows) -> str:
    cells = ((f"{oid}.{index}", *cell) for oid, found in rows.items() for index, cell in found.items())
    return "".join(
        f"{oid} {kind} {value if isinstance(value, int) else value.hex(' ')}\n" for oid, kind, value in cells
    )


@contextmanager
def _serving(program: str, directory: Path, trees: Mapping[str, Rows]) -> Iterator[int]:
    """snmpd with these trees; gives its port."""
    serve, config = Path(__file__).with_name("pass_table.py"), ""
    for number, (tree, rows) in enumerate(trees.items()):
        path = directory / f"{number}.rows"
        path.write_text(_written({oid: found for oid, found in rows.items() if oid.startswith(f"{tree}.")}))
        config += f"pass_persist .{tree} {sys.executable} -S -E {serve} {path}\n"
    with running_snmpd(program, directory, config) as port:
        yield port


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]) -> Iterator[int]:
    """snmpd with the tables above; gives its port."""
    trees = {QOS: QOS_ROWS, RTT: RTT_ROWS, RPM: RPM_ROWS, PING: RPM_ROWS, LLDP2: LLDP2_ROWS}
    with _serving(need_tool("snmpd"), tmp_path_factory.mktemp("vendors"), trees) as port:
        yield port


@pytest.fixture(scope="module")
def pinger(tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]) -> Iterator[int]:
    """snmpd with the tests of DISMAN-PING-MIB and nothing finer; gives its port."""
    with _serving(need_tool("snmpd"), tmp_path_factory.mktemp("pinger"), {PING: PING_ROWS}) as port:
        yield port


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]) -> Iterator[int]:
    """snmpd of a device with policers, runs that ended badly, and one-way figures; gives its port."""
    trees = {QOS: POLICE_ROWS, RTT: ENDED_ROWS, RPM: RPM_WAYS_ROWS, PING: RPM_WAYS_ROWS}
    with _serving(need_tool("snmpd"), tmp_path_factory.mktemp("others"), trees) as port:
        yield port


async def _poller(port: int, shared: Shared, engine: Engine) -> SnmpPoller:
    """A poller that has seen which tables there are."""
    access = f'{{ port = {port}, credentials = "v2c", engine = "{engine}" }}'
    inventory = inventory_of(f'name = "WA"\naddress = "127.0.0.1"\nsnmp = {access}')
    opened = open_engine(inventory, inventory.devices[0], shared, timeout_s=5.0)
    return SnmpPoller("net", "WA", opened, opened, time.time_ns)


@pytest.mark.parametrize("engine", ENGINES)
async def test_class_queues_of_cisco_are_joined(vendors: int, shared: Shared, engine: Engine) -> None:
    """64-bit counters under the class map, the depth under its queueing object, the name by configIndex."""
    poller = await _poller(vendors, shared, engine)
    await poller.topology()
    sample = await poller.sample()
    assert sample.queues == (
        QueueCounters(
            interface="lo", direction="in", name="voice", offered_octets=2**33, sent_octets=2**33,
            dropped_packets=0, dropped_octets=0,
        ),
        QueueCounters(
            interface="lo", direction="out", name="class-default", offered_octets=114_630,
            sent_octets=114_630, dropped_packets=0, dropped_octets=0,
        ),
        QueueCounters(
            interface="lo", direction="out", name="voice", offered_octets=2**40 + 784, sent_octets=2**40,
            dropped_packets=7, dropped_octets=784, depth_packets=2, depth_octets=3000,
            most_depth_octets=96_000,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
async def test_rpm_tests_of_juniper_are_read(vendors: int, shared: Shared, engine: Engine) -> None:
    """Of four collections the last completed run, in microseconds; a run that lost all tells its loss."""
    poller = await _poller(vendors, shared, engine)
    await poller.topology()
    (report,) = [one for one in await poller.delays() if one.method == "juniper-rpm"]
    lost, good = report.delays
    assert report.direction == "round-trip"
    assert (good.destination, good.count, good.sent, good.lost) == ("10.0.0.1", 9, 10, 1)
    assert (good.mean_s, good.min_s, good.max_s) == pytest.approx((0.012345, 0.0119, 0.0142))
    assert (good.jitter_s, good.packet_bits) == pytest.approx((0.00015, 736.0))
    assert good.end_ns - good.start_ns == 30 * 10**9
    assert (lost.destination, lost.count, lost.sent, lost.lost) == ("2001::1", 0, 5, 5)
    assert (lost.mean_s, lost.min_s, lost.jitter_s) == (0.0, None, None)
    assert lost.packet_bits == 8 * 48  # the headers of IPv6 and ICMP
    (again,) = [one for one in await poller.delays() if one.method == "juniper-rpm"]
    assert again.delays == ()


@pytest.mark.parametrize("engine", ENGINES)
async def test_ping_tests_are_read(pinger: int, shared: Shared, engine: Engine) -> None:
    """RFC 4560: round trips in milliseconds since the test began; a test without an answer tells its loss."""
    poller = await _poller(pinger, shared, engine)
    await poller.topology()
    (report,) = await poller.delays()
    never, answered = report.delays
    assert (report.method, report.direction) == ("disman-ping", "round-trip")
    assert (answered.destination, answered.count, answered.sent, answered.lost) == ("192.0.2.9", 19, 20, 1)
    assert (answered.mean_s, answered.min_s, answered.max_s) == pytest.approx((0.012, 0.011, 0.019))
    assert (answered.packet_bits, answered.error_s) == (672.0, 0.0005)
    assert (never.destination, never.count, never.sent, never.lost) == ("far.example.net", 0, 3, 3)
    (again,) = await poller.delays()
    assert again.delays == ()


@pytest.mark.parametrize("engine", ENGINES)
async def test_jitter_operations_of_cisco_are_read(vendors: int, shared: Shared, engine: Engine) -> None:
    """Synchronised: one way, in microseconds. Not synchronised: the round trip, in milliseconds, flagged."""
    poller = await _poller(vendors, shared, engine)
    await poller.topology()
    one_way, round_trip = [one for one in await poller.delays() if one.method == "rttmon"]
    (there,), around = one_way.delays, round_trip.delays[-1]
    assert (one_way.direction, one_way.quality) == ("one-way", ())
    assert (there.destination, there.count, there.sent, there.lost) == ("10.255.0.0", 10, 11, 1)
    assert (there.mean_s, there.min_s, there.max_s) == pytest.approx((0.012, 0.011, 0.013))
    assert (there.jitter_s, there.packet_bits) == pytest.approx((0.0002, 480.0))
    assert (round_trip.direction, round_trip.quality) == ("round-trip", ("clock-unsynchronised",))
    assert (around.destination, around.count, around.sent, around.lost) == ("10.255.0.2", 9, 10, 1)
    assert (around.mean_s, around.min_s, around.max_s) == pytest.approx((0.02, 0.018, 0.023))
    assert (around.clock_synchronised, around.error_s) == (False, 1e-3)


@pytest.mark.parametrize("engine", ENGINES)
async def test_echo_operations_of_cisco_are_read(vendors: int, shared: Shared, engine: Engine) -> None:
    """One packet: its round trip in milliseconds, or its loss; an HTTP operation's time is no delay."""
    poller = await _poller(vendors, shared, engine)
    await poller.topology()
    _, round_trip = [one for one in await poller.delays() if one.method == "rttmon"]
    assert [one.destination for one in round_trip.delays] == ["10.255.0.1", "10.255.0.3", "10.255.0.2"]
    back, lost, _ = round_trip.delays
    assert (back.count, back.sent, back.lost, back.mean_s, back.error_s) == (1, 1, 0, 0.031, 1e-3)
    assert (back.packet_bits, back.end_ns - back.start_ns) == (448.0, 60 * 10**9)
    assert (lost.count, lost.sent, lost.lost, lost.mean_s, lost.min_s) == (0, 1, 1, 0.0, None)


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_a_policer_drops_is_lost_in_its_class(others: int, shared: Shared, engine: Engine) -> None:
    """By its actions, which are one each or several; once, where the class counts its policers' drops too."""
    poller = await _poller(others, shared, engine)
    await poller.topology()
    told = {one.name: (one.dropped_packets, one.dropped_octets) for one in (await poller.sample()).queues}
    assert told == {
        "voice": (9, 9000),  # 5 exceeded, 4 were dropped by its queue; violating ones are transmitted
        "bulk": (5 + 2**33, 5000 + 2**43),
        "video": (0, None),
        "scavenger": (5, 5000),
        "odd": (0, None),
    }


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_run_that_ended_badly_is_no_delay(others: int, shared: Shared, engine: Engine) -> None:
    """Lost where packets were sent, left out where none were; a run over its threshold is a measurement."""
    poller = await _poller(others, shared, engine)
    await poller.topology()
    one_way, round_trip = [one for one in await poller.delays() if one.method == "rttmon"]
    (counted,) = one_way.delays
    assert (counted.destination, counted.count, counted.sent, counted.lost) == ("10.255.1.2", 0, 10, 10)
    told = {one.destination[-1]: (one.count, one.sent, one.lost, one.mean_s) for one in round_trip.delays}
    assert told == {
        STALE: (0, 20, 20, 0.0),  # as many as it is configured to send, not those of the earlier run
        NO_SENSE: (10, 10, 0, pytest.approx(25.0)),
        SLOW: (10, 10, 0, pytest.approx(0.025)),
        DAMAGED: (0, 1, 1, 0.0),
    }
    assert all(one.min_s is None for one in round_trip.delays if not one.count)


@pytest.mark.parametrize("engine", ENGINES)
async def test_rpm_goes_one_way_where_hardware_stamps_both_ends(
    others: int, shared: Shared, engine: Engine
) -> None:
    """With the clocks' largest possible offset as error; a way longer than both shows that they are apart."""
    poller = await _poller(others, shared, engine)
    await poller.topology()
    one_way, round_trip = [one for one in await poller.delays() if one.method == "juniper-rpm"]
    assert (one_way.direction, one_way.quality) == ("one-way", ())
    (there,) = one_way.delays
    assert (there.destination, there.count, there.sent, there.lost) == ("10.3.0.0", 8, 10, 2)
    assert (there.mean_s, there.min_s, there.max_s) == pytest.approx((0.0011, 0.0009, 0.0015))
    assert (there.jitter_s, there.error_s) == pytest.approx((0.00004, 0.002))
    assert there.clock_synchronised is None
    assert (round_trip.direction, round_trip.quality) == ("round-trip", ("clock-unsynchronised",))
    apart, client_only = round_trip.delays
    assert (apart.destination, apart.mean_s, apart.clock_synchronised) == ("10.3.0.1", 0.004, False)
    assert (client_only.mean_s, client_only.clock_synchronised) == (0.004, None)


@pytest.mark.parametrize("engine", ENGINES)
async def test_neighbours_of_lldp_2009_are_read(vendors: int, shared: Shared, engine: Engine) -> None:
    """The second index is the ifIndex; without a system name the chassis' MAC address names the neighbour."""
    topology = await (await _poller(vendors, shared, engine)).topology()
    assert topology.neighbours == (
        Neighbour(
            local_interface="Ethernet9",
            remote_device="28:99:3a:bf:26:46",
            remote_interface="28:99:3a:bf:26:46",
        ),
        Neighbour(local_interface="lo", remote_device="switch123.example.net", remote_interface="Ethernet46"),
    )
