"""Flow records → reports per bin: nothing is lost, counted twice, or put into the wrong bin."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfix_bytes import Fields, any_set, ipv4, message, options_template, template

from collectors.flows import aggregate as module
from collectors.flows.aggregate import FlowAggregator
from collectors.flows.columns import Groups, spread
from collectors.flows.decoder import FlowSession
from ndtwin.lab import ipfix_encoder as lab
from twin.records import DelayReport, FlowCell, FlowReport, Record

S = 1_000_000_000
T0 = 1_000_000_000 * S  # a bin boundary
BIN = 5 * S
FROM = ("192.0.2.200", 50000)
FLOW: Fields = [
    (8, 4),
    (9, 1),
    (12, 4),
    (13, 1),
    (5, 1),
    (10, 4),
    (61, 1),
    (1, 8),
    (2, 8),
    (152, 8),
    (153, 8),
]


def _flow(
    *,
    start_s: float,
    end_s: float,
    source: str = "10.1.0.10",
    destination: str = "10.2.0.10",
    length: int = 16,
    tos: int = 0,
    ingress: int = 3,
    direction: int = 0,
    octets: int = 1000,
    packets: int = 10,
) -> bytes:
    times = [T0 // 1_000_000 + round(1000 * second) for second in (start_s, end_s)]
    numbers = struct.pack(">BIBQQQQ", tos, ingress, direction, octets, packets, *times)
    return ipv4(source) + b"\x10" + ipv4(destination) + bytes([length]) + numbers


class Bench:
    """An aggregator with the session that feeds it."""

    def __init__(self, *before: bytes) -> None:
        self.session = FlowSession()
        self.flows = FlowAggregator("net", {FROM[0]: "WA"}, bin_ns=BIN)
        self.feed(message(template(256, FLOW), *before), at_s=0)

    def feed(self, datagram: bytes, *, at_s: float) -> None:
        for batch in self.session.decode(datagram, FROM):
            self.flows.add(batch, T0 + round(at_s * S))

    def take(self, *records: bytes, at_s: float) -> None:
        self.feed(message(any_set(256, b"".join(records))), at_s=at_s)

    def close(self, at_s: float) -> list[Record]:
        return self.flows.close(T0 + round(at_s * S))

    def flow_reports(self, at_s: float) -> list[FlowReport]:
        return [report for report in self.close(at_s) if isinstance(report, FlowReport)]


_WIDE = st.one_of(st.integers(0, 3), st.sampled_from([-(2**63), -1, 1 << 20, 3 << 20, 2**40, 2**63 - 1]))


def _totals(reports: Iterable[FlowReport]) -> dict[int, tuple[float, float]]:
    """Bin → octets, packets."""
    found: dict[int, tuple[float, float]] = {}
    for report in reports:
        octets, packets = found.get((report.start_ns - T0) // BIN, (0.0, 0.0))
        cells = report.cells
        found[(report.start_ns - T0) // BIN] = (
            octets + sum(cell.octets for cell in cells),
            packets + sum(cell.packets for cell in cells),
        )
    return found


def test_a_flow_is_a_cell_of_its_bin() -> None:
    """Destination masked with its prefix length, DSCP from the type of service, ingress interface kept."""
    bench = Bench()
    bench.take(_flow(start_s=1, end_s=2, tos=0b10111000), at_s=2)
    assert bench.flow_reports(5.9) == []
    (report,) = bench.flow_reports(6)
    assert (report.device, report.start_ns, report.end_ns) == ("WA", T0, T0 + BIN)
    assert report.cells == (
        FlowCell(
            destination="10.2.0.0/16", octets=1000.0, packets=10.0, traffic_class=46, ingress_interface=3
        ),
    )
    assert (report.quality, report.sampling_ratio, report.lost_records) == ((), 1.0, 0)


@pytest.mark.parametrize(
    ("start_s", "end_s", "shares"),
    [
        (1, 2, {0: 1.0}),
        (4, 6, {0: 0.5, 1: 0.5}),
        (4.5, 5, {0: 1.0}),
        (5, 5.5, {1: 1.0}),
        (4, 14, {0: 0.1, 1: 0.5, 2: 0.4}),
        (5, 5, {1: 1.0}),
        (7, 3, {0: 1.0}),  # start after end: an instant, at the end
    ],
)
def test_a_flow_is_spread_over_the_bins_it_covers(
    start_s: float, end_s: float, shares: dict[int, float]
) -> None:
    """In proportion to time; an instant belongs to one bin."""
    bench = Bench()
    bench.take(_flow(start_s=start_s, end_s=end_s), at_s=15)
    totals = {bin: octets / 1000 for bin, (octets, _) in _totals(bench.flow_reports(30)).items() if octets}
    assert totals == pytest.approx(shares)


@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 20_000)), max_size=20))
def test_spreading_keeps_the_total(flows: list[tuple[int, int]]) -> None:
    """Shares of every record add up to one, each within its own bins."""
    start = np.array([s for s, _ in flows], dtype=np.int64) * 1_000_000
    end = start + np.array([d for _, d in flows], dtype=np.int64) * 1_000_000
    total = np.zeros(len(flows))
    for shares in spread(start, end, BIN):
        np.add.at(total, shares.record, shares.share)
        assert (np.asarray(shares.share) > 0).all()
    assert total == pytest.approx(np.ones(len(flows)))


@given(st.lists(st.tuples(st.integers(0, 3), _WIDE), min_size=1, max_size=30))
def test_grouping_is_by_all_columns(rows: list[tuple[int, int]]) -> None:
    """Rows are in one group exactly when they are equal."""
    columns = [np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)]
    groups = Groups(columns, len(rows))
    of_group = list(zip(*(column.tolist() for column in groups.distinct()), strict=True))
    assert of_group == sorted(set(rows))
    values = np.arange(len(rows), dtype=np.float64)
    expected: dict[tuple[int, int], list[float]] = {}
    for row, value in zip(rows, values.tolist(), strict=True):
        expected.setdefault(row, []).append(value)
    assert groups.sums(values).tolist() == [sum(expected[row]) for row in of_group]
    assert groups.highest(values).tolist() == [max(expected[row]) for row in of_group]
    assert groups.lowest(values).tolist() == [min(expected[row]) for row in of_group]


def test_only_what_enters_is_traffic() -> None:
    """Egress records would count the same packets twice."""
    bench = Bench()
    bench.take(_flow(start_s=1, end_s=2), _flow(start_s=1, end_s=2, direction=1), at_s=2)
    assert _totals(bench.flow_reports(6)) == {0: (1000.0, 10.0)}


@pytest.mark.parametrize(
    ("length", "destination"), [(32, "10.2.0.10/32"), (0, "10.2.0.10/32"), (24, "10.2.0.0/24")]
)
def test_without_a_prefix_length_the_host_stands_for_itself(length: int, destination: str) -> None:
    """Length 0 is how exporters say that they know no route."""
    bench = Bench()
    bench.take(_flow(start_s=1, end_s=2, length=length), at_s=2)
    assert bench.flow_reports(6)[0].cells[0].destination == destination


def test_ipv6_flows_are_masked_too() -> None:
    """The same for 128 bits."""
    bench = Bench(template(257, [(28, 16), (30, 1), (1, 4), (2, 4)]))
    address = bytes.fromhex("20010db8000100020000000000000001")
    record = address + bytes([48]) + struct.pack(">II", 8, 1)
    bench.feed(message(any_set(257, record), time_s=T0 // S + 1), at_s=1)
    assert bench.flow_reports(6)[0].cells[0].destination == "2001:db8:1::/48"


def test_sampled_flows_are_scaled() -> None:
    """Octets and packets stand for all traffic; the report says the ratio."""
    described = options_template(400, 1, [(302, 8), (305, 4), (306, 4)])
    bench = Bench(described, any_set(400, struct.pack(">QII", 1, 1, 9)))
    bench.take(_flow(start_s=1, end_s=2), at_s=2)
    _, report = bench.flow_reports(6)  # the first: heard, in the bin before
    assert (report.cells[0].octets, report.cells[0].packets, report.sampling_ratio) == (10_000.0, 100.0, 10.0)


def test_late_records_come_as_supplements_that_differ() -> None:
    """Bins that were reported get further reports to be added; equal late records are no duplicates."""
    bench = Bench()
    bench.take(_flow(start_s=1, end_s=2), at_s=2)
    reports = bench.flow_reports(6)
    for at_s in (7, 8):
        bench.take(_flow(start_s=1, end_s=2), at_s=at_s)
        reports += [report for report in bench.flow_reports(at_s) if report.start_ns == T0]
    assert _totals(reports) == {0: (3000.0, 30.0)}
    assert [report.quality[:1] for report in reports] == [(), ("supplement",), ("supplement",)]
    assert len(set(reports)) == 3


def test_a_quiet_exporter_is_told_from_a_silent_one() -> None:
    """Heard without traffic: an empty report. Not heard: none."""
    bench = Bench()
    bench.take(_flow(start_s=1, end_s=2), at_s=2)
    assert [(report.start_ns, len(report.cells)) for report in bench.flow_reports(6)] == [(T0, 1)]
    bench.take(_flow(start_s=1, end_s=2, direction=1), at_s=8)
    assert [(report.start_ns, report.cells) for report in bench.flow_reports(11)] == [(T0 + BIN, ())]
    assert bench.flow_reports(30) == []


@pytest.mark.parametrize(("start_s", "end_s"), [(-90_000, -89_999), (1, 90_000), (-90_000, 1)])
def test_times_that_cannot_be_are_flagged(start_s: float, end_s: float) -> None:
    """An exporter with a broken clock still counts, in the bin of now, and the report says so."""
    bench = Bench()
    bench.take(_flow(start_s=start_s, end_s=end_s), at_s=2)
    (report,) = bench.flow_reports(6)
    assert (report.start_ns, report.quality) == (T0, ("flow-times",))
    assert report.cells[0].octets == 1000.0


def test_losses_are_told_in_the_next_report() -> None:
    """A sequence gap is told once."""
    bench = Bench()
    bench.flows.lost(FROM[0], 7)
    for second in (2, 7):
        bench.take(_flow(start_s=second, end_s=second), at_s=second)
    assert [report.lost_records for report in bench.flow_reports(11)] == [7, 0]


def test_large_reports_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """No report has more cells than a message may hold, and the parts add up."""
    monkeypatch.setattr(module, "MAX_CELLS", 2)
    bench = Bench()
    bench.take(*(_flow(start_s=1, end_s=2, destination=f"10.{i}.0.1") for i in range(2, 7)), at_s=2)
    reports = bench.flow_reports(6)
    assert [len(report.cells) for report in reports] == [2, 2, 1]
    assert _totals(reports) == {0: (5000.0, 50.0)}
    assert len({report.quality for report in reports}) == 3


# --------------------------------------------------------------------------------------- on-path delay


def _lab_delay(bench: Bench, *, at_s: int, packets: int, sum_us: int, low: int, high: int) -> None:
    """A record of the lab's exporter: traffic of node 3 that left the network here in the second before."""
    record = np.zeros(1, lab.DELAY_RECORD)
    record["source"], record["destination"] = (
        int.from_bytes(ipv4(a), "big") for a in ("10.3.0.10", "10.1.0.10")
    )
    record["source_prefix"] = record["destination_prefix"] = 16
    record["direction"], record["packets"] = lab.EGRESS, packets
    record["start_ms"], record["end_ms"] = T0 // 1_000_000 + 1000 * (at_s - 1), T0 // 1_000_000 + 1000 * at_s
    record["delay_sum_us"], record["delay_min_us"], record["delay_max_us"] = sum_us, low, high
    encoder = lab.Encoder(1)
    bench.feed(encoder.templates(T0 // S), at_s=at_s)
    for datagram in encoder.records(T0 // S, lab.DELAY_TEMPLATE, record):
        bench.feed(datagram, at_s=at_s)


def _delay_reports(records: list[Record]) -> list[DelayReport]:
    return [record for record in records if isinstance(record, DelayReport)]


def test_on_path_delay_is_reported_by_source() -> None:
    """The mean is weighted by packets; the report is the source prefix's, its destination the exporter."""
    bench = Bench()
    _lab_delay(bench, at_s=1, packets=1, sum_us=1_000, low=1_000, high=1_000)
    _lab_delay(bench, at_s=5, packets=9, sum_us=27_000, low=2_000, high=5_000)
    (report,) = _delay_reports(bench.close(6))
    (delay,) = report.delays
    assert (report.device, report.method, report.direction) == ("10.3.0.0/16", "ipfix-on-path", "one-way")
    assert (delay.destination, delay.count, delay.start_ns, delay.end_ns) == ("WA", 10, T0, T0 + BIN)
    assert (delay.mean_s, delay.min_s, delay.max_s) == (0.0028, 0.001, 0.005)
    assert delay.packet_bits is None


def test_late_delay_is_reported_with_the_new_totals() -> None:
    """The same measurement told again replaces what was told before, so it must be whole."""
    bench = Bench()
    _lab_delay(bench, at_s=2, packets=1, sum_us=1_000, low=1_000, high=1_000)
    bench.close(6)
    _lab_delay(bench, at_s=3, packets=1, sum_us=3_000, low=3_000, high=3_000)
    (report,) = _delay_reports(bench.close(7))
    assert (report.delays[0].start_ns, report.delays[0].count, report.delays[0].mean_s) == (T0, 2, 0.002)


def test_a_source_without_news_is_heard_of_once_a_bin_and_then_forgotten() -> None:
    """Whoever waits for a source is not kept waiting; a source that is gone is let go."""
    bench = Bench()
    _lab_delay(bench, at_s=2, packets=1, sum_us=1_000, low=1_000, high=1_000)
    reports = [_delay_reports(bench.close(0.25 * k)) for k in range(400)]
    told = [report for some in reports for report in some]
    assert [len(report.delays) for report in told[:3]] == [1, 0, 0]
    assert len(told) <= module.KEEP_BINS + 2
    assert reports[-1] == []


def test_records_of_an_egress_router_are_no_traffic() -> None:
    """Delay records have packets but do not count into the traffic matrix."""
    bench = Bench()
    _lab_delay(bench, at_s=2, packets=5, sum_us=5, low=1, high=1)
    assert [report.cells for report in bench.flow_reports(6)] == [()]
