"""Many datagrams at once: what a busy socket gives is looked at by columns, not one by one.

Nearly all of an exporter's datagrams are alike: one data set behind the header, of a template that is known,
continuing the number before. Headers of a burst are read as one array; a stream whose datagrams in it are all
of that kind, in order, is taken as a block. Any other stream's datagrams go through
:meth:`collectors.flows.decoder.FlowSession.feed`, one by one, in order. Both ways lead to the same records,
and a test holds them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collectors.flows.batch import Integers
from collectors.flows.decoder import Exporter, FlowSession, Stream
from collectors.flows.message import IPFIX, V9
from collectors.flows.template import Template
from twin.errors import DecodeError

Slots = NDArray[np.uint8]  # [datagram, octet]
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


def feed_burst(
    session: FlowSession, slots: Slots, sizes: Sequence[int], exporters: Sequence[Exporter]
) -> list[Fault]:
    """Take in datagrams, the k-th ``slots[k, :sizes[k]]``; what could not be decoded."""
    if len(sizes) < _WORTH:
        return _feed_each(session, slots, sizes, range(len(sizes)), exporters)
    heads = {version: _heads(slots[: len(sizes)], head) for version, head in _HEADS.items()}
    octets, faults = np.array(sizes), list[Fault]()
    for (exporter, version, domain), rows in _by_stream(heads, exporters).items():
        stream = session.find(exporter, version, domain)
        if stream is None or version not in heads or len(rows) < _WORTH:
            faults += _feed_each(session, slots, sizes, rows, exporters)
            continue
        where = np.array(rows)
        block = _Block(version, heads[version][where], where, octets[where])
        if not _feed_block(session, stream, slots, block):
            faults += _feed_each(session, slots, sizes, rows, exporters)
    return faults


def _feed_each(
    session: FlowSession,
    slots: Slots,
    sizes: Sequence[int],
    rows: Sequence[int],
    exporters: Sequence[Exporter],
) -> list[Fault]:
    faults: list[Fault] = []
    for row in rows:
        try:
            session.feed(slots[row, : sizes[row]].data, exporters[row])
        except DecodeError as error:
            faults.append((row, error))
    return faults


def _by_stream(
    heads: dict[int, NDArray[np.void]], exporters: Sequence[Exporter]
) -> dict[tuple[Exporter, int, int], list[int]]:
    """Datagrams by exporter, version and domain, in order; what is too short for these is found out later."""
    versions = heads[IPFIX]["version"]
    domains = np.where(versions == V9, heads[V9]["domain"], heads[IPFIX]["domain"])
    found: dict[tuple[Exporter, int, int], list[int]] = {}
    for row, key in enumerate(zip(exporters, versions.tolist(), domains.tolist(), strict=True)):
        found.setdefault(key, []).append(row)
    return found


def _heads(slots: Slots, head: np.dtype[np.void]) -> NDArray[np.void]:
    return np.ascontiguousarray(slots[:, : head.itemsize]).view(head).ravel()


@dataclass(frozen=True)
class _Block:
    """Datagrams of one stream, in order."""

    version: int
    heads: NDArray[np.void]
    rows: Integers  # which slots
    sizes: Integers


def _feed_block(session: FlowSession, stream: Stream, slots: Slots, block: _Block) -> bool:
    """Take in one stream's datagrams if all are as nearly all are; else nothing is done."""
    heads, rows, start = block.heads, block.rows, _HEADS[block.version].itemsize
    octets = heads["set_length"].astype(np.int64) - _NO_SET
    alike = octets == block.sizes - start
    if block.version == IPFIX:
        alike &= heads["length"] == block.sizes
    if not alike.all() or (of := _templates(stream, heads["set_id"])) is None:
        return False
    counts = np.zeros(len(rows), dtype=np.int64)
    for template, mine in of.items():
        counts[mine] = octets[mine] // template.shortest
    if not counts.all() or not stream.sequence.take_run(heads["number"].astype(np.int64), counts):
        return False
    uptime_ms = heads["uptime_ms"] if block.version == V9 else np.full(len(rows), -1)
    for template, mine in of.items():
        for count in set(counts[mine].tolist()):
            chosen = np.flatnonzero(mine & (counts == count))
            records = slots[rows[chosen], start : start + count * template.shortest]
            session.gather(
                stream,
                template,
                records.ravel().data,
                [count] * len(chosen),
                heads["sent_s"][chosen].tolist(),
                uptime_ms[chosen].tolist(),
            )
    session.counters.messages += len(rows)
    stream.used = session.counters.messages
    return True


def _templates(stream: Stream, set_ids: NDArray[np.uint16]) -> dict[Template, NDArray[np.bool_]] | None:
    """The template of every set, all of a fixed length; None where that is not so."""
    found: dict[Template, NDArray[np.bool_]] = {}
    for id in set(set_ids.tolist()):
        template = stream.templates.get(id)
        if template is None or template.variable:
            return None
        found[template] = set_ids == id
    return found
