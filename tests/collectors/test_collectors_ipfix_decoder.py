"""The IPFIX decoder: bytes in, columns out; whole, torn, mutated, reordered and lost."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import IPv4Address

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfix_bytes import (
    EXAMPLE,
    EXAMPLE_DATA,
    EXAMPLE_DATA_SET,
    EXAMPLE_FIELDS,
    EXAMPLE_ROWS,
    EXAMPLE_TEMPLATE,
    VARIABLE,
    Fields,
    any_set,
    ipv4,
    message,
    options_template,
    template,
    withdrawal,
)

from collectors.flows import decoder as module
from collectors.flows import elements as ie
from collectors.flows.batch import RecordBatch, join
from collectors.flows.decoder import FlowSession
from collectors.flows.sequence import Sequence
from twin.errors import DecodeError

FROM = ("192.0.2.200", 50000)
OTHER_PORT = ("192.0.2.200", 50001)


def _rows(batch: RecordBatch) -> list[tuple[str, str, int, int]]:
    columns = [batch.integers(id) for id in (ie.SOURCE_IPV4, ie.DESTINATION_IPV4, ie.PACKETS, ie.OCTETS)]
    assert all(column is not None for column in columns)
    return [
        (str(IPv4Address(int(s))), str(IPv4Address(int(d))), int(p), int(o))
        for s, d, p, o in zip(*columns, strict=True)  # type: ignore[arg-type]  # asserted above
    ]


EXPECTED = [
    (source, destination, packets, octets) for source, destination, _, packets, octets in EXAMPLE_ROWS
]


def test_the_example_of_the_rfc_is_read() -> None:
    """Template and data of RFC 7011 appendix A give their three records."""
    (batch,) = FlowSession().decode(EXAMPLE, FROM)
    assert _rows(batch) == EXPECTED
    assert (batch.address, batch.domain, batch.export_time_s, batch.is_options) == (
        FROM[0],
        7,
        1_000_000_000,
        False,
    )


@pytest.mark.parametrize("length", range(len(EXAMPLE)))
def test_a_truncated_datagram_is_a_decode_error(length: int) -> None:
    """Cut anywhere, the message is refused, and the session goes on as before."""
    session = FlowSession()
    with pytest.raises(DecodeError):
        session.decode(EXAMPLE[:length], FROM)
    assert _rows(session.decode(EXAMPLE, FROM)[0]) == EXPECTED


@pytest.mark.parametrize("length", range(len(EXAMPLE) - 16))
def test_a_message_that_is_short_inside_is_a_decode_error_or_nothing_wrong(length: int) -> None:
    """With the length corrected to the cut, only cuts between sets or records are messages."""
    session = FlowSession()
    cut = message(EXAMPLE[16 : 16 + length])
    if length in (0, len(EXAMPLE_TEMPLATE)):
        assert session.decode(cut, FROM) == []
    else:
        with pytest.raises(DecodeError):
            session.decode(cut, FROM)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_decode_error(data: bytes) -> None:
    """No datagram raises anything but DecodeError."""
    with contextlib.suppress(DecodeError):
        FlowSession().decode(data, FROM)


VARIABLE_FIELDS: Fields = [(8, 4), (82, VARIABLE), (2, 8), (100, VARIABLE, 9)]
OPTIONS_FIELDS: Fields = [(302, 8), (304, 2), (305, 4), (306, 4)]
RICH = message(
    EXAMPLE_TEMPLATE,
    template(300, VARIABLE_FIELDS),
    options_template(400, 1, OPTIONS_FIELDS),
    any_set(400, struct.pack(">QHII", 1, 1, 1, 9)),
    any_set(300, ipv4("10.0.0.1") + b"\x04eth0" + struct.pack(">Q", 5) + b"\xff\x00\x03abc"),
    EXAMPLE_DATA_SET,
)


@given(st.lists(st.tuples(st.integers(0, len(RICH) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=300)
def test_mutated_messages_never_raise_anything_else(changes: list[tuple[int, int]]) -> None:
    """Whatever octets change, the answer is batches or DecodeError, and the state stays bounded."""
    datagram = bytearray(RICH)
    for at, value in changes:
        datagram[at] = value
    session = FlowSession()
    for _ in range(2):
        try:
            batches = session.decode(bytes(datagram), FROM)
        except DecodeError:
            continue
        for batch in batches:
            for id in (ie.PACKETS, ie.OCTETS, ie.SELECTOR_ID, ie.START_MS, ie.END_NS):
                column = batch.integers(id)
                assert column is None or len(column) == len(batch)


# ------------------------------------------------------------------------------------------- templates


def test_variable_length_enterprise_and_options_are_read() -> None:
    """Both length encodings, an enterprise element, and an options record that sets the sampling ratio."""
    options, variable, fixed = FlowSession().decode(RICH, FROM)
    assert options.is_options
    assert variable.octets(82) == [b"eth0"]
    assert variable.octets(100, enterprise=9) == [b"abc"]
    assert variable.octets(100) is None
    assert variable.integers(ie.PACKETS) is not None
    assert (variable.ratio, fixed.ratio) == (10.0, 10.0)


def test_records_with_only_variable_fields_are_counted() -> None:
    """A template without fixed fields is walked all the same."""
    data = message(template(300, [(82, VARIABLE)]), any_set(300, b"\x01a\x00\x02bc"))
    (batch,) = FlowSession().decode(data, FROM)
    assert (len(batch), batch.octets(82)) == (3, [b"a", b"", b"bc"])


@pytest.mark.parametrize(
    "record", [b"\x05abc", b"\xff\x00", b"\xff\xff\xff", b"\x03abc\x02x", ipv4("10.0.0.1") * 2]
)
def test_a_variable_field_that_runs_over_is_a_decode_error(record: bytes) -> None:
    """A length beyond the end of the set is refused."""
    data = message(template(300, [(82, VARIABLE)]), any_set(300, record))
    with pytest.raises(DecodeError):
        FlowSession().decode(data, FROM)


def test_reduced_size_integers_are_widened() -> None:
    """Unsigned integers may come in 1 to 8 octets (RFC 7011 section 6.2)."""
    for size in range(1, 9):
        value = 2 ** (8 * size - 1) - 1
        data = message(
            template(256, [(1, size), (2, 1)]), any_set(256, value.to_bytes(size, "big") + b"\x05")
        )
        (batch,) = FlowSession().decode(data, FROM)
        octets, packets = batch.integers(ie.OCTETS), batch.integers(ie.PACKETS)
        assert octets is not None
        assert packets is not None
        assert (octets.tolist(), packets.tolist()) == ([value], [5])


@pytest.mark.parametrize("padding", [0, 1, 3, 19])
def test_padding_is_no_record(padding: int) -> None:
    """What is shorter than a record at the end of a set is padding, also behind templates."""
    padded = any_set(2, EXAMPLE_TEMPLATE[4:] + bytes(padding % 4))
    data = message(padded, any_set(256, EXAMPLE_DATA + bytes(padding)))
    (batch,) = FlowSession().decode(data, FROM)
    assert _rows(batch) == EXPECTED


def test_an_element_that_comes_twice_keeps_its_first_value() -> None:
    """Repeated elements are legal; the first is the one that is asked for."""
    data = message(template(256, [(2, 1), (2, 1)]), any_set(256, b"\x05\x06"))
    (batch,) = FlowSession().decode(data, FROM)
    packets = batch.integers(ie.PACKETS)
    assert packets is not None
    assert packets.tolist() == [5]


@pytest.mark.parametrize("gone", [(2, 256), (2, 2)])
def test_a_withdrawn_template_is_forgotten(gone: tuple[int, int]) -> None:
    """By its id, or all of its kind; options templates stay when templates go."""
    session = FlowSession()
    session.decode(message(EXAMPLE_TEMPLATE, options_template(400, 1, OPTIONS_FIELDS)), FROM)
    session.decode(message(withdrawal(*gone)), FROM)
    assert session.decode(message(EXAMPLE_DATA_SET), FROM) == []
    assert len(session.decode(message(any_set(400, struct.pack(">QHII", 1, 1, 1, 9))), FROM)) == 1


def test_a_template_that_changes_is_followed() -> None:
    """Data after the change is read by the new template, data before by the old."""
    session = FlowSession()
    changed = message(EXAMPLE_DATA_SET, template(256, [(2, 1)]), any_set(256, b"\x09"), sequence=0)
    session.decode(message(EXAMPLE_TEMPLATE), FROM)
    old, new = session.decode(changed, FROM)
    assert _rows(old) == EXPECTED
    assert len(new) == 1
    assert session.counters.templates_changed == 1


@pytest.mark.parametrize(
    "bad",
    [
        template(255, EXAMPLE_FIELDS),
        any_set(2, struct.pack(">HH", 256, 5) + bytes(7)),
        any_set(2, struct.pack(">HHHH", 256, 1, 0x8001, 4)),
        any_set(2, struct.pack(">HH", 256, 60000)),
        options_template(400, 0, OPTIONS_FIELDS),
        options_template(400, 5, OPTIONS_FIELDS),
        template(256, [(210, 0)]),
        any_set(4, b"reserved"),
        any_set(0, b""),
        any_set(256, b"")[:2] + b"\x00\x03",
    ],
)
def test_impossible_templates_and_sets_are_refused(bad: bytes) -> None:
    """Reserved ids, field lists that do not fit, scopes that are none, empty records."""
    with pytest.raises(DecodeError):
        FlowSession().decode(message(bad), FROM)


@pytest.mark.parametrize("version", [0, 1, 7, 8, 11])
def test_other_protocols_are_named(version: int) -> None:
    """Whatever else comes to this port gets a line that says what to set."""
    with pytest.raises(DecodeError, match=rf"version {version} is neither IPFIX \(10\) nor NetFlow 9 or 5"):
        FlowSession().decode(struct.pack(">H", version) + bytes(30), FROM)


# ------------------------------------------------------------------------------------ data before template


def test_data_before_its_template_is_held() -> None:
    """It is decoded when the template comes, with the time it was sent at."""
    session = FlowSession()
    assert session.decode(message(EXAMPLE_DATA_SET, time_s=1000), FROM) == []
    (batch,) = session.decode(message(EXAMPLE_TEMPLATE, time_s=1005), FROM)
    assert _rows(batch) == EXPECTED
    assert batch.export_time_s == 1000


def test_held_data_has_an_end() -> None:
    """Too old, too much or not fitting its template: dropped and counted, never kept for ever."""
    session = FlowSession()
    for _ in range(module.MAX_HELD_SETS + 5):
        session.decode(message(EXAMPLE_DATA_SET, time_s=1000), FROM)
    assert session.counters.sets_dropped == 5
    assert session.decode(message(EXAMPLE_TEMPLATE, time_s=1000 + module.MAX_HELD_S + 1), FROM) == []
    session.decode(message(any_set(257, b"\x01"), time_s=1000), FROM)
    assert session.decode(message(template(257, EXAMPLE_FIELDS), time_s=1000), FROM) == []
    assert session.counters.sets_dropped == module.MAX_HELD_SETS + 6


def test_templates_belong_to_exporter_port_and_domain() -> None:
    """A template of one session is never applied to data of another (RFC 7011 section 8)."""
    session = FlowSession()
    session.decode(message(EXAMPLE_TEMPLATE), FROM)
    assert session.decode(message(EXAMPLE_DATA_SET), OTHER_PORT) == []
    assert session.decode(message(EXAMPLE_DATA_SET, domain=8), FROM) == []
    assert session.decode(message(EXAMPLE_DATA_SET), ("192.0.2.201", FROM[1])) == []
    assert len(session.decode(message(EXAMPLE_DATA_SET), FROM)) == 1


def test_the_number_of_sessions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session that was not heard for longest is forgotten first."""
    monkeypatch.setattr(module, "MAX_STREAMS", 2)
    session = FlowSession()
    for port in (1, 2, 1, 3):
        session.decode(message(EXAMPLE_TEMPLATE), (FROM[0], port))
    known = [bool(session.decode(message(EXAMPLE_DATA_SET), (FROM[0], port))) for port in (3, 1, 2)]
    assert known == [True, True, False]


