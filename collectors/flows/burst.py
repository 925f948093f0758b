"""Many datagrams at once: what a busy socket gives is looked at by columns, not one by one.

Nearly all of an exporter's datagrams are alike: one data set behind the header, of a template that is known.
Headers of a burst are read as one array. A stream's datagrams that follow one another and are all of that
kind are taken as a block, sequence numbers included; what lies between them (templates, several sets, what
is broken) goes through :meth:`collectors.flows.decoder.FlowSession.feed`, one by one, each in its turn. Both
ways lead to the same records, losses and faults, and a test holds them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from collectors.flows.batch import Integers
from collectors.flows.columns import Groups
from collectors.flows.decoder import Exporter, FlowSession, Stream
from collectors.flows.message import IPFIX, V9
from collectors.flows.table import bounds
from collectors.flows.template import FIRST_ID, Template
from twin.errors import DecodeError

Slots = NDArray[np.uint8]  # [datagram, octet]
Heads = NDArray[np.void]
Flags = NDArray[np.bool_]
Fault = tuple[int, DecodeError]  # which datagram, and what is wrong with it
_WORTH = 8  # fewer datagrams are quicker one by one

# The header and that of the first set.
_IPFIX_HEAD = np.dtype([
    ("version", ">u2"), ("length", ">u2"), ("sent_s", ">u4"), ("number", ">u4"), ("domain", ">u4"),
    ("set_id", ">u2"), ("set_length", ">u2"),
])  # fmt: skip
_V9_HEAD = np.dtype([
    ("version", ">u2"), ("count", ">u2"), ("uptime_ms", ">u4"), ("sent_s", ">u4"), ("number", ">u4"),
    ("domain", ">u4"), ("set_id", ">u2"), ("set_length", ">u2"),
])  # fmt: skip
_HEADS = {IPFIX: _IPFIX_HEAD, V9: _V9_HEAD}
_NO_SET = 4  # octets of a set's header


@dataclass(frozen=True)
class Burst:
    """Datagrams: the k-th is ``slots[k, :sizes[k]]``, from ``exporters[senders[k]]``.

    What a slot has no room for goes on in ``rest[k]``.
    """

    slots: Slots
    sizes: Integers
    senders: Integers
    exporters: list[Exporter]
    rest: Slots | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    def datagram(self, k: int) -> memoryview:
        """One of them, where it lies; a copy if that is in two places."""
        beyond = int(self.sizes[k]) - self.slots.shape[1]
        if beyond <= 0 or self.rest is None:
            return self.slots[k, : self.sizes[k]].data
        return memoryview(self.slots[k].tobytes() + self.rest[k, :beyond].tobytes())

    def sender(self, k: int) -> Exporter:
        """Who sent it."""
        return self.exporters[int(self.senders[k])]


def feed_burst(session: FlowSession, burst: Burst, rows: Integers | None = None) -> list[Fault]:
    """Take in datagrams, all or some of them; what could not be decoded."""
    rows = np.arange(len(burst)) if rows is None else rows
    if len(rows) < _WORTH:
        return list(_feed_each(session, burst, rows))
    heads = {version: _heads(burst.slots, head) for version, head in _HEADS.items()}
    faults: list[Fault] = []
    for mine in _by_stream(burst, heads, rows):
        faults += _feed_stream(session, burst, heads, mine)
    return faults


def _feed_each(session: FlowSession, burst: Burst, rows: Integers) -> Iterator[Fault]:
    for row in rows.tolist():
        try:
            session.feed(burst.datagram(row), burst.sender(row))
        except DecodeError as error:
            yield row, error


def _heads(slots: Slots, head: np.dtype[np.void]) -> Heads:
    return np.ascontiguousarray(slots[:, : head.itemsize]).view(head).ravel()


def _by_stream(burst: Burst, heads: dict[int, Heads], rows: Integers) -> Iterator[Integers]:
    """Datagrams by exporter, version and domain, in order; what is too short for these is found out later."""
    versions = heads[IPFIX]["version"][rows].astype(np.int64)
    domains = np.where(versions == V9, heads[V9]["domain"][rows], heads[IPFIX]["domain"][rows])
    groups = Groups([burst.senders[rows], versions, domains.astype(np.int64)], len(rows))
    ordered = rows[np.argsort(groups.of, kind="stable")]
    for start, end in pairwise([0, *np.cumsum(np.bincount(groups.of)).tolist()]):
        yield ordered[start:end]


def _feed_stream(
    session: FlowSession, burst: Burst, heads: dict[int, Heads], rows: Integers
) -> Iterator[Fault]:
    """One stream's datagrams in their order: in blocks where they are alike."""
    first = int(rows[0])
    version = int(heads[IPFIX]["version"][first])
    if version not in heads or len(rows) < _WORTH:
        yield from _feed_each(session, burst, rows)
        return
    block = _Block(version, heads[version][rows], rows, burst.sizes[rows])
    key = burst.sender(first), version, int(block.heads["domain"][0])
    for usual, like in _parts(block, block.usual() & (block.sizes <= burst.slots.shape[1])):
        stream = session.find(*key) if usual else None
        known = np.zeros(len(like.rows), bool) if stream is None else _readable(stream, like)
        for readable, part in _parts(like, known):
            worth = readable and len(part.rows) >= _WORTH
            if not (worth and stream is not None and _feed_block(session, stream, burst.slots, part)):
                yield from _feed_each(session, burst, part.rows)


