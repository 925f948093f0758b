"""What hostile exporters cannot do: grow our state, take from others, or be read differently in a crowd."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfix_bytes import (
    EXAMPLE_DATA_SET,
    EXAMPLE_FIELDS,
    EXAMPLE_TEMPLATE,
    any_set,
    ipv4,
    message,
    options_template,
    template,
)
from netflow_bytes import v9, v9_template

from collectors.flows import aggregate, cache, decoder
from collectors.flows import elements as ie
from collectors.flows.aggregate import FlowAggregator, Granularity
from collectors.flows.batch import RecordBatch
from collectors.flows.burst import Burst, feed_burst
from collectors.flows.decoder import Exporter, FlowSession
from collectors.flows.framing import Framer
from twin.errors import DecodeError
from twin.records import FlowReport

S = 1_000_000_000
T0 = 1_000_000_000 * S
FROM, OTHER = ("192.0.2.200", 50000), ("192.0.2.201", 50000)
EVIL = "192.0.2.66"

# ------------------------------------------------------------------------------------------- templates


def _bomb(count: int) -> Iterator[bytes]:
    """Templates of a thousand elements each, all different."""
    for i in range(count):
        fields = [(1 + (i * 7 + k) % 30_000, 1 + k % 8) for k in range(1000)]
        yield message(template(256 + i % 60_000, fields), domain=i % 500)


def test_a_template_bomb_is_refused_and_harms_nobody_else() -> None:
    """Huge templates without end from one exporter: bounded memory, and another's are kept and read."""
    session = FlowSession()
    session.decode(message(EXAMPLE_TEMPLATE), OTHER)
    refused = 0
    tracemalloc.start()
    for datagram in _bomb(100):
        try:
            session.decode(datagram, (EVIL, 1))
        except DecodeError as error:
            refused += "not kept" in str(error)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > 60
    assert peak < 40e6
    assert len(session.decode(message(EXAMPLE_DATA_SET), OTHER)) == 1


def test_templates_may_change_for_ever() -> None:
    """The bound is on what is kept: redefining one template a thousand times is no bomb."""
    session = FlowSession()
    for i in range(1000):
        session.decode(message(template(256, [(1 + (i + k) % 400, 4) for k in range(300)])), FROM)
    assert session.counters.templates_changed == 999


def test_streams_of_one_exporter_do_not_push_out_anothers() -> None:
    """Somebody who forges every port of one address keeps 256 streams, and others keep theirs."""
    session = FlowSession()
    session.decode(message(EXAMPLE_TEMPLATE), OTHER)
    for port in range(1, 3 * decoder.MAX_STREAMS):
        session.decode(message(EXAMPLE_TEMPLATE), (EVIL, port))
    assert len(list(session.streams())) == decoder.MAX_STREAMS + 1
    assert len(session.decode(message(EXAMPLE_DATA_SET), OTHER)) == 1
    assert session.decode(message(EXAMPLE_DATA_SET), (EVIL, 1)) == []


def test_data_without_templates_does_not_push_out_anothers() -> None:
    """What one exporter's held sets take is its own room."""
    session = FlowSession()
    session.decode(message(EXAMPLE_DATA_SET), OTHER)
    for i in range(2 * decoder.MAX_HELD_SETS):
        session.decode(message(any_set(300 + i, bytes(1000))), (EVIL, 1))
    assert session.counters.sets_dropped == decoder.MAX_HELD_SETS
    assert len(session.decode(message(EXAMPLE_TEMPLATE), OTHER)) == 1


# ------------------------------------------------------------------------------------------------ cells

FIELDS = [(12, 4), (13, 1), (10, 4), (1, 8), (2, 8), (152, 8), (153, 8), (5, 1)]


