"""CISCO-RTTMON-MIB: jitter operations and their latest results, one-way, in microseconds.

Every operation is of type jitter(9) with the protocol jitterAppl(27) and microsecond precision, between
clocks that NTP holds together (here: one clock), so the one-way columns are valid: NTPState sync(1) and
NumOfOW > 0. SD is source to destination, DS the way back. Sums are 32-bit halves: the low half in the
classic column, the high half in its own. A row of the latest-results tables exists from the first finished
period on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import sqrt

from ndtwin.lab import ber
from ndtwin.lab.device import Device, OneWay, Operation, OperationResult
from ndtwin.lab.mib import Cell, Oid, Reader, fixed
from ndtwin.lab.mib_tables import number, text

RTTMON: Oid = (1, 3, 6, 1, 4, 1, 9, 9, 42, 1)
CTRL_ADMIN = (*RTTMON, 2, 1, 1)
ECHO_ADMIN = (*RTTMON, 2, 2, 1)
LATEST_RTT = (*RTTMON, 2, 10, 1)
LATEST_JITTER = (*RTTMON, 5, 2, 1)

JITTER, JITTER_APPL, MICROSECONDS = 9, 27, 2
SENSE_OK, SENSE_TIMEOUT = 1, 4
NTP_SYNC = 1
ACTIVE = 1
_US = 1e6

Figure = Callable[[OperationResult], float]


def _sum(way: OneWay) -> float:
    return way.mean_s * _US * way.received


def _squares(way: OneWay) -> float:
    return ((way.mean_s * _US) ** 2 + (way.std_s * _US) ** 2) * way.received


def _one_way(figure: Callable[[OneWay], float], side: str) -> Figure:
    return lambda result: figure(getattr(result, side))


def _high(figure: Callable[[OneWay], float], side: str) -> Figure:
    return lambda result: round(figure(getattr(result, side))) >> 32


def _low(figure: Callable[[OneWay], float], side: str) -> Figure:
    return lambda result: round(figure(getattr(result, side))) & 0xFFFFFFFF


def _round_trip(name: str) -> Figure:
    return lambda result: (getattr(result.forward, name) + getattr(result.backward, name)) * _US


def _both(result: OperationResult) -> int:
    """Probes that came back: the rest of what was lost on either way."""
    return max(0, result.forward.received - result.backward.lost)


def _round_trip_std(result: OperationResult) -> float:
    return sqrt(result.forward.std_s**2 + result.backward.std_s**2) * _US


def _rtt_sum(result: OperationResult) -> int:
    return round(_round_trip("mean_s")(result) * _both(result))


def _rtt_squares(result: OperationResult) -> int:
    return round((_round_trip("mean_s")(result) ** 2 + _round_trip_std(result) ** 2) * _both(result))


_FORWARD, _BACKWARD = "forward", "backward"
# Column → figure; all Gauge32.
JITTER_FIGURES: dict[int, Figure] = {
    1: _both,
    2: lambda result: _rtt_sum(result) & 0xFFFFFFFF,
    3: lambda result: _rtt_squares(result) & 0xFFFFFFFF,
    4: _round_trip("min_s"),
    5: _round_trip("max_s"),
    26: _one_way(lambda way: way.lost, _FORWARD),
    27: _one_way(lambda way: way.lost, _BACKWARD),
    28: lambda result: 0,  # out of sequence: FIFO queues on one path keep the order
    29: lambda result: 0,  # missing in action
    30: lambda result: 0,  # late
    33: _low(_sum, _FORWARD),
    34: _low(_squares, _FORWARD),
    35: _one_way(lambda way: way.min_s * _US, _FORWARD),
    36: _one_way(lambda way: way.max_s * _US, _FORWARD),
    37: _low(_sum, _BACKWARD),
    38: _low(_squares, _BACKWARD),
    39: _one_way(lambda way: way.min_s * _US, _BACKWARD),
    40: _one_way(lambda way: way.max_s * _US, _BACKWARD),
    41: lambda result: result.forward.received,
    46: lambda result: (result.forward.std_s + result.backward.std_s) / 2 * _US,
    47: _one_way(lambda way: way.std_s * _US, _FORWARD),
    48: _one_way(lambda way: way.std_s * _US, _BACKWARD),
    49: _one_way(lambda way: way.mean_s * _US, _FORWARD),
    50: _one_way(lambda way: way.mean_s * _US, _BACKWARD),
    53: lambda result: _rtt_sum(result) >> 32,
    54: lambda result: _rtt_squares(result) >> 32,
    55: _high(_sum, _FORWARD),
    56: _high(_squares, _FORWARD),
    57: _high(_sum, _BACKWARD),
    58: _high(_squares, _BACKWARD),
}


def _result(operation: Operation) -> OperationResult:
    assert operation.result is not None  # rows of the latest tables exist only with a result
    return operation.result


def _sense(result: OperationResult) -> int:
    return SENSE_OK if _both(result) else SENSE_TIMEOUT


def _figure(operation: Operation, figure: Figure) -> bytes:
    return ber.gauge32(figure(_result(operation)))


def ctrl_columns(device: Device, operation: Operation) -> dict[int, Reader]:
    """rttMonCtrlAdminTable."""
    return {
        2: text(""),
        3: text(f"{device.name}->{operation.target}"),
        4: number(JITTER),
        6: number(operation.frequency_s),
        7: number(5000),  # time-out, ms
        9: number(ACTIVE),
    }


def echo_columns(operation: Operation) -> dict[int, Reader]:
    """rttMonEchoAdminTable."""
    return {
        1: number(JITTER_APPL),
        2: text(operation.target_address.packed),
        3: number(operation.packet_octets),
        4: number(operation.packet_octets),
        5: number(50000 + operation.index % 10000),
        6: text(operation.source_address.packed),
        9: number(0),
        17: number(1000 * operation.frequency_s // operation.packets),
        18: number(operation.packets),
        26: text(""),
        37: number(MICROSECONDS),
    }


def rtt_columns(device: Device, operation: Operation) -> dict[int, Reader]:
    """rttMonLatestRttOperTable."""
    return {
        1: partial(_figure, operation, _round_trip("mean_s")),
        2: lambda: ber.integer(_sense(_result(operation))),
        5: lambda: ber.time_ticks(device.ticks(_result(operation).completed_ns)),
        6: text(operation.target_address.packed),
    }


def jitter_columns(operation: Operation) -> dict[int, Reader]:
    """rttMonLatestJitterOperTable."""
    columns: dict[int, Reader] = {
        column: partial(_figure, operation, figure) for column, figure in JITTER_FIGURES.items()
    }
    columns[31] = lambda: ber.integer(_sense(_result(operation)))
    columns[51] = fixed(ber.integer(NTP_SYNC))
    return columns


def rttmon_cells(device: Device) -> Iterator[Cell]:
    """All operations of a device."""
    for operation in device.operations:
        tables = [(CTRL_ADMIN, ctrl_columns(device, operation)), (ECHO_ADMIN, echo_columns(operation))]
        if operation.result is not None:
            tables.append((LATEST_RTT, rtt_columns(device, operation)))
            tables.append((LATEST_JITTER, jitter_columns(operation)))
        for entry, columns in tables:
            for column, reader in columns.items():
                yield (*entry, column), (operation.index,), reader
