"""flowDirection: what it leaves out is counted and told, and the inventory may say how to read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from flow_tools import export_by_softflowd, write_pcap
from ipfix_bytes import any_set, message, template

from collectors.flows.egress import ENOUGH, EgressWatch
from collectors.flows.settings import FlowDirection
from collectors.inventory import parse_inventory
from collectors.listener import FlowListener, Share
from collectors.service import flow_listener
from collectors.stats import CollectorStats
from twin.errors import InventoryError
from twin.records import FlowReport, NetworkEvent, Record

S = 1_000_000_000
NOW_S = 1_800_000_000
INVENTORY = """
network = "net"
[ipfix]
[[devices]]
name = "WA"
address = "192.0.2.1"
{ipfix}
{direction}
"""


def _listener(direction: FlowDirection | None, log: list[Record], stats: CollectorStats) -> FlowListener:
    """As the service makes it of an inventory."""
    said = f'flow_direction = "{direction}"' if direction else ""
    inventory = parse_inventory(INVENTORY.format(ipfix="ipfix = true", direction=said))
    return flow_listener(inventory, log.append, stats, Share(), bin_s=5, clock=lambda: NOW_S * S)


def _octets(log: list[Record]) -> float:
    return sum(cell.octets for r in log if isinstance(r, FlowReport) for cell in r.cells)


@pytest.mark.parametrize(
    ("direction", "part", "kinds"),
    [("ignore", 1.0, []), ("trust", 0.5, []), (None, 0.5, ["flows-egress"])],
)
def test_softflowds_directions_are_read_as_the_inventory_says(
    direction: FlowDirection | None,
    part: float,
    kinds: list[str],
    tmp_path: Path,
    need_tool: Callable[[str], str],
) -> None:
    """Traffic both ways: all of it is counted, or half of it knowingly, or half of it and that is told."""
    octets = write_pcap(tmp_path / "packets.pcap", packets=1000, flows=150, two_way=True)
    datagrams = export_by_softflowd(need_tool("softflowd"), tmp_path / "packets.pcap", 10)
    log: list[Record] = []
    stats, now_ns = CollectorStats(), [NOW_S * S]
    listener = _listener(direction, log, stats)
    listener._clock = lambda: now_ns[0]
    with structlog.testing.capture_logs() as lines:
        for datagram in datagrams:
            assert listener.receive(datagram, ("192.0.2.1", 50000))
        listener.tick()
        now_ns[0] += 60 * S
        listener.tick()
    assert _octets(log) == pytest.approx(part * octets, rel=0.0 if part == 1 else 0.2)
    assert (stats.egress_flow_records > 100) == (part < 1)
    assert stats.metrics()["egress_flow_records"] == stats.egress_flow_records
    events = [r for r in log if isinstance(r, NetworkEvent)]
    assert [event.kind for event in events] == kinds == ["flows-egress" for _ in lines]
    assert all(event.device == "WA" and "flow_direction" in event.detail for event in events)


def test_a_few_egress_records_are_counted_and_nobody_is_alarmed() -> None:
    """A tenth of the records: counted, not told."""
    log: list[Record] = []
    stats = CollectorStats()
    listener = _listener(None, log, stats)
    record = b"\x0a\x02\x00\x01" + (1500).to_bytes(4, "big")
    flows = record + b"\x00" + (record + b"\x00") * 8 + record + b"\x01"
    told = template(256, [(12, 4), (1, 4), (61, 1)])
    for i in range(20):
        listener.receive(message(told, any_set(256, flows), sequence=10 * i), ("192.0.2.1", 1))
    listener.tick()
    assert stats.egress_flow_records == 20
    assert [r for r in log if isinstance(r, NetworkEvent)] == []


def test_it_is_told_again_only_after_it_was_well() -> None:
    """Once for as long as it goes on, however often one looks; and only when there are enough to judge by."""
    watch, told = EgressWatch({}), []
    for records, left_out in ((50, 50), (200, 200), (400, 300), (600, 300), (800, 500)):
        more, remarkable = watch.look([("WA", records, left_out)])
        told.append((more, [device for device, *_ in remarkable]))
    assert ENOUGH == 100
    assert told == [(50, []), (150, ["WA"]), (100, []), (0, []), (200, ["WA"])]


def test_a_direction_without_flow_export_is_refused() -> None:
    """It would say nothing; and a misspelt one is told."""
    text = INVENTORY.format(ipfix="stamp = {}", direction='flow_direction = "ignore"')
    with pytest.raises(
        InventoryError, match=r"\(WA\)\.flow_direction: says how to read flow export: add ipfix"
    ):
        parse_inventory(text)
    with pytest.raises(InventoryError, match="flow_direction"):
        parse_inventory(INVENTORY.format(ipfix="ipfix = true", direction='flow_direction = "in"'))