def _parts(block: _Block, of: Flags) -> Iterator[tuple[bool, _Block]]:
    """The block in parts, each of one kind."""
    places = bounds(of).tolist()
    for start, end in pairwise(places):
        yield bool(of[start]), block if len(places) == 2 else block.part(slice(start, end))


@dataclass(frozen=True)
class _Block:
    """Datagrams of one stream, in order."""

    version: int
    heads: Heads
    rows: Integers  # which slots
    sizes: Integers

    def part(self, some: slice | Flags) -> _Block:
        return _Block(self.version, self.heads[some], self.rows[some], self.sizes[some])

    @property
    def start(self) -> int:
        """Where records begin."""
        return _HEADS[self.version].itemsize

    @property
    def octets(self) -> Integers:
        """What lies behind the headers."""
        return self.sizes - self.start

    def usual(self) -> Flags:
        """Which of them have one data set, and nothing else."""
        heads = self.heads
        alike: Flags = (heads["set_id"] >= FIRST_ID) & (self.octets > 0)
        alike &= heads["set_length"] == self.octets + _NO_SET
        return alike & (heads["length"] == self.sizes) if self.version == IPFIX else alike


def _readable(stream: Stream, block: _Block) -> Flags:
    """Which of the sets have a template that is known, of a fixed length."""
    readable: Flags = np.zeros(len(block.rows), bool)
    for id in set(block.heads["set_id"].tolist()):
        template = stream.templates.get(id)
        readable |= (block.heads["set_id"] == id) & (template is not None and not template.variable)
    return readable


def _feed_block(session: FlowSession, stream: Stream, slots: Slots, block: _Block) -> bool:
    """Take in datagrams of one readable set each, if each has a record at least; else nothing is done."""
    of = {stream.templates[id]: block.heads["set_id"] == id for id in set(block.heads["set_id"].tolist())}
    counts, options = np.zeros(len(block.rows), np.int64), np.zeros(len(block.rows), np.int64)
    for template, mine in of.items():
        counts[mine] = block.octets[mine] // template.shortest
        if template.scope_count:
            options[mine] = counts[mine]
    if not counts.all():
        return False
    lost = stream.sequence.take_many(block.heads["number"].astype(np.int64), counts, options)
    if lost:
        session.lost_records[stream.address] += lost
    for template, mine in of.items():
        for count in set(counts[mine].tolist()):
            chosen = mine & (counts == count)
            part = block if chosen.all() else block.part(chosen)
            _gather(session, stream, template, slots, part, count)
    session.counters.messages += len(block.rows)
    stream.used = session.counters.messages
    return True


def _gather(
    session: FlowSession, stream: Stream, template: Template, slots: Slots, block: _Block, count: int
) -> None:
    """So many records of each of the datagrams."""
    sent_s = block.heads["sent_s"]
    uptime_ms = block.heads["uptime_ms"] if block.version == V9 else np.full(len(sent_s), -1)
    places = bounds(sent_s, uptime_ms)
    records = slots[block.rows, block.start : block.start + count * template.shortest]
    session.gather(
        stream,
        template,
        records.ravel().data,
        (np.diff(places) * count).tolist(),
        sent_s[places[:-1]].tolist(),
        uptime_ms[places[:-1]].tolist(),
    )
