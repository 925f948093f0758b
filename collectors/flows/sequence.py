"""Sequence numbers: what was lost on the way, by the rule of each protocol.

    protocol    the number counts          so a message advances it by
    IPFIX       data records, options too  the records in it; templates do not count (RFC 7011 section 3.1)
    NetFlow 9   messages of the source id  1 (RFC 3954 section 5.1)
    NetFlow 5   flow records               the records in it

- A gap is a loss; a late message gives back what it carries; a duplicate changes nothing; two messages in a
  row that continue each other behind the expected number are a restart.
- softflowd writes the number *after* the message's own records, and does not count those of options: what
  continues the number before by its own count, with or without options, is in order too.
- After a message whose records could not be counted the next one sets the number anew.
- Losses are told in records. NetFlow 9 counts messages: each lost one stands for as many records as this
  stream's messages had on average, and is given back at what it was counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from collectors.flows.batch import Integers

_MODULUS, _HALF = 2**32, 2**31
_JUMP = 1_000_000  # a larger gap is a restart with a random number, not a loss


@dataclass(slots=True)
class Sequence:
    """The sequence numbers of one stream."""

    counts_messages: bool = False  # NetFlow 9
    expected: int = -1  # the number that comes next; −1: take the next as it is
    before: int = -1  # the number of the newest message
    last_end: int = -1  # where the newest message ended
    missing: int = 0  # units lost and not yet turned up
    missing_records: int = 0  # the same in records
    messages: int = 0
    records: int = 0

    def take(self, number: int, records: int, options: int = 0) -> int:
        """Note a message in order or not; records newly lost, negative where some turned up.

        ``options``: how many of the records are options'.
        """
        advance = 1 if self.counts_messages else records
        self.messages += 1
        self.records += records
        in_order = number == self.expected or self.expected < 0
        if not in_order and not self._counted_after(number, advance, options):
            return self._out_of_order(number, advance)
        self._go_on(number, advance)
        return 0

    def take_many(self, numbers: Integers, records: Integers, options: Integers) -> int:
        """The same for messages that came one after the other: what continues the one before it is summed."""
        advance = np.ones_like(records) if self.counts_messages else records
        breaks = np.flatnonzero((numbers[:-1] + advance[:-1]) % _MODULUS != numbers[1:]) + 1
        lost = 0
        for at, end in pairwise([0, *breaks.tolist(), len(numbers)]):
            start = at
            while start < end and self.expected not in (-1, int(numbers[start])):
                lost += self.take(int(numbers[start]), int(records[start]), int(options[start]))
                start += 1
            if start < end:
                self.messages += end - start
                self.records += int(records[start:end].sum())
                self._go_on(int(numbers[end - 1]), int(advance[end - 1]))
        return lost

    def unsure(self) -> None:
        """A message could not be counted."""
        self.expected = self.before = self.last_end = -1

    def _counted_after(self, number: int, advance: int, options: int) -> bool:
        step = (number - self.before) % _MODULUS
        without = advance if self.counts_messages else advance - options
        return self.before >= 0 and step > 0 and step in (advance, without)

    def _out_of_order(self, number: int, advance: int) -> int:
        gap = (number - self.expected + _HALF) % _MODULUS - _HALF
        continues_a_restart = self.missing == 0 and number == self.last_end
        if -_JUMP <= gap < 0 and not continues_a_restart:
            self.last_end = (number + advance) % _MODULUS
            return -self._found(advance)
        self._go_on(number, advance)
        return self._lost(gap) if 0 < gap <= _JUMP else 0

    def _go_on(self, number: int, advance: int) -> None:
        self.before = number
        self.expected = self.last_end = (number + advance) % _MODULUS

    def _lost(self, units: int) -> int:
        in_records = units
        if self.counts_messages:
            in_records = max(round(units * self.records / self.messages), units)
        self.missing += units
        self.missing_records += in_records
        return in_records

    def _found(self, units: int) -> int:
        found = min(units, self.missing)
        records = self.missing_records * found // self.missing if self.missing else 0
        self.missing -= found
        self.missing_records -= records
        return records