def _flow(destination: int, start_s: float, end_s: float, ingress: int = 1, tos: int = 0) -> bytes:
    times_ms = [T0 // 1_000_000 + round(1000 * second) for second in (start_s, end_s)]
    return struct.pack(">IBIQQQQB", destination, 32, ingress, 1000, 10, *times_ms, tos)


def _summed(
    flows: list[bytes], at_s: float = 2, *, granularity: Granularity | None = None, worker: int = 0
) -> list[FlowReport]:
    session = FlowSession()
    sums = FlowAggregator("net", {FROM[0]: "WA"}, bin_ns=5 * S, granularity=granularity, worker=worker)
    session.decode(message(template(256, FIELDS)), FROM)
    for start in range(0, len(flows), 500):
        for batch in session.decode(message(any_set(256, b"".join(flows[start : start + 500]))), FROM):
            sums.add(batch, T0 + round(at_s * S))
    reports = sums.close(T0 + 100 * S)
    return [report for report in reports if isinstance(report, FlowReport) and report.cells]


def test_more_cells_than_a_bin_may_have_are_folded_into_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random destinations cannot fill the memory or the topic; octets are kept, and the report says so."""
    monkeypatch.setattr(aggregate, "MAX_BIN_CELLS", 50)
    reports = _summed([_flow(k << 8, 1, 2) for k in range(300)])
    cells = [cell for report in reports for cell in report.cells]
    assert len(cells) == 51
    assert sum(cell.octets for cell in cells) == 300_000
    assert [cell.octets for cell in cells if cell.destination == "0.0.0.0/0"] == [250_000]
    assert all("cells-folded" in report.quality for report in reports)


def test_a_flow_of_hours_is_not_spread_over_hours() -> None:
    """What lies too far back is put into the oldest bin kept: all is counted, in a bounded number of bins."""
    reports = _summed([_flow(1, -4000, 1)])
    cells = [cell for report in reports for cell in report.cells]
    assert len(reports) == aggregate.KEEP_BINS + 1
    assert sum(cell.octets for cell in cells) == pytest.approx(1000)
    assert reports[0].cells[0].octets == pytest.approx(1000 * (4000 - 115) / 4001)
    assert all(cell.octets == pytest.approx(1000 * 5 / 4001) for cell in cells[1:-1])


@pytest.mark.parametrize(
    ("granularity", "destinations", "classes"),
    [
        (Granularity(), {"10.1.2.3/32", "10.1.9.9/32"}, {0, 46}),
        (Granularity(longest_v4=16), {"10.1.0.0/16"}, {0, 46}),
        (Granularity(longest_v4=24, per_class=False), {"10.1.2.0/24", "10.1.9.0/24"}, {0}),
        (Granularity(longest_v4=0), {"0.0.0.0/0"}, {0, 46}),
    ],
)
def test_the_operator_chooses_how_finely_traffic_is_told_apart(
    granularity: Granularity, destinations: set[str], classes: set[int]
) -> None:
    """Longest prefix and classes are a choice; what is counted stays the same."""
    flows = [_flow(0x0A010203, 1, 2), _flow(0x0A010909, 1, 2, tos=46 << 2)]
    cells = [cell for report in _summed(flows, granularity=granularity) for cell in report.cells]
    assert {cell.destination for cell in cells} == destinations
    assert {cell.traffic_class for cell in cells} == classes
    assert sum(cell.octets for cell in cells) == 2000


def test_processes_that_share_a_port_never_make_equal_reports() -> None:
    """Equal reports count once: so those of another process are marked, as numbered supplements are."""
    first, second = (_summed([_flow(1, 1, 2)], worker=worker)[0] for worker in (0, 1))
    assert first.cells == second.cells
    assert (first.quality, second.quality) == ((), ("supplement-worker-1",))


def test_the_physical_interface_stands_in_for_the_logical_one() -> None:
    """Some exporters tell 252 instead of 10 (goflow2 #105)."""
    session, sums = FlowSession(), FlowAggregator("net", {FROM[0]: "WA"}, bin_ns=5 * S)
    fields = [(12, 4), (252, 4), (1, 4), (2, 4)]
    record = ipv4("10.0.0.1") + struct.pack(">III", 17, 100, 1)
    for batch in session.decode(message(template(256, fields), any_set(256, record), time_s=T0 // S), FROM):
        sums.add(batch, T0)
    cells = [c for report in sums.close(T0 + 9 * S) if isinstance(report, FlowReport) for c in report.cells]
    assert [cell.ingress_interface for cell in cells] == [17]


# ---------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize(
    ("fields", "record", "ratio"),
    [
        ([(302, 4), (304, 2), (305, 4), (306, 4), (309, 4), (310, 4)], (7, 3, 0, 0, 1, 20), 20.0),
        ([(302, 4), (304, 2), (305, 4), (306, 4), (309, 4), (310, 4)], (7, 1, 1, 9, 0, 0), 10.0),
        ([(302, 4), (304, 2), (305, 4), (306, 4), (309, 4), (310, 4)], (7, 5, 0, 0, 1, 20), 1.0),
        ([(302, 4), (304, 2), (307, 4), (308, 4), (309, 4), (310, 4)], (7, 2, 5, 95, 0, 0), 20.0),
    ],
)
def test_the_first_way_of_telling_that_makes_sense_counts(
    fields: list[tuple[int, int]], record: tuple[int, ...], ratio: float
) -> None:
    """Zeros where an algorithm does not use a field are no answer; filtering (5) is no sampling."""
    session = FlowSession()
    data = struct.pack(">IHIIII", *record)
    session.decode(message(options_template(400, 1, fields), any_set(400, data), EXAMPLE_TEMPLATE), FROM)
    (batch,) = session.decode(message(EXAMPLE_DATA_SET), FROM)
    assert np.unique(batch.ratio).tolist() == [ratio]


def test_the_start_of_an_exporter_may_be_told_by_options() -> None:
    """softflowd tells systemInitTimeMilliseconds once, and then flow times by uptime."""
    session = FlowSession()
    told = options_template(400, 1, [(143, 4), (160, 8)])
    boot_ms = T0 // 1_000_000 - 60_000
    session.decode(message(told, any_set(400, struct.pack(">IQ", 1, boot_ms))), FROM)
    flow = template(256, [(12, 4), (1, 4), (2, 4), (22, 4), (21, 4)])
    record = ipv4("10.0.0.1") + struct.pack(">IIII", 5, 1, 40_000, 50_000)
    (batch,) = session.decode(message(flow, any_set(256, record), time_s=T0 // S), FROM)
    from collectors.flows.columns import times

    assert [int(column[0]) for column in times(batch)] == [T0 - 20 * S, T0 - 10 * S]


# ------------------------------------------------------------------------------------------------- bursts


def _burst(datagrams: list[bytes], exporters: list[Exporter]) -> Burst:
    """As they would lie after a socket gave them, in slots with something old behind them."""
    slots = np.full((len(datagrams), 2048), 0xEE, np.uint8)
    for slot, datagram in zip(slots, datagrams, strict=True):
        slot[: len(datagram)] = np.frombuffer(datagram, np.uint8)
    known: list[Exporter] = list(dict.fromkeys(exporters))
    return Burst(
        slots,
        np.array([len(datagram) for datagram in datagrams], dtype=np.int64),
        np.array([known.index(exporter) for exporter in exporters], dtype=np.int64),
        known,
    )


def _content(batches: list[RecordBatch]) -> list[tuple[object, ...]]:
    """What a session took, whatever the order in which streams were read."""
    found = []
    for batch in batches:
        sent = np.broadcast_to(np.asarray(batch.export_time_s), len(batch)).tolist()
        uptime = np.broadcast_to(np.asarray(batch.uptime_ms), len(batch)).tolist()
        size = batch.template.shortest
        fixed = b"".join(batch.fixed)
        rows = [fixed[at : at + size] for at in range(0, len(fixed), size)]
        found += [
            (batch.address, batch.domain, batch.template, *row)
            for row in zip(sent, uptime, rows, strict=True)
        ]
    return sorted(found, key=repr)


_KINDS = st.sampled_from(
    ["data", "data", "data", "short", "other", "template", "both", "broken", "v9", "gap"]
)


@given(
    st.lists(st.tuples(_KINDS, st.sampled_from([FROM, OTHER]), st.integers(1, 3)), min_size=1, max_size=60)
)
def test_a_burst_is_read_as_its_datagrams_one_by_one(kinds: list[tuple[str, Exporter, int]]) -> None:
    """Records, losses and faults are the same whether datagrams come alone or together."""
    datagrams, exporters = _traffic(kinds)
    alone, together = FlowSession(), FlowSession()
    for session in (alone, together):
        for exporter in (FROM, OTHER):
            session.decode(message(EXAMPLE_TEMPLATE, template(257, [(1, 4)])), exporter)
            session.decode(v9(v9_template(256, [(1, 4), (2, 4)])), exporter)
    faults = []
    for i, (datagram, exporter) in enumerate(zip(datagrams, exporters, strict=True)):
        try:
            alone.feed(datagram, exporter)
        except DecodeError:
            faults.append(i)
    found = feed_burst(together, _burst(datagrams, exporters))
    assert sorted(i for i, _ in found) == faults
    assert _content(together.take()) == _content(alone.take())
    assert together.lost_records == alone.lost_records
    assert together.counters.messages == alone.counters.messages


def _traffic(kinds: list[tuple[str, Exporter, int]]) -> tuple[list[bytes], list[Exporter]]:
    """Datagrams of those kinds with the right sequence numbers."""
    numbers: dict[tuple[Exporter, str], int] = {}
    datagrams = []
    for kind, exporter, count in kinds:
        protocol = "v9" if kind == "v9" else "ipfix"
        number = numbers.get((exporter, protocol), 0)
        data = any_set(256, EXAMPLE_DATA_SET[4:] * count)
        made, advance = {
            "data": (message(data, sequence=number), 3 * count),
            "short": (message(any_set(257, bytes(4 * count)), sequence=number), count),
            "other": (message(any_set(999, bytes(4)), sequence=number), 0),
            "template": (message(template(258, EXAMPLE_FIELDS), sequence=number), 0),
            "both": (message(data, any_set(257, bytes(4)), sequence=number), 3 * count + 1),
            "broken": (message(data, sequence=number)[:-1], 0),
            "v9": (v9(any_set(256, bytes(8 * count)), sequence=number), 1),
            "gap": (message(data, sequence=number + 5), 3 * count + 5),
        }[kind]
        numbers[exporter, protocol] = number + advance
        datagrams.append(made)
    return datagrams, [exporter for _, exporter, _ in kinds]


def test_bursts_take_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many datagrams of one kind are taken as a block: none of them is fed by itself."""
    session = FlowSession()
    session.decode(message(EXAMPLE_TEMPLATE), FROM)
    datagrams = [message(EXAMPLE_DATA_SET, sequence=3 * i) for i in range(20)]
    monkeypatch.setattr(session, "feed", None)
    assert feed_burst(session, _burst(datagrams, [FROM] * 20)) == []
    (batch,) = session.take()
    assert batch.or_zero(ie.PACKETS).tolist() == [5009, 748, 5] * 20


def test_a_burst_with_templates_and_gaps_in_it_is_quick_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unusual goes one by one, what lies around it by blocks; losses are counted all the same."""
    session, alone = FlowSession(), FlowSession()
    for one in (session, alone):
        one.decode(message(EXAMPLE_TEMPLATE), FROM)
    numbers = [3 * i + (6 if i >= 40 else 0) for i in range(60)]  # two messages of three are missing
    numbers[50:52] = reversed(numbers[50:52])
    datagrams = [message(EXAMPLE_DATA_SET, sequence=number) for number in numbers]
    datagrams.insert(20, message(EXAMPLE_TEMPLATE, sequence=60))
    fed, feed = list[bytes](), session.feed
    monkeypatch.setattr(session, "feed", lambda one, exporter: (fed.append(bytes(one)), feed(one, exporter)))
    assert feed_burst(session, _burst(datagrams, [FROM] * 61)) == []
    for datagram in datagrams:
        alone.feed(datagram, FROM)
    assert fed == [datagrams[20]]
    assert session.lost_records == alone.lost_records == {FROM[0]: 6}
    assert _content(session.take()) == _content(alone.take())


def test_datagrams_longer_than_a_slot_are_read_among_the_others() -> None:
    """What goes on in the second place is put together; order and sequence numbers hold."""
    session, alone = FlowSession(), FlowSession()
    counts = [3 * (100 if i % 5 == 2 else 1) for i in range(40)]
    numbers = [sum(counts[:i]) for i in range(40)]
    datagrams = [
        message(any_set(256, EXAMPLE_DATA_SET[4:] * (count // 3)), sequence=number)
        for count, number in zip(counts, numbers, strict=True)
    ]
    whole = _burst([datagram[:200] for datagram in datagrams], [FROM] * 40)
    rest = np.full((40, 8000), 0xEE, np.uint8)
    for row, datagram in zip(rest, datagrams, strict=True):
        row[: max(len(datagram) - 200, 0)] = np.frombuffer(datagram[200:], np.uint8)
    sizes = np.array([len(datagram) for datagram in datagrams], dtype=np.int64)
    for one in (session, alone):
        one.decode(message(EXAMPLE_TEMPLATE), FROM)
    burst = Burst(np.ascontiguousarray(whole.slots[:, :200]), sizes, whole.senders, whole.exporters, rest)
    assert feed_burst(session, burst) == []
    for datagram in datagrams:
        alone.feed(datagram, FROM)
    assert _content(session.take()) == _content(alone.take())
    assert session.lost_records[FROM[0]] == 0


def test_what_an_earlier_burst_left_in_a_slot_is_not_read() -> None:
    """Headers without a set in slots whose old content would make them look like one: nothing is taken."""
    session = FlowSession()
    session.decode(message(EXAMPLE_TEMPLATE), FROM)
    burst = _burst([message()] * 20, [FROM] * 20)
    burst.slots[:, 16:20] = [1, 0, 0, 0]  # set 256 of no octets, behind the end
    assert feed_burst(session, burst) == []
    assert session.take() == []


# ---------------------------------------------------------------------------------------------- the cache


def _learnt() -> FlowSession:
    session = FlowSession()
    sampler = options_template(400, 1, [(302, 8), (305, 4), (306, 4)])
    session.decode(message(EXAMPLE_TEMPLATE, sampler, any_set(400, struct.pack(">QII", 1, 1, 9))), FROM)
    session.decode(v9(v9_template(300, [(1, 4), (2, 4)])), FROM)
    session.decode(message(EXAMPLE_TEMPLATE), (FROM[0], 4739, "tcp"))
    return session


def test_a_restarted_collector_decodes_at_once() -> None:
    """Templates and samplers are kept over a restart, of both protocols; a TCP session's are not."""
    kept = cache.dump(_learnt(), T0)
    session = FlowSession()
    assert cache.load(session, kept, T0 + S, oldest_ns=T0 - S, known={FROM[0]}) == 3
    (batch,) = session.decode(message(EXAMPLE_DATA_SET, sequence=77), FROM)
    assert (len(batch), batch.ratio) == (3, 10.0)
    (batch,) = session.decode(v9(any_set(300, bytes(8))), FROM)
    assert len(batch) == 1
    assert session.decode(message(EXAMPLE_DATA_SET), (FROM[0], 4739, "tcp")) == []


@pytest.mark.parametrize(
    ("now_ns", "known"), [(T0 + 100 * S, {FROM[0]}), (T0 - S, {FROM[0]}), (T0 + S, {OTHER[0]})]
)
def test_what_is_old_from_the_future_or_unknown_is_not_used(now_ns: int, known: set[str]) -> None:
    """An exporter may have changed since, a clock may be wrong, and the inventory decides who is heard."""
    session = FlowSession()
    assert cache.load(session, cache.dump(_learnt(), T0), now_ns, oldest_ns=now_ns - 10 * S, known=known) == 0
    assert session.decode(message(EXAMPLE_DATA_SET), FROM) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff\xff",
        cache.dump(FlowSession(), T0)[:-1],
        cache.dump(_learnt(), T0).replace(b'"version":10', b'"version":11'),
        cache.dump(_learnt(), T0).replace(b"[256,", b"[1,"),
    ],
)
def test_a_damaged_cache_is_a_decode_error(data: bytes) -> None:
    """A file is not trusted more than a datagram."""
    with pytest.raises(DecodeError):
        cache.load(FlowSession(), data, T0, oldest_ns=T0, known={FROM[0]})


# ------------------------------------------------------------------------------------------------ framing

STREAM = message(EXAMPLE_TEMPLATE) + message(EXAMPLE_DATA_SET) + message(EXAMPLE_DATA_SET, sequence=3)


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_a_stream_is_cut_into_messages_however_it_is_torn(cuts: list[int]) -> None:
    """Whole, byte by byte or anything between: the same messages."""
    framer, at = Framer(), 0
    messages = []
    for cut in [*sorted(cuts), len(STREAM)]:
        messages += framer.feed(STREAM[at:cut])
        at = cut
    assert messages == [
        message(EXAMPLE_TEMPLATE),
        message(EXAMPLE_DATA_SET),
        message(EXAMPLE_DATA_SET, sequence=3),
    ]


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\n\r\n", struct.pack(">HHIII", 10, 15, 0, 0, 0), v9(b"    ")]
)
def test_what_begins_no_message_ends_the_stream(head: bytes) -> None:
    """A length below the header's, another protocol: where the next message begins cannot be known."""
    framer = Framer()
    first = message(EXAMPLE_TEMPLATE)
    found = framer.feed(first + head)
    assert next(found) == first
    with pytest.raises(DecodeError, match="no IPFIX message begins here"):
        next(found)