# --------------------------------------------------------------------------------------------- sequence

# steps: (sequence number, records in the message) → records lost in the end
SEQUENCES = [
    ("in order", [(0, 3), (3, 3), (6, 3)], 0),
    ("starts anywhere", [(1000, 3), (1003, 3)], 0),
    ("a gap", [(0, 3), (9, 3)], 6),
    ("two gaps", [(0, 3), (6, 3), (12, 3)], 6),
    ("late message gives back", [(0, 3), (6, 3), (3, 3), (9, 3)], 0),
    ("two late in a row", [(0, 3), (9, 3), (3, 3), (6, 3), (12, 3)], 0),
    ("duplicate", [(0, 3), (0, 3), (3, 3)], 0),
    ("restart from zero", [(5000, 3), (5003, 3), (0, 3), (3, 3), (6, 3)], 0),
    ("gap after a restart", [(5000, 3), (0, 3), (3, 3), (9, 3)], 3),
    ("wrap", [(2**32 - 3, 3), (0, 3)], 0),
    ("gap across the wrap", [(2**32 - 6, 3), (0, 3)], 3),
    ("jump is no loss", [(0, 3), (2_000_000_000, 3)], 0),
]


@pytest.mark.parametrize(("steps", "lost"), [s[1:] for s in SEQUENCES], ids=[s[0] for s in SEQUENCES])
def test_the_sequence_number_tells_losses(steps: list[tuple[int, int]], lost: int) -> None:
    """Gaps count, late messages give back, duplicates and restarts are neither."""
    session = FlowSession()
    session.decode(message(EXAMPLE_TEMPLATE, sequence=steps[0][0]), FROM)
    for sequence, _ in steps:
        session.decode(message(EXAMPLE_DATA_SET, sequence=sequence), FROM)
    assert session.lost_records[FROM[0]] == lost


