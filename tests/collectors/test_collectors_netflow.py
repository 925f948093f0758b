"""NetFlow 9 and 5: the same records as IPFIX makes, by the rules of their own headers."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfix_bytes import any_set, ipv4
from netflow_bytes import SENT_S, v5, v5_record, v9, v9_options_template, v9_template

from collectors.flows import elements as ie
from collectors.flows.aggregate import FlowAggregator
from collectors.flows.batch import RecordBatch
from collectors.flows.columns import times
from collectors.flows.decoder import FlowSession
from twin.errors import DecodeError
from twin.records import FlowReport

FROM = ("192.0.2.200", 50000)
MS = 1_000_000
FLOW = [(8, 4), (12, 4), (1, 4), (2, 4), (22, 4), (21, 4)]


def _flow(octets: int = 1500, packets: int = 3, first_ms: int = 499_000, last_ms: int = 499_500) -> bytes:
    numbers = struct.pack(">IIII", octets, packets, first_ms, last_ms)
    return ipv4("10.1.0.1") + ipv4("10.2.0.1") + numbers


def _column(batch: RecordBatch, id: int) -> list[int]:
    values: list[int] = batch.or_zero(id).tolist()
    return values


def test_a_v9_template_and_its_records_are_read() -> None:
    """Template FlowSet 0, data FlowSet 256 with padding; times count from the exporter's uptime."""
    session = FlowSession()
    (batch,) = session.decode(
        v9(v9_template(256, FLOW), any_set(256, _flow() + _flow(octets=9) + bytes(2))), FROM
    )
    assert (_column(batch, ie.OCTETS), _column(batch, ie.PACKETS)) == ([1500, 9], [3, 3])
    start_ns, end_ns = times(batch)
    assert (start_ns[0], end_ns[0]) == (SENT_S * 1000 * MS - 1000 * MS, SENT_S * 1000 * MS - 500 * MS)


def test_a_v9_options_template_counts_octets() -> None:
    """Scope and option lengths are octets; padding behind is none; the interface scope names the sampler."""
    options = v9_options_template(400, [(2, 2)], [(34, 4), (35, 1)], padding=2)
    told = struct.pack(">HIB", 5, 100, 1) + struct.pack(">HIB", 6, 10, 1)
    flow = v9_template(256, [(10, 2), (1, 4), (2, 4)])
    records = struct.pack(">HII", 5, 1, 1) + struct.pack(">HII", 6, 1, 1) + struct.pack(">HII", 7, 1, 1)
    read = FlowSession().decode(v9(options, any_set(400, told), flow, any_set(256, records)), FROM)
    assert [batch.is_options for batch in read] == [True, False]
    assert np.asarray(read[1].ratio).tolist() == [100.0, 10.0, 1.0]


def test_one_sampler_of_interface_zero_is_everybodys() -> None:
    """softflowd tells its sampling for interface 0 and leaves interfaces at 0 or out."""
    options = v9_options_template(400, [(2, 4)], [(34, 4)])
    session = FlowSession()
    session.decode(v9(options, any_set(400, struct.pack(">II", 0, 50)), v9_template(256, FLOW)), FROM)
    (batch,) = session.decode(v9(any_set(256, _flow())), FROM)
    assert batch.ratio == 50.0


def test_v5_records_are_read() -> None:
    """No template: the 48 octets are known; the header tells sampling and the time to the nanosecond."""
    record = v5_record(
        ipv4("10.1.0.1"), ipv4("10.2.0.1"), packets=7, octets=7000, first_ms=498_000, last_ms=499_000
    )
    (batch,) = FlowSession().decode(v5(record, sampling=0x4000 | 100, sent_ns=250 * MS), FROM)
    assert (_column(batch, ie.OCTETS), _column(batch, ie.PACKETS)) == ([7000], [7])
    assert (_column(batch, ie.SOURCE_PREFIX_V4), _column(batch, ie.DESTINATION_PREFIX_V4)) == ([24], [16])
    assert (_column(batch, ie.INGRESS), _column(batch, ie.TOS), _column(batch, ie.PROTOCOL)) == (
        [4],
        [184],
        [6],
    )
    assert batch.ratio == 100.0
    start_ns, end_ns = times(batch)
    sent_ns = SENT_S * 1000 * MS + 250 * MS
    assert (start_ns[0], end_ns[0]) == (sent_ns - 2000 * MS, sent_ns - 1000 * MS)


def test_v5_becomes_a_cell() -> None:
    """From bytes to the traffic matrix: masked, scaled, with class and interface."""
    record = v5_record(
        ipv4("10.1.0.1"), ipv4("10.2.3.1"), packets=7, octets=7000, first_ms=499_000, last_ms=499_500
    )
    sums = FlowAggregator("net", {FROM[0]: "WA"}, bin_ns=5_000 * MS)
    for batch in FlowSession().decode(v5(record, sampling=10), FROM):
        sums.add(batch, SENT_S * 1000 * MS)
    reports = [r for r in sums.close(SENT_S * 1000 * MS + 20_000 * MS) if isinstance(r, FlowReport)]
    (cell,) = [cell for report in reports for cell in report.cells]
    assert (cell.destination, cell.octets, cell.packets) == ("10.2.0.0/16", 70_000.0, 70.0)
    assert (cell.traffic_class, cell.ingress_interface) == (46, 4)


