"""Flows that pmacct and goflow2 write to Kafka become the same cells as those we decode ourselves."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.flows import elements as ie
from collectors.flows.aggregate import FlowAggregator
from collectors.flows.columns import times
from collectors.flows.foreign import read_foreign
from collectors.flows.settings import ForeignFormat
from twin.errors import DecodeError
from twin.records import FlowCell, FlowReport

S = 1_000_000_000
T0_S = 1_764_115_200  # 2025-11-26 00:00:00 UTC
# As nfacctd 1.7.7 (Debian) wrote it, with other times; goflow2's fields by its own documentation.
PMACCT = (
    b'{"event_type": "purge", "peer_ip_src": "192.0.2.1", "iface_in": 3, "ip_dst": "10.2.14.9", '
    b'"mask_dst": 16, "tos": 184, "sampling_rate": 10, "timestamp_start": "2025-11-26 00:00:01.000000", '
    b'"timestamp_end": "2025-11-26 00:00:02.000000", "stamp_inserted": "2025-11-26 00:00:00", '
    b'"stamp_updated": "2025-11-26 00:01:01", "packets": 7, "bytes": 5181}'
)
GOFLOW2 = json.dumps(
    {
        "type": "IPFIX", "time_received_ns": (T0_S + 3) * S, "sequence_num": 1, "sampling_rate": 10,
        "sampler_address": "192.0.2.1", "time_flow_start_ns": (T0_S + 1) * S,
        "time_flow_end_ns": (T0_S + 2) * S, "bytes": 5181, "packets": 7, "src_addr": "10.1.0.14",
        "src_net": "10.1.0.0/16", "dst_addr": "10.2.14.9", "dst_net": "10.2.0.0/16", "etype": "IPv4",
        "proto": "UDP", "src_port": 53, "dst_port": 53, "in_if": 3, "out_if": 4, "ip_tos": 184,
    }
).encode()  # fmt: skip
BOTH: list[tuple[ForeignFormat, bytes]] = [("pmacct", PMACCT), ("goflow2", GOFLOW2)]
# Made by Google's protobuf (Python, upb) of the fields of goflow2's pb/flow.proto, its length before it.
PROTOBUF = bytes.fromhex(
    "580804180a204d32040a0100093a040a020e0948bd2850075a04c0000201880110900103980104b801b801f0018010b20606"
    "f4f703f5f703f00680bcb98de3add9bd18f80680f9fdcadcadd9bd18800780f2839fe1add9bd18"
)
ALL: list[tuple[ForeignFormat, bytes]] = [*BOTH, ("goflow2-protobuf", PROTOBUF)]


def _changed(format: ForeignFormat, payload: bytes, **fields: object) -> bytes:
    names = {"pmacct": ("ip_dst", "mask_dst"), "goflow2": ("dst_addr", "dst_net")}[format]
    known = json.loads(payload)
    renamed = {{"destination": names[0], "length": names[1]}.get(k, k): v for k, v in fields.items()}
    return json.dumps(known | renamed).encode()


def protobuf_without(message: bytes, field: bytes) -> bytes:
    """A delimited message without one of its fields; its length fits one octet."""
    body = message[1:].replace(field, b"")
    assert len(body) + len(field) == message[0]
    return bytes([len(body)]) + body


@pytest.mark.parametrize(("format", "payload"), ALL)
def test_a_message_becomes_a_cell(format: ForeignFormat, payload: bytes) -> None:
    """Masked, scaled by its sampling, with class and interface, in the bin of its time."""
    sums = FlowAggregator("net", {"192.0.2.1": "WA"}, bin_ns=5 * S)
    for batch in read_foreign(format, payload):
        sums.add(batch, (T0_S + 3) * S)
    (report,) = [r for r in sums.close((T0_S + 9) * S) if isinstance(r, FlowReport) and r.cells]
    cell = FlowCell(
        destination="10.2.0.0/16", octets=51_810.0, packets=70.0, traffic_class=46, ingress_interface=3
    )
    assert (report.device, report.start_ns, report.cells) == ("WA", T0_S * S, (cell,))
    assert (report.sampling_ratio, report.quality) == (10.0, ())


@pytest.mark.parametrize(("format", "payload"), BOTH)
def test_ipv6_and_hosts_without_a_prefix_are_read(format: ForeignFormat, payload: bytes) -> None:
    """Length 0 is how both say that they know none."""
    (batch,) = read_foreign(format, _changed(format, payload, destination="2001:db8:1::4", length=0))
    halves = batch.halves(ie.DESTINATION_IPV6)
    assert halves is not None
    assert (hex(int(halves[0][0])), int(halves[1][0])) == ("0x20010db800010000", 4)
    assert batch.or_zero(ie.DESTINATION_PREFIX_V6).tolist() == [128]


def test_several_protobuf_messages_are_several_flows() -> None:
    """One behind the other, with addresses of both families and fields that nobody here knows."""
    six = PROTOBUF[1:].replace(b"\x3a\x04\x0a\x02\x0e\x09", b"\x3a\x10" + bytes(15) + b"\x07")
    unknown = b"\x09" + bytes(8) + b"\x0d" + bytes(4)  # fields 1 of fixed sizes
    other = bytes([len(six) + len(unknown)]) + six + unknown
    four, sixes = read_foreign("goflow2-protobuf", PROTOBUF + other + PROTOBUF)
    assert (len(four), len(sixes)) == (2, 1)
    assert four.or_zero(ie.START_MS).tolist() == [T0_S * 1000 + 1250] * 2
    assert sixes.octets(ie.DESTINATION_IPV6) == [bytes(15) + b"\x07"]


def test_several_lines_are_several_flows() -> None:
    """pmacct may put many into one message (kafka_multi_values); exporters are told apart."""
    other = _changed("pmacct", PMACCT, peer_ip_src="192.0.2.2")
    batches = read_foreign("pmacct", b"\n".join([PMACCT, other, PMACCT]) + b"\n")
    assert [(batch.address, len(batch)) for batch in batches] == [("192.0.2.1", 2), ("192.0.2.2", 1)]


def test_markers_of_pmacct_are_no_flows() -> None:
    """kafka_markers writes purge_init and purge_close around each batch."""
    assert read_foreign("pmacct", b'{"event_type": "purge_init", "writer_id": "default_kafka/1"}') == []


@pytest.mark.parametrize(
    ("start", "end", "expected_ms"),
    [
        ("1764115201.250000", "1764115202.500000", (1250, 2500)),
        ("2025-11-26T00:00:01.250000Z", "2025-11-26T01:00:02+01:00", (1250, 2000)),
        ("2025-11-26 00:00:01.250000", "2025-11-26 00:00:01", (1250, 1250)),
        # As nfacctd 1.7.7 writes what softflowd exports: it does not know when the flow ended.
        ("2025-11-26 00:00:02.000000", "0000-00-00 00:00:00.000000", (2000, 61_000)),
        ("0.000000", "1764115202.500000", (0, 2500)),
    ],
)
def test_times_of_pmacct_in_every_form(start: str, end: str, expected_ms: tuple[int, int]) -> None:
    """Since the epoch, RFC 3339, or plain, which is UTC; an end before the start is the start."""
    (batch,) = read_foreign("pmacct", _changed("pmacct", PMACCT, timestamp_start=start, timestamp_end=end))
    assert tuple(int(column[0]) // 1_000_000 - T0_S * 1000 for column in times(batch)) == expected_ms


def test_without_flow_times_the_bin_of_pmacct_counts() -> None:
    """Where timestamps are not among the primitives the history's stamps are what there is."""
    known = json.loads(PMACCT)
    plain = {name: value for name, value in known.items() if not name.startswith("timestamp")}
    (batch,) = read_foreign("pmacct", json.dumps(plain).encode())
    assert [int(column[0]) // S - T0_S for column in times(batch)] == [0, 61]


@pytest.mark.parametrize(
    ("format", "payload"),
    [
        ("pmacct", b""),
        ("pmacct", b"not json"),
        ("pmacct", b"[]"),
        ("pmacct", _changed("pmacct", PMACCT, peer_ip_src="")),
        ("pmacct", _changed("pmacct", PMACCT, peer_ip_src="somebody")),
        ("pmacct", _changed("pmacct", PMACCT, bytes=-1)),
        ("pmacct", _changed("pmacct", PMACCT, bytes=2**70)),
        ("pmacct", _changed("pmacct", PMACCT, length=64)),
        ("pmacct", _changed("pmacct", PMACCT, timestamp_start="yesterday")),
        (
            "pmacct",
            b'{"peer_ip_src": "192.0.2.1", "ip_dst": "10.2.0.1", "timestamp_start": "0000-00-00 00:00:00"}',
        ),
        ("pmacct", _changed("pmacct", PMACCT, timestamp_start="9" * 400)),
        ("goflow2", b"{}"),
        ("goflow2", _changed("goflow2", GOFLOW2, destination="nowhere")),
        ("goflow2", _changed("goflow2", GOFLOW2, time_flow_start_ns=-5)),
        ("goflow2", _changed("goflow2", GOFLOW2, ip_tos=300)),
        ("goflow2-protobuf", b""),
        ("goflow2-protobuf", PROTOBUF[:-1]),  # a message shorter than its length says
        ("goflow2-protobuf", PROTOBUF[1:]),  # without its length
        ("goflow2-protobuf", b"\x05" + bytes([0xFF] * 5)),  # a number without an end
        ("goflow2-protobuf", b"\x02\x0b\x00"),  # a group
        ("goflow2-protobuf", b"\xff\xff\xff\xff\x0f" + PROTOBUF),  # 4 GB announced
        ("goflow2-protobuf", b"\x02\x48\x07"),  # octets alone: no exporter, no destination, no time
        ("goflow2-protobuf", PROTOBUF.replace(b"\x5a\x04\xc0\x00\x02\x01", b"\x5a\x04\xc0\x00\x02")),
    ],
)
def test_what_is_no_flow_is_a_decode_error(format: ForeignFormat, payload: bytes) -> None:
    """Missing exporters, addresses and numbers that cannot be, other texts."""
    with pytest.raises(DecodeError, match=f"no flow of {format}"):
        read_foreign(format, payload)


NO_IP: list[tuple[ForeignFormat, bytes]] = [
    ("pmacct", _changed("pmacct", PMACCT, destination="", length=0)),
    ("goflow2", _changed("goflow2", GOFLOW2, destination="", length="")),
    ("goflow2-protobuf", protobuf_without(PROTOBUF, b"\x3a\x04\x0a\x02\x0e\x09")),
]


@pytest.mark.parametrize(("format", "payload"), NO_IP)
def test_what_is_no_ip_is_no_flow_and_no_error(format: ForeignFormat, payload: bytes) -> None:
    """ARP, say, which sFlow tells of: its destination is empty."""
    assert read_foreign(format, payload) == []


def test_a_missing_destination_says_which_key_to_add() -> None:
    """Not told is something else than empty."""
    known = json.loads(PMACCT)
    del known["ip_dst"]
    with pytest.raises(DecodeError, match="it lacks ip_dst: add dst_host to `aggregate`"):
        read_foreign("pmacct", json.dumps(known).encode())


@given(st.sampled_from(ALL), st.integers(0, 10**6), st.binary(max_size=4))
def test_mutated_messages_never_raise_anything_else(
    message: tuple[ForeignFormat, bytes], at: int, put: bytes
) -> None:
    """Whatever is written over the text: flows or DecodeError."""
    format, payload = message
    at %= len(payload)
    with contextlib.suppress(DecodeError):
        read_foreign(format, payload[:at] + put + payload[at + len(put) :])