def test_templates_do_not_count_and_options_do() -> None:
    """RFC 7011 section 3.1: data records of options templates advance the number, templates do not."""
    session = FlowSession()
    option = any_set(400, struct.pack(">QHII", 1, 1, 1, 0))
    session.decode(
        message(EXAMPLE_TEMPLATE, options_template(400, 1, OPTIONS_FIELDS), option, sequence=0), FROM
    )
    session.decode(message(EXAMPLE_TEMPLATE, EXAMPLE_DATA_SET, sequence=1), FROM)
    session.decode(message(EXAMPLE_DATA_SET, sequence=4), FROM)
    assert session.lost_records[FROM[0]] == 0


def test_sets_that_are_held_or_malformed_are_not_taken_for_losses() -> None:
    """Where records cannot be counted, the next message sets the number anew."""
    session = FlowSession()
    session.decode(message(EXAMPLE_DATA_SET, sequence=0), FROM)
    session.decode(message(EXAMPLE_TEMPLATE, sequence=3), FROM)
    with pytest.raises(DecodeError):
        session.decode(message(any_set(256, b"short"), sequence=3), FROM)
    session.decode(message(EXAMPLE_DATA_SET, sequence=900), FROM)
    assert session.lost_records[FROM[0]] == 0


# --------------------------------------------------------------------------------------------- sampling

