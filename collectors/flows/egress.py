"""Whose flow records are left out because they say that the traffic leaves.

A router that meters both ways of an interface exports every packet twice, once with flowDirection (IANA
element 61) 0, it enters, and once with 1, it leaves: counting only the first is right. Others say 1 of
traffic that nobody tells otherwise: softflowd calls a flow from the higher to the lower address one that
leaves, so half of what it saw would be missing. pmacct, nfdump and goflow2 store the direction and leave it
to the reader; a twin has to decide. What a router means cannot be seen from its records, so the inventory
may say it (``flow_direction``); where it does not, and a third or more is left out, that is told, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from collectors.flows.settings import FlowDirection

ENOUGH = 100  # records since the last look at a device
MUCH = 1 / 3


@dataclass
class EgressWatch:
    """Compares counts with those of the look before."""

    said: Mapping[str, FlowDirection]  # what the inventory says: then nobody needs to be told
    _before: dict[str, tuple[int, int]] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)  # left out, as of the last look
    _told: set[str] = field(default_factory=set)

    def look(self, now: Iterable[tuple[str, int, int]]) -> tuple[int, list[tuple[str, int, int]]]:
        """(newly left out, who is to be told: device, its records of late, those left out).

        ``now``: device, records that told a direction so far, records left out so far.
        """
        more, remarkable = 0, []
        for device, records, left_out in now:
            more += left_out - self._seen.get(device, 0)
            self._seen[device] = left_out
            before = self._before.get(device, (0, 0))
            of, out = records - before[0], left_out - before[1]
            if of < ENOUGH:
                continue
            self._before[device] = records, left_out
            if out >= MUCH * of and device not in self.said and device not in self._told:
                self._told.add(device)
                remarkable.append((device, of, out))
            elif out < MUCH * of / 2:
                self._told.discard(device)
        return more, remarkable
