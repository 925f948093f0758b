"""JUNIPER-RPM-MIB → delay reports: delays in microseconds of each test's last completed run.

Indices: (length, owner…, length, test…, collection), the calculated table with the measurement set after
it. A probe's target and frequency stand in DISMAN-PING's pingCtlTable under (owner, test). jnxRpmResSumDate
says which run the row is from: a poll that meets it again reports nothing.

One way or round trip
---------------------
The round trip is free of the clocks' offset; egress (client → server) and ingress (back) are not. They are
taken as one-way delays where both ends stamped in hardware (jnxRpmResSampleTsType is clientAndServerHardware,
which takes one-way-hardware-timestamp in the configuration), as software stamps have the routing engine's
own waits in them. Whether both clocks are synchronised no object tells (``clock_synchronised`` is None), but
what they cannot be: with an offset o, egress is delay + o and ingress delay − o, and no delay is below zero,
so |o| ≤ max(least egress, least ingress), which is ``error_s``. And a way longer than the way and back
together proves an offset: then the round trip is told, and that the clocks are not synchronised.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import structs

from collectors.snmp.engine import Index, Value
from collectors.snmp.rttmon import Delays, address_text, packet_bits
from collectors.snmp.tables import Columns, integer, text
from twin.records import PathDelay

_US = 1e-6
_NS_PER_S = 1_000_000_000
_LAST_COMPLETED = 2  # JnxRpmCollectionType
_ROUND_TRIP, _EGRESS, _INGRESS = 1, 4, 7  # JnxRpmMeasurementSet
_SAMPLE_EGRESS = 4  # JnxRpmMeasurementType
_BOTH_IN_HARDWARE = 3  # JnxRpmTimestampType


def rpm_delays(table: Columns, *, observed_at_ns: int, seen: Mapping[Index, int]) -> Delays:
    """Every test whose last completed run is new since ``seen`` (index → run)."""
    runs = dict(seen)
    one_way, round_trip = [], []
    for index, sent_value in sorted(table.get("sent", {}).items()):
        sent, run = integer(sent_value) or 0, _run(table, index)
        if index[-1] != _LAST_COMPLETED or not sent or runs.get(index) == run:
            continue
        delay = _delay(table, index, sent, observed_at_ns)
        if delay is None:
            continue
        runs[index] = run
        ways = _ways(table, index)
        if ways is None:
            round_trip.append(delay)
        elif max(ways[0].average_us, ways[1].average_us) * _US > delay.mean_s + _US:  # each is rounded
            round_trip.append(structs.replace(delay, clock_synchronised=False))
        else:
            one_way.append(_there(delay, *ways))
    return Delays(one_way=tuple(one_way), round_trip=tuple(round_trip), runs=runs)


@dataclass(frozen=True)
class _Figures:
    """One measurement set of a run, in microseconds."""

    samples: int
    least_us: int
    most_us: int
    average_us: int
    deviation_us: int | None


def _figures(table: Columns, index: Index, measured: int) -> _Figures:
    def told(name: str) -> int | None:
        return integer(table.get(name, {}).get((*index, measured)))

    return _Figures(
        samples=told("samples") or 0,
        least_us=told("min_us") or 0,
        most_us=told("max_us") or 0,
        average_us=told("average_us") or 0,
        deviation_us=told("deviation_us"),
    )


def _ways(table: Columns, index: Index) -> tuple[_Figures, _Figures] | None:
    """Egress and ingress of a run, where hardware stamped at both ends; None otherwise."""
    if table.get("time_stamps", {}).get((*index[:-1], _SAMPLE_EGRESS)) != _BOTH_IN_HARDWARE:
        return None
    egress, ingress = (_figures(table, index, way) for way in (_EGRESS, _INGRESS))
    return (egress, ingress) if egress.samples and ingress.samples else None


def _there(round_trip: PathDelay, egress: _Figures, ingress: _Figures) -> PathDelay:
    """The way there. Who lost a packet that did not come back is not told: it counts as lost."""
    sent = round_trip.sent or 0
    count = min(egress.samples, sent)
    return structs.replace(
        round_trip,
        count=count,
        mean_s=egress.average_us * _US,
        min_s=egress.least_us * _US,
        max_s=egress.most_us * _US,
        jitter_s=egress.deviation_us * _US if egress.deviation_us is not None else None,
        lost=sent - count,
        error_s=max(egress.least_us, ingress.least_us) * _US,
    )


def _run(table: Columns, index: Index) -> int:
    """A number for the run: of its date, a DateAndTime, or of its counts where there is no date."""
    date = table.get("date", {}).get(index)
    if isinstance(date, bytes):
        return zlib.crc32(date)
    return integer(table.get("sum_us", {}).get((*index, _ROUND_TRIP))) or 0


def _delay(table: Columns, index: Index, sent: int, observed_at_ns: int) -> PathDelay | None:
    def configured(name: str) -> Value:
        return table.get(name, {}).get(index[:-1])

    target = address_text(configured("target")) or text(configured("target"))
    if not target:
        return None
    figures = _figures(table, index, _ROUND_TRIP)
    count = min(figures.samples, sent)
    frequency_s = integer(configured("frequency_s")) or 0
    return PathDelay(
        destination=target,
        start_ns=observed_at_ns - frequency_s * _NS_PER_S,
        end_ns=observed_at_ns,
        count=count,
        mean_s=figures.average_us * _US if count else 0.0,
        min_s=figures.least_us * _US if count else None,
        max_s=figures.most_us * _US if count else None,
        jitter_s=figures.deviation_us * _US if count and figures.deviation_us is not None else None,
        sent=sent,
        lost=sent - count,
        packet_bits=packet_bits(integer(configured("data_size")) or 0, target),
        error_s=_US,
    )
