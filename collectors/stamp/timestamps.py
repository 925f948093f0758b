"""Times on the wire: NTP and PTP timestamps, and what their clock is worth.

Theory
------
*NTP* (RFC 5905 section 6): 32 bits of seconds since 1900 (UTC) and 32 bits of fraction. The seconds wrap
every 136 years, first in 2036: a decoder must know about when it is, and takes the era nearest to that.

*PTP, truncated* (RFC 8186 section 2.1): 32 bits of seconds since 1970 and 32 bits of nanoseconds. IEEE 1588
counts seconds of TAI, which are 37 ahead of UTC since 2017; many devices write UTC all the same. What is
written here is TAI; of what is read, the reading nearer to our own clock is taken. Two clocks that are 18 s
apart would be misread, but then neither of them is synchronised, and their difference is of no use anyway.

*Error Estimate* (RFC 4656 section 4.1.2, RFC 8186 section 2.3), two octets:

     0                   1
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |S|Z|   Scale   |   Multiplier  |     error = Multiplier · 2^(Scale − 32) s
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

S: the clock is synchronised to UTC by an external source. Z: timestamps are PTP, else NTP. A Multiplier of
zero must not be sent and makes the packet's times worthless; it is read as an unsynchronised clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

TimestampFormat = Literal["ntp", "ptp"]

NS_PER_S = 1_000_000_000
NTP_TO_UNIX_S = 2_208_988_800  # 1900-01-01 to 1970-01-01 (RFC 5905 figure 4)
TAI_MINUS_UTC_S = 37  # since 2017-01-01; no leap second is foreseen, and none is decided after 2035
_TAI_NS = TAI_MINUS_UTC_S * NS_PER_S
_ERA_NS = NS_PER_S << 32
_LARGEST_SCALE = 63
_SYNCHRONISED, _PTP = 0x8000, 0x4000


def to_wire(at_ns: int, form: TimestampFormat) -> int:
    """Nanoseconds since 1970 (UTC) → 64 bits."""
    if form == "ptp":
        seconds, ns = divmod(at_ns + _TAI_NS, NS_PER_S)
        return (seconds & 0xFFFFFFFF) << 32 | ns
    seconds, ns = divmod(at_ns, NS_PER_S)
    return (seconds + NTP_TO_UNIX_S & 0xFFFFFFFF) << 32 | (ns << 32) // NS_PER_S


def from_wire(stamp: int, form: TimestampFormat, near_ns: int) -> int:
    """64 bits → nanoseconds since 1970 (UTC), of all times that they may mean the nearest to ``near_ns``."""
    seconds, part = stamp >> 32, stamp & 0xFFFFFFFF
    if form == "ptp":
        as_written = _in_era(seconds * NS_PER_S + part, near_ns)
        return min(as_written - _TAI_NS, as_written, key=lambda at_ns: abs(at_ns - near_ns))
    ns = (part * NS_PER_S + (1 << 31)) >> 32  # to the nearest nanosecond
    return _in_era((seconds - NTP_TO_UNIX_S) * NS_PER_S + ns, near_ns)


def _in_era(at_ns: int, near_ns: int) -> int:
    """The same moment modulo 2³² s, as near as can be to a given one."""
    return at_ns + (near_ns - at_ns + _ERA_NS // 2) // _ERA_NS * _ERA_NS


@dataclass(frozen=True)
class ErrorEstimate:
    """What a party says of its clock."""

    synchronised: bool
    error_s: float
    form: TimestampFormat = "ntp"

    def to_wire(self) -> int:
        """Two octets. The error is rounded up: it is a bound."""
        scale, multiplier = _scaled(self.error_s)
        flags = (_SYNCHRONISED if self.synchronised else 0) | (_PTP if self.form == "ptp" else 0)
        return flags | scale << 8 | multiplier

    @classmethod
    def from_wire(cls, field: int) -> ErrorEstimate:
        """Two octets → what they say."""
        multiplier, scale = field & 0xFF, field >> 8 & 0x3F
        return cls(
            synchronised=bool(field & _SYNCHRONISED) and multiplier > 0,
            error_s=math.ldexp(multiplier, scale - 32) if multiplier else math.inf,
            form="ptp" if field & _PTP else "ntp",
        )


@lru_cache(maxsize=256)  # a clock's error changes once a second at most, and goes into every packet
def _scaled(error_s: float) -> tuple[int, int]:
    """(scale, multiplier), the smallest pair that is not less than the error."""
    largest = math.ldexp(255, _LARGEST_SCALE - 32)
    units = math.ldexp(min(max(error_s, 0.0), largest), 32)  # of 2⁻³² s
    scale = max(0, math.ceil(math.log2(units / 255))) if units > 255 else 0
    multiplier = math.ceil(math.ldexp(units, -scale))
    return scale, min(max(multiplier, 1), 255)
