"""CISCO-RTTMON-MIB jitter and echo operations → delay reports.

What one row of rttMonLatestJitterOperTable means
-------------------------------------------------
The operation sent packets towards its target and had them sent back. NumOfRTT of them completed the round
trip; of these NumOfOW had usable one-way times, which exist only while both clocks are NTP synchronised
(NTPState = sync). Without that, OWSum and its kin are left-overs and must not be read: the row then gives a
round trip, and says that its clock was not synchronised. SD is source → destination.

- mean = OWSumSD / NumOfOW; the deviation follows from OWSum2SD. Sums are 64 bits in two objects (…High).
- sent = NumOfRTT + lost SD + lost DS + missing in action (direction unknown).
- The unit is milliseconds unless rttMonEchoAdminPrecision says microseconds: that is also ``error_s``.
- rttMonLatestRttOperTime (sysUpTime at completion) says which run the row is from: a poll that meets the same
  run again reports nothing. Together with sysUpTime now it dates the run on our clock.

An echo operation (ICMP or UDP) sends one packet a run and has no jitter row: its round trip is
rttMonLatestRttOperCompletionTime, in milliseconds whatever the precision, if rttMonLatestRttOperSense is ok
or overThreshold. A timeout lost the packet. Other senses (busy, not connected, …) say nothing of the path:
such a run is left out.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass

from collectors.snmp.engine import Index, Value
from collectors.snmp.interfaces import TICK_NS
from collectors.snmp.tables import Columns, integer, text
from twin.records import PathDelay

_ECHO, _UDP_ECHO, _JITTER = 1, 5, 9  # RttMonRttType
_OK, _OVER_THRESHOLD, _TIMEOUT = 1, 3, 4  # RttResponseSense
_MICROSECONDS = 2  # rttMonEchoAdminPrecision
_SYNCHRONISED = 1  # rttMonLatestJitterOperNTPState
_NS_PER_S = 1_000_000_000
_HEADER_OCTETS = {4: 28, 6: 48}  # IP and UDP or ICMP, around a probe's payload


@dataclass(frozen=True)
class Operation:
    """One configured jitter or echo operation."""

    index: Index
    target: str  # address, or the operation's tag where the address is none
    frequency_s: int
    unit_s: float
    packet_bits: float
    echo: bool = False


@dataclass(frozen=True)
class Delays:
    """What one poll brought: by direction, and the runs seen, to tell them from the next poll's."""

    one_way: tuple[PathDelay, ...]
    round_trip: tuple[PathDelay, ...]
    runs: Mapping[Index, int]


def operations(admin: Columns) -> tuple[Operation, ...]:
    """The admin tables → the jitter and echo operations, by index."""
    found = []
    for index, kind in sorted(admin.get("kind", {}).items()):
        target = address_text(admin.get("target", {}).get(index)) or text(admin.get("tag", {}).get(index))
        if kind not in (_JITTER, _ECHO, _UDP_ECHO) or not target:
            continue
        precise = kind == _JITTER and admin.get("precision", {}).get(index) == _MICROSECONDS
        size = integer(admin.get("request_size", {}).get(index)) or 0
        found.append(
            Operation(
                index=index,
                target=target,
                frequency_s=integer(admin.get("frequency_s", {}).get(index)) or 0,
                unit_s=1e-6 if precise else 1e-3,
                packet_bits=packet_bits(size, target),
                echo=kind != _JITTER,
            )
        )
    return tuple(found)


def delays(
    configured: tuple[Operation, ...],
    latest: Columns,
    *,
    uptime_ticks: int,
    asked_at_ns: int,
    seen: Mapping[Index, int],
) -> Delays:
    """The newest runs but those in ``seen``. ``uptime_ticks`` answers what was asked at ``asked_at_ns``."""
    one_way, round_trip = [], []
    runs = dict(seen)
    for operation in configured:
        row = {name: integer(column.get(operation.index)) or 0 for name, column in latest.items()}
        completed = row.get("completed", 0)
        if not completed or runs.get(operation.index) == completed:
            continue
        runs[operation.index] = completed
        end_ns = asked_at_ns - (max(uptime_ticks - completed, 0) + 1) * TICK_NS
        synchronised = row.get("ntp_state") == _SYNCHRONISED
        if operation.echo:
            round_trip += _echo(operation, row, end_ns)
        elif synchronised and (row.get("ow_count") or not row.get("rtt_count")):
            one_way.append(_one_way(operation, row, end_ns))
        else:
            round_trip.append(_round_trip(operation, row, end_ns, synchronised=synchronised))
    return Delays(one_way=tuple(one_way), round_trip=tuple(round_trip), runs=runs)


