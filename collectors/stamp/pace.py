"""When the packets of a probe leave: spread in time, never faster than agreed, never in a burst.

Theory
------
*Poisson* (RFC 2330 section 11.1.1): exponential gaps, so that what is measured is the mean over time, and
nothing periodic in the network is met always at the same phase. A gap is never shorter than a tenth of the
mean (a burst of probes would measure itself) and never longer than ten; the mean of such gaps is kept by
scaling.

*Periodic* (RFC 3432): equal gaps, after a start at a random place within the first one.

What could not be sent in time (the process was held up, the machine slept) is left out and counted: catching
up would be a flood, and would measure one instant many times.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Literal

from collectors.stamp.timestamps import NS_PER_S

Stream = Literal["poisson", "periodic"]
SHORTEST, LONGEST = 0.1, 10.0  # of the mean gap
# The mean of an exponential gap clipped to [SHORTEST, LONGEST]: a + e^-a - e^-b of its own mean.
_CLIPPED_MEAN = SHORTEST + math.exp(-SHORTEST) - math.exp(-LONGEST)
_LATE = 2.0  # mean gaps: what is later is not sent any more


@dataclass
class Pace:
    """The instants at which one stream sends. Times are on one clock, best a monotonic one."""

    packets_per_s: float
    stream: Stream = "poisson"
    dice: random.Random = field(default_factory=random.Random)
    due_ns: int | None = None
    skipped: int = 0  # packets that were not sent because their time had passed

    @property
    def gap_ns(self) -> float:
        """The mean gap."""
        return NS_PER_S / self.packets_per_s

    def start(self, now_ns: int) -> int:
        """When the first packet leaves."""
        self.due_ns = now_ns + int(self.dice.random() * self.gap_ns)
        return self.due_ns

    def take(self, now_ns: int) -> bool:
        """Call it when due: whether to send now. ``due_ns`` then says when to call again."""
        due_ns = self.start(now_ns) if self.due_ns is None else self.due_ns
        if now_ns < due_ns:
            return False
        if now_ns - due_ns <= _LATE * self.gap_ns:
            # From now on, not from when it was due: two packets are never closer than the shortest gap.
            self.due_ns = max(due_ns + self._gap(), now_ns + int(SHORTEST * self.gap_ns))
            return True
        self.skipped += int((now_ns - due_ns) / self.gap_ns)
        self.start(now_ns)
        return False

    def _gap(self) -> int:
        if self.stream == "periodic":
            return int(self.gap_ns)
        share = min(max(self.dice.expovariate(1.0), SHORTEST), LONGEST) / _CLIPPED_MEAN
        return int(share * self.gap_ns)
