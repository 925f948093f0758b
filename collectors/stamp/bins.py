"""Packets and echoes of one probe → bins of time, each told when its last packet can no longer be answered.

A packet belongs to the bin in which it was *sent*. One probe is one class to one target, measured by one
flow or several: routers spread flows over equal paths by their ports, so several flows see several of them,
and the mean over flows stands for the mean over paths.

Both directions are told one by one where both ends' clocks could be believed for every packet; else the round
trip is told, as a round trip.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from collectors.stamp.figures import Heard, path_delay
from collectors.stamp.losses import LossLedger, Split
from collectors.stamp.sender import Echo
from twin.records import PathDelay

MOST_ERROR = 1 / 3  # of the round trip, by both clocks together
GAP = 0.1  # of a bin's packets: fewer that were not sent leave its mean what it is


@dataclass(frozen=True)
class ProbeLabel:
    """What is measured, as the records name it."""

    source: str
    target: str
    packet_bits: float
    traffic_class: int = 0
    flows: int = 1
    stateful: bool | None = None  # whether the reflector numbers its replies; None: to be found out

    @property
    def name(self) -> str:
        """``SOURCE->TARGET``, with the class where it is not the default."""
        return f"{self.source}->{self.target}" + (f"/{self.traffic_class}" if self.traffic_class else "")


@dataclass(frozen=True)
class Measured:
    """What one bin gave: forward and backward, or the round trip."""

    forward: PathDelay | None = None
    backward: PathDelay | None = None
    round_trip: PathDelay | None = None
    sent: int = 0
    answered: int = 0
    refused: int = 0
    synchronised: bool | None = None  # both clocks, by their own word; None: nothing came back that says so
    offset_s: float | None = None  # their clock − ours, if both ways were alike


@dataclass
class _Bin:
    sent: int = 0
    skipped: int = 0
    refused: int = 0
    stepped: bool = False
    echoes: list[tuple[int, Echo]] = field(default_factory=list)


class ProbeBins:
    """The open bins of one probe."""

    def __init__(self, label: ProbeLabel, *, bin_ns: int, timeout_ns: int) -> None:
        self.label = label
        self._bin_ns, self._timeout_ns = bin_ns, timeout_ns
        self._ledgers = [LossLedger(label.stateful) for _ in range(label.flows)]
        self._open: dict[int, _Bin] = {}  # by end
        self._one_way = False  # as the newest answers were told: a bin without any is told alike

    def sent(self, at_ns: int) -> None:
        """A packet left."""
        self._bin(at_ns).sent += 1

    def skipped(self, at_ns: int, packets: int) -> None:
        """So many packets were not sent, because we were late."""
        self._bin(at_ns).skipped += packets

    def refused(self, at_ns: int) -> None:
        """The target's host said that nobody listens there."""
        self._bin(at_ns).refused += 1

    def echo(self, flow: int, echo: Echo) -> None:
        """A packet came back."""
        self._bin(echo.sent_ns).echoes.append((flow, echo))

    def stepped(self) -> None:
        """Our clock was set: no time difference in an open bin is worth anything."""
        for one in self._open.values():
            one.stepped = True

    def close(self, now_ns: int) -> list[Measured]:
        """What every bin gave whose last packet can no longer be answered."""
        due = sorted(end_ns for end_ns in self._open if end_ns + self._timeout_ns <= now_ns)
        return [self._measured(end_ns, self._open.pop(end_ns)) for end_ns in due]

    def _bin(self, at_ns: int) -> _Bin:
        return self._open.setdefault((at_ns // self._bin_ns + 1) * self._bin_ns, _Bin())

    def _measured(self, end_ns: int, one: _Bin) -> Measured:
        splits = self._splits(one)
        echoes = [(flow, echo) for flow, echo in one.echoes if not (one.stepped or echo.doubted)]
        if echoes:
            self._one_way = _believed(echo for _, echo in echoes)
        synchronised = all(echo.synchronised for _, echo in echoes) if echoes else None
        heard = Heard(
            start_ns=end_ns - self._bin_ns,
            end_ns=end_ns,
            sent=one.sent,
            echoes=echoes,
            came=len(one.echoes),
            split=_together(splits),
            synchronised=synchronised,
            quality=_quality(one, splits),
        )
        forward, backward, round_trip = self._told(heard)
        offsets = [(echo.forward_s - echo.backward_s) / 2 for _, echo in echoes]
        return Measured(
            forward=forward,
            backward=backward,
            round_trip=round_trip,
            sent=one.sent,
            answered=len(one.echoes),
            refused=one.refused,
            synchronised=synchronised,
            offset_s=statistics.median(offsets) if offsets else None,
        )

    def _told(self, heard: Heard) -> tuple[PathDelay | None, PathDelay | None, PathDelay | None]:
        """Forward, backward, round trip: the first two or the last."""
        label = self.label
        tell = partial(path_delay, heard, packet_bits=label.packet_bits, traffic_class=label.traffic_class)
        if self._one_way:
            return tell("forward", label.target), tell("backward", label.source), None
        return None, None, tell("round-trip", label.target)

    def _splits(self, one: _Bin) -> list[Split]:
        pairs: list[list[tuple[int, int]]] = [[] for _ in self._ledgers]
        for flow, echo in one.echoes:
            pairs[flow].append((echo.sequence, echo.reply_sequence))
        return [ledger.close(mine) for ledger, mine in zip(self._ledgers, pairs, strict=True)]


def _believed(echoes: Iterable[Echo]) -> bool:
    """Whether one-way delays are worth telling.

    All clocks were synchronised, no mean came out below zero, and what the clocks may be off by is a third of
    the round trip at most: else the round trip says more.
    """
    every = list(echoes)
    round_trip_s = sum(echo.round_trip_s for echo in every) / len(every)
    return (
        all(echo.synchronised for echo in every)
        and sum(echo.forward_s for echo in every) >= 0
        and sum(echo.backward_s for echo in every) >= 0
        and max(echo.error_s for echo in every) <= MOST_ERROR * round_trip_s
    )


def _together(splits: list[Split]) -> Split:
    """The losses of all flows; unknown where one of them is."""
    forward = [split.forward for split in splits if split.forward is not None]
    backward = [split.backward for split in splits if split.backward is not None]
    known = len(forward) == len(backward) == len(splits)
    return Split(sum(forward) if known else None, sum(backward) if known else None)


def _quality(one: _Bin, splits: list[Split]) -> tuple[str, ...]:
    """What is to be known about a bin before its figures are believed."""
    echoes = [echo for _, echo in one.echoes]
    flags = {
        "clock-step": one.stepped,
        "probe-gap": one.skipped > GAP * (one.sent + one.skipped),
        "sender-held-up": any(echo.doubted for echo in echoes),
        "reflector-reset": any(split.reset for split in splits),
        "class-remarked": any(echo.remarked for echo in echoes),
        "reordered": any(echo.reordered for echo in echoes),
        "no-listener": one.refused > 0,
    }
    return tuple(flag for flag, raised in flags.items() if raised)
