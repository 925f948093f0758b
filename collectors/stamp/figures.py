"""Echoes of one bin → the figures of one direction, as a record.

Variation, three ways: ``jitter_s`` is the standard deviation of the delay, as everywhere in the records;
``ipdv_s`` the mean of |D(i+1) − D(i)| over packets next to each other in one flow (RFC 3393, RFC 5481
section 4.1); and a reader gets the packet delay variation (RFC 5481 section 4.2) from ``p95_s − min_s``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from collectors.stamp.losses import Split
from collectors.stamp.sender import Echo
from twin.records import PathDelay

READING_ERROR_S = 20e-6  # of a round trip: two readings of a clock by a program, two by a kernel
Way = Literal["forward", "backward", "round-trip"]
DELAY: dict[Way, Callable[[Echo], float]] = {
    "forward": lambda echo: echo.forward_s,
    "backward": lambda echo: echo.backward_s,
    "round-trip": lambda echo: echo.round_trip_s,
}


@dataclass(frozen=True)
class Heard:
    """What one bin brought."""

    start_ns: int
    end_ns: int
    sent: int
    echoes: Sequence[tuple[int, Echo]]  # (flow, echo), those whose times are good
    came: int  # packets that came back
    split: Split
    synchronised: bool | None = None  # both clocks, by their own word
    quality: tuple[str, ...] = ()


def path_delay(
    heard: Heard, way: Way, destination: str, *, packet_bits: float, traffic_class: int
) -> PathDelay:
    """One direction's figures. Without an echo only the losses say something."""
    one_way = way != "round-trip"
    delays = np.array([DELAY[way](echo) for _, echo in heard.echoes])
    lost = {"forward": heard.split.forward, "backward": heard.split.backward}
    figures = _distribution(delays) if len(delays) else {"mean_s": 0.0}
    errors = [echo.error_s for _, echo in heard.echoes] if one_way else [READING_ERROR_S]
    return PathDelay(
        destination=destination,
        start_ns=heard.start_ns,
        end_ns=heard.end_ns,
        count=len(delays),
        **figures,
        ipdv_s=_ipdv(heard.echoes, way),
        sent=heard.sent,
        lost=lost[way] if one_way else max(heard.sent - heard.came, 0),
        lost_forward=lost["forward"],
        lost_backward=lost["backward"],
        packet_bits=packet_bits,
        traffic_class=traffic_class,
        flows=max(len({flow for flow, _ in heard.echoes}), 1),
        clock_synchronised=heard.synchronised,
        error_s=max(errors, default=None),
        quality=heard.quality,
    )


def _distribution(delays: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, float]:
    p50, p95 = np.quantile(delays, (0.5, 0.95))
    return {
        "mean_s": float(delays.mean()),
        "min_s": float(delays.min()),
        "max_s": float(delays.max()),
        "p50_s": float(p50),
        "p95_s": float(p95),
        "jitter_s": float(delays.std()),
    }


def _ipdv(echoes: Sequence[tuple[int, Echo]], way: Way) -> float | None:
    """Over packets of one flow with numbers next to each other; None without such a pair."""
    in_order = sorted((flow, echo.sequence, DELAY[way](echo)) for flow, echo in echoes)
    steps = [
        abs(later - earlier)
        for (flow, number, earlier), (next_flow, next_number, later) in pairwise(in_order)
        if flow == next_flow and next_number == number + 1
    ]
    return sum(steps) / len(steps) if steps else None
