"""JUNIPER-RPM-MIB → delay reports: round trips in microseconds of each test's last completed run.

Indices: (length, owner…, length, test…, collection), the calculated table with the measurement set after
it. A probe's target and frequency stand in DISMAN-PING's pingCtlTable under (owner, test). jnxRpmResSumDate
says which run the row is from: a poll that meets it again reports nothing. One-way figures (egress,
ingress) are not taken: nothing there tells whether both clocks were synchronised.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from collectors.snmp.engine import Index, Value
from collectors.snmp.rttmon import Delays, address_text, packet_bits
from collectors.snmp.tables import Columns, integer, text
from twin.records import PathDelay

_US = 1e-6
_NS_PER_S = 1_000_000_000
_LAST_COMPLETED = 2  # JnxRpmCollectionType
_ROUND_TRIP = 1  # JnxRpmMeasurementSet


def rpm_delays(table: Columns, *, observed_at_ns: int, seen: Mapping[Index, int]) -> Delays:
    """Every test whose last completed run is new since ``seen`` (index → run)."""
    runs = dict(seen)
    found = []
    for index, sent_value in sorted(table.get("sent", {}).items()):
        sent, run = integer(sent_value) or 0, _run(table, index)
        if index[-1] != _LAST_COMPLETED or not sent or runs.get(index) == run:
            continue
        delay = _delay(table, index, sent, observed_at_ns)
        if delay is not None:
            runs[index] = run
            found.append(delay)
    return Delays(one_way=(), round_trip=tuple(found), runs=runs)


def _run(table: Columns, index: Index) -> int:
    """A number for the run: of its date, a DateAndTime, or of its counts where there is no date."""
    date = table.get("date", {}).get(index)
    if isinstance(date, bytes):
        return zlib.crc32(date)
    return integer(table.get("sum_us", {}).get((*index, _ROUND_TRIP))) or 0


def _delay(table: Columns, index: Index, sent: int, observed_at_ns: int) -> PathDelay | None:
    def measured(name: str) -> Value:
        return table.get(name, {}).get((*index, _ROUND_TRIP))

    def configured(name: str) -> Value:
        return table.get(name, {}).get(index[:-1])

    target = address_text(configured("target")) or text(configured("target"))
    if not target:
        return None
    count = min(integer(measured("samples")) or 0, sent)
    deviation = integer(measured("deviation_us"))
    frequency_s = integer(configured("frequency_s")) or 0
    return PathDelay(
        destination=target,
        start_ns=observed_at_ns - frequency_s * _NS_PER_S,
        end_ns=observed_at_ns,
        count=count,
        mean_s=(integer(measured("average_us")) or 0) * _US if count else 0.0,
        min_s=(integer(measured("min_us")) or 0) * _US if count else None,
        max_s=(integer(measured("max_us")) or 0) * _US if count else None,
        jitter_s=deviation * _US if count and deviation is not None else None,
        sent=sent,
        lost=sent - count,
        packet_bits=packet_bits(integer(configured("data_size")) or 0, target),
        error_s=_US,
    )
