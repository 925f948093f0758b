"""Known pitfalls of flow export, each named by the thread that tells of it (goflow2, nfdump, akvorado, …).

From datagrams to the cells that are reported: what counts, and that nothing is taken for lost.
"""

from __future__ import annotations

import struct

import pytest
from ipfix_bytes import VARIABLE, Fields, any_set, ipv4, message, options_template, template, withdrawal
from netflow_bytes import SENT_S, UPTIME_MS, v5, v5_record, v9, v9_options_template, v9_template

from collectors.flows.aggregate import FlowAggregator
from collectors.flows.decoder import FlowSession
from twin.records import FlowReport

S, MS = 1_000_000_000, 1_000_000
T0 = SENT_S * S
FROM = ("192.0.2.200", 50000)
Cells = dict[str, tuple[float, int]]

FLOW: Fields = [(8, 4), (12, 4), (10, 2), (2, 4), (1, 4)]


def flow(host: int = 1, ingress: int = 3) -> bytes:
    """A record of ten packets of a hundred octets."""
    return ipv4("10.1.0.1") + ipv4(f"10.2.0.{host}") + struct.pack(">HII", ingress, 10, 1000)


def report(*datagrams: bytes) -> tuple[Cells, set[str]]:
    """Destination → octets, ingress interface; and the flags. No datagram is taken for lost."""
    session = FlowSession()
    flows = FlowAggregator("net", {FROM[0]: "R"}, bin_ns=5 * S)
    for datagram in datagrams:
        for batch in session.decode(datagram, FROM):
            flows.add(batch, T0)
    assert session.lost_records[FROM[0]] == 0
    reports = [one for one in flows.close(T0 + 60 * S) if isinstance(one, FlowReport)]
    cells = {c.destination: (c.octets, c.ingress_interface) for one in reports for c in one.cells}
    assert sum(len(one.cells) for one in reports) == len(cells)
    return cells, {flag for one in reports for flag in one.quality}


ONE: Cells = {"10.2.0.1/32": (1000.0, 3)}
TIMES_100: Cells = {"10.2.0.1/32": (100_000.0, 3)}
DATA = any_set(256, flow())
SAMPLER = v9_options_template(257, [(1, 4)], [(48, 4), (84, 8), (49, 1), (50, 4)])
SAMPLER_1 = struct.pack(">II8sBI", 0, 1, b"S", 2, 100)
EXPORTER_34: Fields = [(144, 4), (41, 8), (42, 8), (34, 4), (36, 2), (37, 2)]

PITFALLS: dict[str, tuple[tuple[bytes, ...], Cells]] = {
    "goflow2 #499, #504: zeros behind the last FlowSet of version 9": (
        tuple(v9(v9_template(256, FLOW), DATA) + bytes(padding) for padding in (1, 2, 3, 4, 7)),
        {"10.2.0.1/32": (5000.0, 3)},
    ),
    "goflow2 #76: variable length in version 9": (
        (v9(v9_template(256, [*FLOW, (96, VARIABLE)]), any_set(256, flow() + b"\x03dns" + flow(2) + b"\0")),),
        ONE | {"10.2.0.2/32": (1000.0, 3)},
    ),
    "nfdump #56: padding of version 9 that is longer than a record": (
        (v9(v9_template(256, FLOW), any_set(256, flow() + bytes(24))),),
        ONE,
    ),
    "beats #18098: four to seven octets of padding behind a template": (
        tuple(
            message(any_set(2, template(256, FLOW)[4:] + bytes(padding)), DATA, sequence=padding - 4)
            for padding in range(4, 8)
        ),
        {"10.2.0.1/32": (4000.0, 3)},
    ),
    "fluent-plugin-netflow #33: an options FlowSet of version 9 padded, or not": (
        (
            v9(v9_options_template(257, [(1, 4)], [(48, 1), (50, 4)], padding=2), v9_template(256, FLOW)),
            v9(v9_options_template(258, [(1, 4)], [(41, 4)]), DATA, sequence=1),
        ),
        ONE,
    ),
    "akvorado #89: template, sampler and data in one message, the data before the sampler": (
        (
            v9(
                SAMPLER,
                v9_template(256, [*FLOW, (48, 1)]),
                any_set(256, flow() + b"\x01"),
                any_set(257, SAMPLER_1),
            ),
        ),
        TIMES_100,
    ),
    "akvorado #997: several samplers of one box, each record its own": (
        (
            v9(
                v9_options_template(257, [(1, 4)], [(48, 1), (50, 4)]),
                any_set(257, struct.pack(">IBI", 0, 1, 100) + struct.pack(">IBI", 0, 2, 10)),
                v9_template(256, [*FLOW, (48, 2)]),
                any_set(256, flow() + b"\x00\x01" + flow(2) + b"\x00\x02" + flow(3) + b"\x00\x07"),
            ),
        ),
        TIMES_100 | {"10.2.0.2/32": (10_000.0, 3), "10.2.0.3/32": (1000.0, 3)},
    ),
    "pmacct #663: selectorId of 16 bits here and 32 bits there; 309 of 310": (
        (
            message(
                options_template(400, 1, [(302, 2), (309, 4), (310, 4)]),
                any_set(400, struct.pack(">HII", 7, 10, 1000)),
                template(256, [*FLOW, (302, 4)]),
                any_set(256, flow() + struct.pack(">I", 7)),
            ),
        ),
        TIMES_100,
    ),
    "nfdump #410, goflow2 #440: one packet and a space of 99": (
        (
            message(
                options_template(400, 1, [(302, 2), (305, 4), (306, 4)]),
                any_set(400, struct.pack(">HII", 7, 1, 99)),
                template(256, FLOW),
                DATA,
            ),
        ),
        TIMES_100,
    ),
    "nfdump #231, #237: samplingInterval in the options of the whole exporter": (
        (
            message(
                options_template(512, 1, EXPORTER_34),
                any_set(512, struct.pack(">IQQIHH", 1, 5, 5, 100, 60, 60)),
                template(256, FLOW),
                DATA,
            ),
        ),
        TIMES_100,
    ),
    "nfdump #159: another source port is another session, and its template is not applied": (
        (message(template(256, FLOW)), message(DATA, domain=8)),
        {},
    ),
    "netflow_parser #311: defined and withdrawn in one set": (
        (message(any_set(2, template(256, FLOW)[4:] + struct.pack(">HH", 256, 0)), DATA),),
        {},
    ),
    "netflow_parser #320: an options template is withdrawn without a scope count": (
        (
            message(options_template(400, 1, [(302, 2), (34, 4)])),
            message(withdrawal(3, 400), template(256, FLOW), DATA),
        ),
        ONE,
    ),
    "goflow2 #105: the physical interface where the logical one is zero": (
        (
            message(
                template(256, [*FLOW, (252, 4)]),
                any_set(256, flow(1, 0) + struct.pack(">I", 9) + flow(2, 3) + struct.pack(">I", 9)),
            ),
        ),
        {"10.2.0.1/32": (1000.0, 9), "10.2.0.2/32": (1000.0, 3)},
    ),
    "nProbe #208: template and options template records do not advance IPFIX's number": (
        (
            message(template(256, FLOW), DATA, sequence=100),
            message(template(256, FLOW), options_template(400, 1, [(302, 2), (34, 4)]), sequence=101),
            message(DATA, sequence=101),
        ),
        {"10.2.0.1/32": (2000.0, 3)},
    ),
    "ipfixcol #118: an exporter that does not count its options records": (
        (
            message(template(256, FLOW), options_template(400, 1, [(302, 2), (41, 4)]), DATA, sequence=100),
            message(any_set(400, bytes(6)), DATA, sequence=101),
            message(DATA, sequence=102),
        ),
        {"10.2.0.1/32": (3000.0, 3)},
    ),
}