def _one_way(operation: Operation, row: Mapping[str, int], end_ns: int) -> PathDelay:
    count, unit_s = row.get("ow_count", 0), operation.unit_s
    mean = _wide(row, "sd_sum") / count if count else 0.0
    square = _wide(row, "sd_sum2") / count if count else 0.0
    return PathDelay(
        destination=operation.target,
        start_ns=end_ns - operation.frequency_s * _NS_PER_S,
        end_ns=end_ns,
        count=count,
        mean_s=mean * unit_s,
        min_s=row.get("sd_min", 0) * unit_s if count else None,
        max_s=row.get("sd_max", 0) * unit_s if count else None,
        jitter_s=math.sqrt(max(square - mean * mean, 0.0)) * unit_s if square else None,
        sent=_sent(row),
        lost=row.get("loss_sd", 0) + row.get("loss_mia", 0),
        packet_bits=operation.packet_bits,
        clock_synchronised=True,
        error_s=unit_s,
    )


def _round_trip(
    operation: Operation, row: Mapping[str, int], end_ns: int, *, synchronised: bool
) -> PathDelay:
    count, unit_s = row.get("rtt_count", 0), operation.unit_s
    return PathDelay(
        destination=operation.target,
        start_ns=end_ns - operation.frequency_s * _NS_PER_S,
        end_ns=end_ns,
        count=count,
        mean_s=_wide(row, "rtt_sum") / count * unit_s if count else 0.0,
        min_s=row.get("rtt_min", 0) * unit_s if count else None,
        max_s=row.get("rtt_max", 0) * unit_s if count else None,
        sent=_sent(row),
        lost=row.get("loss_sd", 0) + row.get("loss_ds", 0) + row.get("loss_mia", 0),
        packet_bits=operation.packet_bits,
        clock_synchronised=synchronised,
        error_s=unit_s,
    )


def _echo(operation: Operation, row: Mapping[str, int], end_ns: int) -> list[PathDelay]:
    """One packet there and back, or lost; nothing where the run says nothing of the path."""
    sense = row.get("sense", 0)
    if sense not in (_OK, _OVER_THRESHOLD, _TIMEOUT):
        return []
    lost = sense == _TIMEOUT
    took_s = 0.0 if lost else row.get("completion", 0) * operation.unit_s
    return [
        PathDelay(
            destination=operation.target,
            start_ns=end_ns - operation.frequency_s * _NS_PER_S,
            end_ns=end_ns,
            count=0 if lost else 1,
            mean_s=took_s,
            min_s=None if lost else took_s,
            max_s=None if lost else took_s,
            sent=1,
            lost=1 if lost else 0,
            packet_bits=operation.packet_bits,
            error_s=operation.unit_s,
        )
    ]


def _sent(row: Mapping[str, int]) -> int:
    return sum(row.get(name, 0) for name in ("rtt_count", "loss_sd", "loss_ds", "loss_mia"))


def _wide(row: Mapping[str, int], name: str) -> int:
    """A 64-bit sum from its two objects."""
    return (row.get(f"{name}_high", 0) << 32) + row.get(name, 0)


def packet_bits(payload_octets: int, target: str) -> float:
    """A probe's size with its headers, by its target's address; a name is taken for one of IPv4."""
    return 8.0 * (payload_octets + _HEADER_OCTETS[6 if ":" in target else 4])


def address_text(value: Value) -> str:
    """4 or 16 octets → an address as text, anything else → empty."""
    if isinstance(value, bytes) and len(value) in (4, 16):
        return str(ipaddress.ip_address(value))
    return ""