SAMPLERS: list[tuple[Fields, bytes, float]] = [
    ([(302, 8), (305, 4), (306, 4)], struct.pack(">QII", 1, 1, 99), 100.0),
    ([(302, 8), (305, 4), (306, 4)], struct.pack(">QII", 1, 10, 990), 100.0),
    ([(149, 4), (34, 4), (35, 1)], struct.pack(">IIB", 7, 512, 1), 512.0),
    ([(48, 1), (49, 1), (50, 4)], struct.pack(">BBI", 3, 2, 1024), 1024.0),
    ([(302, 8), (309, 4), (310, 4)], struct.pack(">QII", 1, 2, 100), 50.0),
    ([(302, 8), (311, 8)], struct.pack(">Qd", 1, 0.01), 100.0),
    ([(302, 8), (305, 4), (306, 4)], struct.pack(">QII", 1, 0, 99), 1.0),
    ([(302, 8), (34, 4)], struct.pack(">QI", 1, 0), 1.0),
]


@pytest.mark.parametrize(("fields", "record", "ratio"), SAMPLERS)
def test_every_way_to_tell_the_sampling_ratio(fields: Fields, record: bytes, ratio: float) -> None:
    """A domain's only sampler applies to all its records; zeros mean no sampling."""
    session = FlowSession()
    session.decode(message(options_template(400, 1, fields), any_set(400, record), EXAMPLE_TEMPLATE), FROM)
    (batch,) = session.decode(message(EXAMPLE_DATA_SET), FROM)
    assert batch.ratio == pytest.approx(ratio)


