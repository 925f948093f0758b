"""When a target is polled: pure, so that its rules can be read and tested as a table.

Polls stand on multiples of the period in wall-clock time plus a small offset of the target's own: samples of
all devices fall into the same windows, and no two targets start at the same instant. After failures the
distance doubles up to a bound, still on the same grid; the first success brings the period back.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

SPREAD = 0.2  # of the period: the offsets lie in [0, 0.2) periods
DEADLINE = 0.75  # of the period: a poll that takes longer is given up before the next is due
MAX_BACKOFF_S = 60.0
SILENT_AFTER = 2  # failed polls in a row; one lost burst is no silence
MOST_COMPLAINTS = 5  # told until a poll works: who is wrong in another way each time is not told for ever


def offset_ns(target: str, period_ns: int) -> int:
    """A target's own offset on the grid, the same at every start."""
    return int(zlib.crc32(target.encode()) / 2**32 * SPREAD * period_ns)


def next_poll_ns(now_ns: int, period_ns: int, offset: int, failures: int) -> int:
    """The next instant to poll: strictly after ``now_ns``, on the grid, further away after failures."""
    longest = max(int(MAX_BACKOFF_S * 1e9) // period_ns, 1)
    steps = min(1 << min(max(failures - SILENT_AFTER, 0), 10), longest)
    return ((now_ns - offset) // period_ns + steps) * period_ns + offset


@dataclass
class Health:
    """Whether one target answers; each change of state is told once."""

    failures: int = 0
    silent: bool = False
    complaints: set[str] = field(default_factory=set)  # told since the last poll that worked

    def succeeded(self) -> bool:
        """A poll worked; true when the target is back from silence or refusal."""
        back = self.silent or bool(self.complaints)
        self.failures, self.silent = 0, False
        self.complaints.clear()
        return back

    def timed_out(self) -> bool:
        """A poll was not answered; true when the target is to be called silent from now on."""
        self.failures += 1
        newly = not self.silent and self.failures >= SILENT_AFTER
        self.silent |= newly
        return newly

    def refused(self, complaint: str) -> bool:
        """A poll failed for a reason; true when it is new, and not one of very many."""
        self.failures += 1
        newly = complaint not in self.complaints and len(self.complaints) < MOST_COMPLAINTS
        if newly:
            self.complaints.add(complaint)
        return newly
