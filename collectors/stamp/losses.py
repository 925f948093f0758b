"""Which direction lost a packet, from two sequences of numbers (RFC 8762 section 4).

A stateful reflector numbers its replies one by one. Between two packets that came back, s is how many were
sent, q how many the reflector answered, n how many of those answers arrived:

    lost forward = s − q,     lost backward = q − n.

A stateless reflector repeats the sender's number: q = s always, and nothing can be told. The two are alike
until a packet is lost on the way there; so unless the operator says which it is, nothing is told before q and
s have parted once. What was lost after the last packet that came back is counted once another one comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_HALF, _WRAP = 1 << 31, 1 << 32


@dataclass(frozen=True)
class Split:
    """The losses of one bin by direction, as far as they can be told."""

    forward: int | None = None
    backward: int | None = None
    reset: bool = False  # the reflector began to count anew


@dataclass
class LossLedger:
    """The two sequences of one session."""

    stateful: bool | None = None  # None: to be found out
    _sent: int = -1  # the anchor: newest packet that came back, and its reply's number
    _replied: int = -1
    _begun: bool = False

    def close(self, echoes: Iterable[tuple[int, int]]) -> Split:
        """Account for the (sequence, reply sequence) of all that came back in one bin."""
        pairs = sorted(echoes)
        if not pairs or self.stateful is False:
            return Split()
        if not self._begun:
            self._begin(*pairs[0])
        sent = max(_ahead(s, self._sent) for s, _ in pairs)
        replied = max(_ahead(q, self._replied) for _, q in pairs)
        self._sent, self._replied = (self._sent + sent) % _WRAP, (self._replied + replied) % _WRAP
        if replied <= 0 or replied > sent:
            return Split(reset=True)
        if sent != replied:
            self.stateful = True
        came = sum(1 for s, _ in pairs)
        if self.stateful or sent == came:
            return Split(forward=sent - replied, backward=max(replied - came, 0))
        return Split()

    def _begin(self, sequence: int, reply_sequence: int) -> None:
        """Both count from zero; a reflector that is ahead of us counts on from another session."""
        self._begun = True
        if reply_sequence > sequence:
            self._sent, self._replied = sequence - 1, reply_sequence - 1


def _ahead(number: int, anchor: int) -> int:
    """How far a number lies ahead of another on the circle of 2³²."""
    return (number - anchor + _HALF) % _WRAP - _HALF