@pytest.mark.parametrize("pitfall", PITFALLS)
def test_a_pitfall_of_flow_export_is_counted_right(pitfall: str) -> None:
    """The cells are those of the traffic, nothing is flagged, and nothing is taken for lost."""
    datagrams, cells = PITFALLS[pitfall]
    assert report(*datagrams) == (cells, set())


TIMED: Fields = [(8, 4), (12, 4), (10, 2), (2, 4), (1, 4), (22, 4), (21, 4)]
BOOT_MS = SENT_S * 1000 - UPTIME_MS
UPTIMES = struct.pack(">II", UPTIME_MS - 9_000, UPTIME_MS - 6_000)  # from 9 s to 6 s before it was sent
TIMES = {
    "goflow2 #305, #325: uptimes of version 9 are milliseconds": v9(
        v9_template(256, TIMED), any_set(256, flow() + UPTIMES)
    ),
    "goflow2 #303: uptimes of version 5": v5(
        v5_record(
            ipv4("10.1.0.1"), ipv4("10.2.0.1"), packets=10, octets=1000,
            first_ms=UPTIME_MS - 9_000, last_ms=UPTIME_MS - 6_000,
        )
    ),
    "goflow2 #406: Mikrotik's systemInitTimeMilliseconds behind the uptimes": message(
        template(256, [*TIMED, (160, 8)]), any_set(256, flow() + UPTIMES + struct.pack(">Q", BOOT_MS))
    ),
    "goflow2 #33, nfdump #38: microseconds before the export time (Open vSwitch)": message(
        template(256, [*FLOW, (158, 4), (159, 4)]),
        any_set(256, flow() + struct.pack(">II", 9_000_000, 6_000_000)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("pitfall", TIMES)
def test_a_pitfall_of_times_ends_in_the_right_bin(pitfall: str) -> None:
    """However its times are told, a flow that ended six seconds ago counts in the bin of then."""
    flows = FlowAggregator("net", {FROM[0]: "R"}, bin_ns=5 * S)
    for batch in FlowSession().decode(TIMES[pitfall], FROM):
        flows.add(batch, T0)
    reports = [one for one in flows.close(T0 + 60 * S) if isinstance(one, FlowReport) and one.cells]
    assert {(one.start_ns - T0) // S: one.cells[0].octets for one in reports} == {-10: 1000.0}
    assert {flag for one in reports for flag in one.quality} <= {"supplement"}


def test_a_start_far_in_the_future_does_not_take_the_flow_along() -> None:
    """antrea #1417: a start of the year 2042 and an end of today; the end is believed."""
    times = struct.pack(">II", SENT_S + 678_313_707, SENT_S)
    flows = FlowAggregator("net", {FROM[0]: "R"}, bin_ns=5 * S)
    for batch in FlowSession().decode(
        message(template(256, [*FLOW, (150, 4), (151, 4)]), any_set(256, flow() + times)), FROM
    ):
        flows.add(batch, T0)
    reports = [one for one in flows.close(T0 + 10 * S) if isinstance(one, FlowReport) and one.cells]
    assert {(one.start_ns - T0) // S: one.cells[0].octets for one in reports} == {0: 1000.0}