@pytest.mark.parametrize(
    ("first_ms", "uptime_ms", "ago_ms"),
    [(499_000, 500_000, 1000), (2**32 - 1000, 500, 1500), (500_010, 500_000, -10)],
)
def test_an_uptime_that_has_wrapped_is_followed(first_ms: int, uptime_ms: int, ago_ms: int) -> None:
    """32 bits of milliseconds start over after 49.7 days; a flow from before that is not 49 days old."""
    session = FlowSession()
    data = v9(
        v9_template(256, FLOW), any_set(256, _flow(first_ms=first_ms, last_ms=first_ms)), uptime_ms=uptime_ms
    )
    (batch,) = session.decode(data, FROM)
    assert times(batch)[1][0] == (SENT_S * 1000 - ago_ms) * MS


# ------------------------------------------------------------------------------------------- sequences


def test_v9_counts_messages() -> None:
    """Each lost message stands for as many records as messages had so far; a late one gives them back."""
    session = FlowSession()
    data = any_set(256, _flow() * 4)
    session.decode(v9(v9_template(256, FLOW), data, sequence=10), FROM)
    for sequence in (11, 12, 15):
        session.decode(v9(data, sequence=sequence), FROM)
    assert session.lost_records[FROM[0]] == 2 * 4
    session.decode(v9(data, sequence=13), FROM)
    assert session.lost_records[FROM[0]] == 4
    session.decode(v9(v9_template(256, FLOW), sequence=16), FROM)
    session.decode(v9(data, sequence=17), FROM)
    assert session.lost_records[FROM[0]] == 4


def test_v9_that_waits_for_its_template_loses_nothing() -> None:
    """Messages are counted whether or not their records can be."""
    session = FlowSession()
    for sequence in (1, 2):
        assert session.decode(v9(any_set(256, _flow()), sequence=sequence), FROM) == []
    (batch,) = session.decode(v9(v9_template(256, FLOW), sequence=3), FROM)
    assert len(batch) == 2
    assert session.lost_records[FROM[0]] == 0


def test_v5_counts_records() -> None:
    """The number is that of the message's first flow."""
    record = v5_record(ipv4("10.1.0.1"), ipv4("10.2.0.1"), packets=1, octets=1, first_ms=0, last_ms=0)
    session = FlowSession()
    for sequence in (0, 2, 6):
        session.decode(v5(record, record, sequence=sequence), FROM)
    assert session.lost_records[FROM[0]] == 2


def test_engines_and_protocols_do_not_mix() -> None:
    """Two engines of one exporter have their own numbers; a v9 template is not IPFIX's."""
    record = v5_record(ipv4("10.1.0.1"), ipv4("10.2.0.1"), packets=1, octets=1, first_ms=0, last_ms=0)
    session = FlowSession()
    for engine, sequence in ((1, 0), (2, 7000), (1, 1), (2, 7001)):
        session.decode(v5(record, sequence=sequence, engine=engine), FROM)
    assert session.lost_records[FROM[0]] == 0
    session.decode(v9(v9_template(256, FLOW)), FROM)
    ipfix = struct.pack(">HHIII", 10, 16 + 28, SENT_S, 0, 7) + any_set(256, _flow())
    assert session.decode(ipfix, FROM) == []


# ----------------------------------------------------------------------------------------- broken bytes

V5_MESSAGE = v5(
    *(v5_record(ipv4("10.1.0.1"), ipv4("10.2.0.1"), packets=1, octets=1, first_ms=0, last_ms=0),) * 2
)
V9_MESSAGE = v9(
    v9_template(256, FLOW),
    v9_options_template(400, [(2, 4), (1, 2)], [(34, 4)]),
    any_set(400, bytes(10)),
    any_set(256, _flow() * 2),
)


@pytest.mark.parametrize("length", range(len(V5_MESSAGE)))
def test_a_truncated_v5_is_a_decode_error(length: int) -> None:
    """The count in the header must be what the datagram has room for."""
    with pytest.raises(DecodeError):
        FlowSession().decode(V5_MESSAGE[:length], FROM)


@pytest.mark.parametrize(
    "bad",
    [
        v9(v9_template(255, FLOW)),
        v9(v9_template(256, [])[:-1] + b"\x01"),
        v9(any_set(0, struct.pack(">HHHH", 256, 2, 1, 4))),
        v9(any_set(1, struct.pack(">HHH", 400, 4, 4) + bytes(6))),
        v9(any_set(3, b"reserved")),
        v9(b"\x01\x00\x00\x03"),
        v9(b"\x01\x00"),
        v9(v9_template(256, [(1, 0)])),
    ],
)
def test_impossible_v9_is_refused(bad: bytes) -> None:
    """Ids below 256, lists that do not fit, reserved sets, records without octets."""
    with pytest.raises(DecodeError):
        FlowSession().decode(bad, FROM)


@given(
    st.sampled_from([V5_MESSAGE, V9_MESSAGE]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(max_examples=200)
def test_mutated_netflow_never_raises_anything_else(message: bytes, changes: list[tuple[int, int]]) -> None:
    """Whatever octets change, the answer is batches that can be summed, or DecodeError."""
    data = bytearray(message)
    for at, value in changes:
        data[at % len(data)] = value
    session, sums = FlowSession(), FlowAggregator("net", {FROM[0]: "WA"}, bin_ns=5_000 * MS)
    for _ in range(2):
        with contextlib.suppress(DecodeError):
            for batch in session.decode(bytes(data), FROM):
                sums.add(batch, SENT_S * 1000 * MS)
    sums.close(SENT_S * 1000 * MS + 20_000 * MS)


def test_v9_uptime_is_not_read_as_told_when_it_is_zero() -> None:
    """An exporter that has just started is at uptime 0, and its flows are of now."""
    data = v9(v9_template(256, FLOW), any_set(256, _flow(first_ms=0, last_ms=0)), uptime_ms=0)
    (batch,) = FlowSession().decode(data, FROM)
    assert times(batch)[1][0] == SENT_S * 1000 * MS
