"""How many rows the next GETBULK asks for: by what one datagram carries, and by how the device bears it.

Fewer, larger answers are cheaper for both ends, up to the size at which IP fragments them: then one lost
fragment loses the answer, and firewalls drop fragments. So a page is planned in octets and starts with all
that fits into one Ethernet frame; the size of a row is learnt from each column's last answer. A device that
does not answer in time, or says tooBig, is asked for half as much; one that answers promptly gets more
again, step by step. Asking far beyond the end of a column makes the agent read what nobody wants, so a
column whose length is known is asked for no more than one row beyond it.

Pure: the caller tells what happened.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from collectors.snmp.engine import Value, Varbind

FRAME_OCTETS = 1380  # 1500 of Ethernet less IP, UDP, message and PDU headers with SNMPv3's
MIN_OCTETS = 40  # about one row
MAX_REPETITIONS = 200  # more fit no frame
_ROW_OCTETS = 40  # of a column not seen before
_PROMPT = 0.1  # of the time-out: such an answer was cheap
_SLOW = 0.5  # of the time-out: such an answer nearly came too late
_HEADERS = 8  # tag and length of varbind, name and value
_NUMBER_OCTETS = 6  # a counter that has run for a while


@dataclass
class Paging:
    """What is known about one device's pages."""

    budget_octets: int = FRAME_OCTETS
    _shapes: dict[str, tuple[int, int]] = field(default_factory=dict)  # column → (rows, octets of a row)

    def repetitions(self, root: str, wanted: int = 0) -> int:
        """For the next request under ``root``; ``wanted``: rows still to come, 0 when nobody knows."""
        rows, octets = self._shapes.get(root, (0, _ROW_OCTETS))
        fitting = max(self.budget_octets // octets, 1)
        expected = wanted or (rows + 1 if rows else fitting)
        return min(fitting, expected, MAX_REPETITIONS)

    def answered(self, root: str, last: Varbind, seconds: float, timeout_s: float) -> None:
        """A page came; ``last`` is its last row."""
        self._shapes[root] = (self._shapes.get(root, (0, 0))[0], octets_of(last))
        if seconds > _SLOW * timeout_s:
            self.failed()
        elif seconds < _PROMPT * timeout_s:
            self.budget_octets = min(self.budget_octets + self.budget_octets // 4, FRAME_OCTETS)

    def ended(self, root: str, rows: int) -> None:
        """The column is read; it has so many rows."""
        self._shapes[root] = (rows, self._shapes.get(root, (0, _ROW_OCTETS))[1])

    def failed(self) -> None:
        """No answer, tooBig, or one that was cut off: ask for less."""
        self.budget_octets = max(self.budget_octets // 2, MIN_OCTETS)


def octets_of(varbind: Varbind) -> int:
    """About what a varbind takes on the wire: an OID of n characters never takes more than n/2 octets."""
    return len(varbind[0]) // 2 + _HEADERS + _value_octets(varbind[1])


def _value_octets(value: Value) -> int:
    return len(value) if isinstance(value, bytes | str) else _NUMBER_OCTETS
