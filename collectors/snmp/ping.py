"""DISMAN-PING-MIB (RFC 4560) → delay reports: round trips in whole milliseconds.

Average, minimum and maximum cover all probes since the test began (pingResultsTable is cumulative per test).
Whether anything new came in is said by pingResultsSentProbes, which begins anew with every run of the test
and ends each time with the same number, and by pingResultsLastGoodProbe, a DateAndTime, together. On networks
with delays of a few milliseconds the resolution (``error_s`` = 0.5 ms) makes this a check, not a measurement.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from collectors.snmp.engine import Index, Value
from collectors.snmp.rttmon import Delays, address_text, packet_bits
from collectors.snmp.tables import Columns, integer, text
from twin.records import PathDelay

_MS = 1e-3
_NS_PER_S = 1_000_000_000


def ping_delays(table: Columns, *, observed_at_ns: int, seen: Mapping[Index, int]) -> Delays:
    """Every test with new probes since ``seen`` (index → run)."""
    runs = dict(seen)
    found = []
    for index, sent_value in sorted(table.get("sent", {}).items()):
        row = {name: column.get(index) for name, column in table.items()}
        sent = integer(sent_value) or 0
        target = address_text(row.get("target")) or text(row.get("target"))
        run = _run(sent, row.get("last_good"))
        if not sent or not target or runs.get(index) == run:
            continue
        runs[index] = run
        found.append(_delay(row, target, sent, observed_at_ns))
    return Delays(one_way=(), round_trip=tuple(found), runs=runs)


def _run(sent: int, last_good: Value) -> int:
    """A number for what the test has done so far."""
    return sent << 32 | (zlib.crc32(last_good) if isinstance(last_good, bytes) else 0)


def _delay(row: Mapping[str, Value], target: str, sent: int, observed_at_ns: int) -> PathDelay:
    responses = integer(row.get("responses")) or 0
    frequency_s = integer(row.get("frequency_s")) or 0
    return PathDelay(
        destination=target,
        start_ns=observed_at_ns - frequency_s * _NS_PER_S,
        end_ns=observed_at_ns,
        count=responses,
        mean_s=(integer(row.get("average_ms")) or 0) * _MS,
        min_s=(integer(row.get("min_ms")) or 0) * _MS if responses else None,
        max_s=(integer(row.get("max_ms")) or 0) * _MS if responses else None,
        sent=sent,
        lost=max(sent - responses, 0),
        packet_bits=packet_bits(integer(row.get("data_size")) or 0, target),
        error_s=_MS / 2,
    )