def test_several_samplers_are_told_apart() -> None:
    """A record that names its sampler is scaled by that one; an unknown one, and a record without, by 1."""
    session = FlowSession()
    samplers = struct.pack(">QII", 1, 1, 9) + struct.pack(">QII", 2, 1, 99)
    session.decode(
        message(options_template(400, 1, [(302, 8), (305, 4), (306, 4)]), any_set(400, samplers)), FROM
    )
    named = template(256, [(302, 1), (2, 1)])
    (batch,) = session.decode(message(named, any_set(256, b"\x01\x05\x02\x05\x03\x05")), FROM)
    assert np.asarray(batch.ratio).tolist() == [10.0, 100.0, 1.0]
    (plain,) = session.decode(message(template(257, EXAMPLE_FIELDS), any_set(257, EXAMPLE_DATA)), FROM)
    assert plain.ratio == 1.0


# ------------------------------------------------------------------------------------------------ times

NTP_2001 = 3_208_988_800  # 1970 plus 10^9 s, in NTP seconds
TIMES = [
    (ie.START_S, struct.pack(">I", 1_000_000_000), 1_000_000_000_000_000_000),
    (ie.START_MS, struct.pack(">Q", 1_000_000_000_123), 1_000_000_000_123_000_000),
    (ie.START_US, struct.pack(">II", NTP_2001, 2**31), 1_000_000_000_500_000_000),
    (ie.START_NS, struct.pack(">II", NTP_2001, 2**30), 1_000_000_000_250_000_000),
]


@pytest.mark.parametrize(("element", "octets", "expected_ns"), TIMES)
def test_times_become_nanoseconds(element: int, octets: bytes, expected_ns: int) -> None:
    """Seconds, milliseconds, and the NTP form of micro- and nanoseconds (RFC 7011 section 6.1)."""
    data = message(template(256, [(element, len(octets))]), any_set(256, octets))
    (batch,) = FlowSession().decode(data, FROM)
    times = batch.times_ns(element)
    assert times is not None
    assert times.tolist() == [expected_ns]
    assert batch.times_ns(ie.END_S) is None


def test_batches_of_one_template_join() -> None:
    """Joined batches are their records in order, each with its own sampling ratio."""
    session = FlowSession()
    (first,) = session.decode(EXAMPLE, FROM)
    session.decode(
        message(options_template(400, 1, [(302, 8), (34, 4)]), any_set(400, struct.pack(">QI", 1, 4))), FROM
    )
    (second,) = session.decode(message(EXAMPLE_DATA_SET), FROM)
    joined = join([first, second])
    assert _rows(joined) == EXPECTED + EXPECTED
    assert np.asarray(joined.ratio).tolist() == [1.0] * 3 + [4.0] * 3
    assert join([first]) is first


def test_softflowd_counts_after_its_records_and_leaves_options_out() -> None:
    """Its numbers, as captured: nothing is lost until a message is."""
    sequence = Sequence()
    captured = [(14, 15, 1), (28, 14, 0), (42, 15, 1), (56, 14, 0)]
    assert [sequence.take(*message) for message in captured] == [0, 0, 0, 0]
    assert sequence.take(84, 14, 0) == 14
