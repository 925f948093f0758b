"""The three protocols' messages → one form: who, when, which number, and where the sets lie.

IPFIX      header (16 octets: version 10, length, export time, sequence number, observation domain)
           set* (set id, length, body: templates (2), options templates (3), data (256 and up))
NetFlow 9  see :mod:`collectors.flows.netflow`; set ids 0 and 1 for templates
NetFlow 5  the same; its records are one data set of a template known beforehand
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from struct import Struct

from collectors.flows.netflow import (
    HEADER_V5,
    HEADER_V9,
    V5_TEMPLATE,
    V9_OPTIONS_TEMPLATES,
    V9_TEMPLATES,
    read_v9_options_templates,
    read_v9_templates,
)
from collectors.flows.template import Body, Template, read_templates
from twin.errors import DecodeError

HEADER = Struct(">HHIII")
_SET = Struct(">HH")
_IPFIX_TEMPLATES, _IPFIX_OPTIONS_TEMPLATES = 2, 3
IPFIX, V9, V5 = 10, 9, 5


Sets = Iterator[tuple[int, int, int]]  # set id, start and end of the body; DecodeError where one cannot be


# One datagram, or one message of a TCP stream: version; when it was sent; the exporter's uptime then in
# milliseconds (−1: not told); sequence number; observation domain, source id or engine; the sets; packets
# represented by one packet seen, where the header tells it (else 0). A plain tuple: one for every datagram.
Message = tuple[int, int, int, int, int, Sets, float]


ReadTemplates = Callable[[Body], Iterator[Template]]


@dataclass(frozen=True)
class Protocol:
    """One row of the table below."""

    name: str
    read: Callable[[Body], Message]
    template_sets: dict[int, ReadTemplates] = field(default_factory=dict)
    templates: tuple[Template, ...] = ()  # known beforehand
    counts_messages: bool = False  # what the sequence number counts


def read_message(datagram: Body) -> Message:
    """Whatever protocol it is; DecodeError when it is none, or does not fit."""
    if len(datagram) < 2:
        raise DecodeError(f"{len(datagram)} octets are no flow export: the version alone has 2")
    version = datagram[0] << 8 | datagram[1]
    protocol = PROTOCOLS.get(version)
    if protocol is None:
        raise DecodeError(
            f"version {version} is neither IPFIX (10) nor NetFlow 9 or 5: set the exporter to one of them"
        )
    return protocol.read(datagram)


def _read_ipfix(datagram: Body) -> Message:
    if len(datagram) < HEADER.size:
        raise DecodeError(f"{len(datagram)} octets are no IPFIX message: its header alone has {HEADER.size}")
    _, length, sent_s, number, domain = HEADER.unpack_from(datagram)
    if length != len(datagram):
        raise DecodeError(f"the message says {length} octets, the datagram has {len(datagram)}")
    return IPFIX, sent_s, -1, number, domain, _split(datagram, HEADER.size, length), 0.0


def _read_v9(datagram: Body) -> Message:
    if len(datagram) < HEADER_V9.size:
        raise DecodeError(f"{len(datagram)} octets are no NetFlow 9: its header alone has {HEADER_V9.size}")
    _, _, uptime_ms, sent_s, number, source_id = HEADER_V9.unpack_from(datagram)
    sets = _split(datagram, HEADER_V9.size, len(datagram), padded=True)
    return V9, sent_s, uptime_ms, number, source_id, sets, 0.0


def _read_v5(datagram: Body) -> Message:
    if len(datagram) < HEADER_V5.size:
        raise DecodeError(f"{len(datagram)} octets are no NetFlow 5: its header alone has {HEADER_V5.size}")
    header = HEADER_V5.unpack_from(datagram)
    _, count, uptime_ms, sent_s, sent_ns, number, engine_type, engine, sampling = header
    length = HEADER_V5.size + count * V5_TEMPLATE.shortest
    if length != len(datagram):
        raise DecodeError(f"{count} NetFlow 5 records make {length} octets, the datagram has {len(datagram)}")
    return (
        V5,
        sent_s,
        uptime_ms - sent_ns // 1_000_000,  # flow times count from when the exporter started
        number,
        engine_type << 8 | engine,
        iter([(V5_TEMPLATE.id, HEADER_V5.size, length)] if count else []),
        float(sampling & 0x3FFF),
    )


def _split(datagram: Body, at: int, end: int, *, padded: bool = False) -> Sets:
    """The sets of a message, one by one; zeros behind the last are padding, where the length is not told."""
    while at < end:
        if end - at < _SET.size:
            if padded and not any(datagram[at:end]):
                return
            raise DecodeError("the message ends inside a set header")
        set_id, length = _SET.unpack_from(datagram, at)
        if length < _SET.size or at + length > end:
            if padded and not any(datagram[at:end]):
                return
            raise DecodeError(f"set {set_id} says {length} octets, {end - at} are left")
        yield set_id, at + _SET.size, at + length
        at += length


PROTOCOLS: dict[int, Protocol] = {
    IPFIX: Protocol(
        "IPFIX",
        _read_ipfix,
        {
            _IPFIX_TEMPLATES: partial(read_templates, _IPFIX_TEMPLATES, options=False),
            _IPFIX_OPTIONS_TEMPLATES: partial(read_templates, _IPFIX_OPTIONS_TEMPLATES, options=True),
        },
    ),
    V9: Protocol(
        "NetFlow 9",
        _read_v9,
        {V9_TEMPLATES: read_v9_templates, V9_OPTIONS_TEMPLATES: read_v9_options_templates},
        counts_messages=True,
    ),
    V5: Protocol("NetFlow 5", _read_v5, templates=(V5_TEMPLATE,)),
}
