"""What our own clock is worth, as the kernel has it from whoever disciplines it (chrony, ntpd, PTP).

``adjtimex`` (Linux) tells the estimated error of the clock and whether it is synchronised. A machine whose
clock another one keeps (a container, a network namespace, a virtual machine with the host's clock) may not be
told: then the operator says what it is worth. It is asked once a second at most; a step of the clock against
the monotonic one is seen at once.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass, field
from typing import Literal

from collectors.stamp.timestamps import NS_PER_S, ErrorEstimate, TimestampFormat

ClockState = Literal["kernel", "synchronised", "unsynchronised"]
STAMPING_ERROR_S = 5e-6  # between a program's reading of the clock and the packet on its way
UNKNOWN_ERROR_S = 1.0
STEP_NS = 5_000_000  # slewing moves a clock by 0.5 ms a second at most
_ASK_AGAIN_NS = NS_PER_S
_STATUS_UNSYNCHRONISED = 0x40  # STA_UNSYNC, linux/timex.h


class _Timex(ctypes.Structure):
    """The beginning of struct timex, adjtimex(2); the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),  # microseconds
        ("esterror", ctypes.c_long),  # microseconds
        ("status", ctypes.c_int),
        ("_room", ctypes.c_byte * 256),
    )


def kernel_clock() -> tuple[bool, float]:
    """(synchronised, error in seconds); not synchronised where the kernel does not tell."""
    if os.uname().sysname != "Linux":
        return False, UNKNOWN_ERROR_S
    now = _Timex()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(now)) < 0 or now.status & _STATUS_UNSYNCHRONISED:
        return False, UNKNOWN_ERROR_S
    return True, (now.esterror or now.maxerror) * 1e-6


@dataclass
class OwnClock:
    """Our clock's error estimate, and whether it was set."""

    state: ClockState = "kernel"
    error_s: float = 0.0  # for ``synchronised``: what the operator says
    form: TimestampFormat = "ntp"
    _asked_ns: int = -_ASK_AGAIN_NS
    _estimate: ErrorEstimate | None = None
    _ahead_ns: int | None = field(default=None)  # of the monotonic clock

    def estimate(self) -> ErrorEstimate:
        """What goes into packets."""
        now_ns = time.monotonic_ns()
        if self._estimate is None or now_ns - self._asked_ns >= _ASK_AGAIN_NS:
            self._asked_ns, self._estimate = now_ns, self._ask()
        return self._estimate

    def _ask(self) -> ErrorEstimate:
        if self.state == "kernel":
            synchronised, error_s = kernel_clock()
        else:
            synchronised = self.state == "synchronised"
            error_s = self.error_s if synchronised else UNKNOWN_ERROR_S
        return ErrorEstimate(synchronised, error_s + STAMPING_ERROR_S, self.form)

    def stepped(self) -> bool:
        """Whether the clock was set since the last call."""
        return self.judge(time.time_ns(), time.monotonic_ns())

    def judge(self, now_ns: int, monotonic_ns: int) -> bool:
        """The same, of two given readings."""
        ahead_ns, before_ns = now_ns - monotonic_ns, self._ahead_ns
        self._ahead_ns = ahead_ns
        return before_ns is not None and abs(ahead_ns - before_ns) > STEP_NS
