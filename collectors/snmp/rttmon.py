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
rttMonLatestRttOperCompletionTime, in milliseconds whatever the precision.

How a run ended (RttResponseSense)
----------------------------------
The figures of a run count only if its sense is ok or overThreshold (a valid completion, only a slow one);
otherwise they are 0 or those of an earlier run. Of the other senses three lost what was sent: timeout,
sequenceError (what came back belongs to an earlier run, so this run's is late) and verifyError (it came
back damaged, which is a loss by RFC 7680 section 2.4). They are told as that: by the row's own counts where
these say that all was lost, else as many packets as the operation is configured to send, as a round trip,
for nothing tells on which way. All others (disconnected, busy, notConnected, dropped, …) sent nothing: such
a run says nothing of the path and is no news.
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
_OK = 1  # RttResponseSense
_COMPLETED = {_OK, 3}  # ok, overThreshold
_LOST = {4, 8, 9}  # timeout, sequenceError, verifyError
_MICROSECONDS = 2  # rttMonEchoAdminPrecision
_SYNCHRONISED = 1  # rttMonLatestJitterOperNTPState
_DEFAULT_PACKETS = 10  # rttMonEchoAdminNumPackets of a jitter operation
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
    packets: int = 1  # that one run sends
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
        packets = integer(admin.get("packets", {}).get(index)) or _DEFAULT_PACKETS
        found.append(
            Operation(
                index=index,
                target=target,
                frequency_s=integer(admin.get("frequency_s", {}).get(index)) or 0,
                unit_s=1e-6 if precise else 1e-3,
                packet_bits=packet_bits(size, target),
                packets=packets if kind == _JITTER else 1,
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
        completed, sense = row.get("completed", 0), _sense(operation, latest)
        if not completed or runs.get(operation.index) == completed or sense not in _COMPLETED | _LOST:
            continue
        runs[operation.index] = completed
        end_ns = asked_at_ns - (max(uptime_ticks - completed, 0) + 1) * TICK_NS
        synchronised = row.get("ntp_state") == _SYNCHRONISED
        if sense in _LOST and (operation.echo or row.get("rtt_count") or not _sent(row)):
            round_trip.append(_all_lost(operation, end_ns))
        elif operation.echo:
            round_trip.append(_echo(operation, row, end_ns))
        elif synchronised and (row.get("ow_count") or not row.get("rtt_count")):
            one_way.append(_one_way(operation, row, end_ns))
        else:
            round_trip.append(_round_trip(operation, row, end_ns, synchronised=synchronised))
    return Delays(one_way=tuple(one_way), round_trip=tuple(round_trip), runs=runs)


def _sense(operation: Operation, latest: Columns) -> int:
    """How the run ended: as its jitter row says, else as the row that all operations have."""
    for name in ("sense",) if operation.echo else ("jitter_sense", "sense"):
        told = integer(latest.get(name, {}).get(operation.index))
        if told is not None:
            return told
    return 0 if operation.echo else _OK  # a jitter row that says neither has figures of its own


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


def _echo(operation: Operation, row: Mapping[str, int], end_ns: int) -> PathDelay:
    """One packet there and back."""
    took_s = row.get("completion", 0) * operation.unit_s
    return PathDelay(
        destination=operation.target,
        start_ns=end_ns - operation.frequency_s * _NS_PER_S,
        end_ns=end_ns,
        count=1,
        mean_s=took_s,
        min_s=took_s,
        max_s=took_s,
        sent=1,
        lost=0,
        packet_bits=operation.packet_bits,
        error_s=operation.unit_s,
    )


def _all_lost(operation: Operation, end_ns: int) -> PathDelay:
    """A run of which nothing came back in time and whole."""
    return PathDelay(
        destination=operation.target,
        start_ns=end_ns - operation.frequency_s * _NS_PER_S,
        end_ns=end_ns,
        count=0,
        mean_s=0.0,
        sent=operation.packets,
        lost=operation.packets,
        packet_bits=operation.packet_bits,
        error_s=operation.unit_s,
    )


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
