"""Our decoder and nfdump read the same captures, record for record; the exporter is softflowd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flow_tools import Row, export_by_softflowd, read_by_nfdump, rows_of, write_pcap

from collectors.flows import elements as ie
from collectors.flows.decoder import FlowSession
from ndtwin.lab import ipfix_encoder as lab

FROM = ("127.0.0.1", 50000)


@pytest.mark.parametrize("version", [5, 9, 10])
def test_what_softflowd_exports_is_read_as_nfdump_reads_it(
    version: int, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    """NetFlow 5 and 9 and IPFIX of one capture: the same records, and no loss is seen where there is none."""
    softflowd, nfcapd, nfdump = (need_tool(name) for name in ("softflowd", "nfcapd", "nfdump"))
    write_pcap(tmp_path / "packets.pcap")
    datagrams = export_by_softflowd(softflowd, tmp_path / "packets.pcap", version)
    session = FlowSession()
    for datagram in datagrams:
        session.feed(datagram, FROM)
    ours = rows_of(session.take())
    (tmp_path / "flows").mkdir()
    theirs = read_by_nfdump(nfcapd, nfdump, tmp_path / "flows", datagrams)
    if version == 10:  # nfdump 1.7.1 has the start and the end of these the wrong way round
        ours, theirs = ([(*row[:8], *sorted(row[8:])) for row in rows] for rows in (ours, theirs))
    assert [row[:8] for row in ours] == [row[:8] for row in theirs]
    assert _apart_ms(ours, theirs) <= 1  # nfdump rounds where we do not
    assert len(ours) == (15 if version == 5 else 20)  # NetFlow 5 knows no IPv6
    assert sum(row[6] for row in ours) > 200
    assert session.lost_records[FROM[0]] == 0


@pytest.mark.parametrize("version", [5, 9, 10])
def test_what_softflowd_samples_stands_for_all_packets(
    version: int, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    """Every fourth packet: told in the header, for interface 0, and as a space of three, and always believed.

    NetFlow 5 is scaled as nfdump scales it; nfdump 1.7.1 leaves the others as they are.
    """
    softflowd, nfcapd, nfdump = (need_tool(name) for name in ("softflowd", "nfcapd", "nfdump"))
    write_pcap(tmp_path / "packets.pcap", packets=400)
    datagrams = export_by_softflowd(softflowd, tmp_path / "packets.pcap", version, "-s", "4")
    session = FlowSession()
    for datagram in datagrams:
        session.feed(datagram, FROM)
    batches = [batch for batch in session.take() if not batch.is_options]
    packets, octets = (
        sum(float((batch.or_zero(id) * batch.ratio).sum()) for batch in batches)
        for id in (ie.PACKETS, ie.OCTETS)
    )
    (tmp_path / "flows").mkdir()
    theirs = read_by_nfdump(nfcapd, nfdump, tmp_path / "flows", datagrams)
    factor = packets / sum(row[6] for row in theirs)
    assert factor in ((1,) if version == 5 else (1, 4))
    assert octets == factor * sum(row[7] for row in theirs)
    if version != 5:  # which knows no IPv6
        assert packets == 400


def _apart_ms(ours: list[Row], theirs: list[Row]) -> int:
    """Of starts and ends, at most; uptimes are 32 bits, and softflowd sends 0 in NetFlow 5."""
    pairs = (
        (a, b)
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one[8:], other[8:], strict=True)
    )
    return max(abs((a - b + 2**31) % 2**32 - 2**31) for a, b in pairs)


def test_the_labs_records_are_read_as_nfdump_reads_them(
    tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    """A thousand random records of the lab's template: every one the same, to the millisecond."""
    nfcapd, nfdump = need_tool("nfcapd"), need_tool("nfdump")
    random = np.random.default_rng(3)
    records = np.zeros(1000, lab.INGRESS_RECORD)
    for name in ("source", "destination"):
        records[name] = random.integers(2**24, 2**32 - 2**29, len(records))
    for name in ("source_port", "destination_port"):
        records[name] = random.integers(0, 2**16, len(records))
    records["protocol"], records["tos"] = 17, random.integers(0, 2**8, len(records))
    records["packets"] = random.integers(1, 2**31, len(records))
    records["octets"] = random.integers(1, 2**40, len(records))
    records["end_ms"] = 1_800_000_000_000 + random.integers(0, 10_000, len(records))
    records["start_ms"] = records["end_ms"] - random.integers(0, 5_000, len(records)).astype(np.uint64)
    encoder = lab.Encoder(7)
    datagrams = [encoder.templates(1_800_000_000)]
    datagrams += encoder.records(1_800_000_010, lab.INGRESS_TEMPLATE, records)
    session = FlowSession()
    for datagram in datagrams:
        session.feed(datagram, FROM)
    ours = rows_of(session.take())
    (tmp_path / "flows").mkdir()
    assert ours == read_by_nfdump(nfcapd, nfdump, tmp_path / "flows", datagrams)
    assert len(ours) == len(records)
