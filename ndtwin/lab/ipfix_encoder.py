"""An IPFIX exporter's encoder (RFC 7011), without sockets: numpy records in, messages out.

Templates of every exporter (observation domain = device index):

- 256 **ingress**: what entered the network at this router in one second. flowDirection 0. Only these
  records count traffic: octetDeltaCount and packetDeltaCount. Customer flows enter by ``cust0``; probes
  the router sends itself have ingressInterface 0 and its own router id as source (prefix lengths 32).
- 257 **on-path delay**, from the *egress* router, flowDirection 1: the one-way delay of the flow's packets
  that left the network here in that second (RFC 9951: elements 530 to 533, microseconds). Its
  packetDeltaCount is the number of packets measured, and there is no octetDeltaCount: whoever builds a
  traffic matrix takes flowDirection 0 alone, or the traffic counts twice. Source and destination are the
  flow's own: the path is source → destination.
- 258 **options**, scope selectorId: the sampler (RFC 5477): algorithm 1 (systematic count-based), interval
  packets taken, space packets left out; ratio = (interval + space) / interval. Counts in 256 and 257 are
  of sampled packets.

Flows follow from the addresses' prefixes; every record says its prefix lengths. Times are
flowStart/EndMilliseconds. The sequence number counts data records, options data among them, templates not
(RFC 7011 section 3.1). A message stays under the MTU. Integers are big-endian and fixed in length; a
record layout is a numpy dtype, so a template and the bytes behind it cannot differ: both come from the one
table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VERSION = 10
HEADER = struct.Struct("!HHIII")  # version, length, export time, sequence number, observation domain
SET_HEADER = struct.Struct("!HH")  # set id, length
TEMPLATE_SET, OPTIONS_TEMPLATE_SET = 2, 3
INGRESS_TEMPLATE, DELAY_TEMPLATE, SAMPLING_TEMPLATE = 256, 257, 258
MAX_MESSAGE_OCTETS = 1400  # under an Ethernet MTU with room for tunnels (RFC 7011 section 10.3.3)
INGRESS, EGRESS = 0, 1  # flowDirection
SYSTEMATIC_COUNT = 1  # selectorAlgorithm (IANA psamp-parameters)
SELECTOR = 1

Layout = tuple[tuple[str, int, str], ...]  # name, information element, numpy type

_KEY: Layout = (
    ("source", 8, ">u4"),  # sourceIPv4Address
    ("destination", 12, ">u4"),  # destinationIPv4Address
    ("source_prefix", 9, "u1"),  # sourceIPv4PrefixLength
    ("destination_prefix", 13, "u1"),  # destinationIPv4PrefixLength
    ("protocol", 4, "u1"),  # protocolIdentifier
    ("tos", 5, "u1"),  # ipClassOfService
    ("source_port", 7, ">u2"),  # sourceTransportPort
    ("destination_port", 11, ">u2"),  # destinationTransportPort
    ("ingress_interface", 10, ">u4"),  # ingressInterface
    ("egress_interface", 14, ">u4"),  # egressInterface
    ("direction", 61, "u1"),  # flowDirection
)
KEY_NAMES = tuple(name for name, _, _ in _KEY)
_TIMES: Layout = (
    ("packets", 2, ">u8"),  # packetDeltaCount
    ("start_ms", 152, ">u8"),  # flowStartMilliseconds
    ("end_ms", 153, ">u8"),  # flowEndMilliseconds
)
INGRESS_LAYOUT: Layout = (*_KEY, ("octets", 1, ">u8"), *_TIMES, ("end_reason", 136, "u1"))
DELAY_LAYOUT: Layout = (
    *_KEY,
    *_TIMES,
    ("delay_mean_us", 530, ">u4"),  # pathDelayMeanDeltaMicroseconds
    ("delay_min_us", 531, ">u4"),  # pathDelayMinDeltaMicroseconds
    ("delay_max_us", 532, ">u4"),  # pathDelayMaxDeltaMicroseconds
    ("delay_sum_us", 533, ">u8"),  # pathDelaySumDeltaMicroseconds
)
SAMPLING_LAYOUT: Layout = (
    ("selector", 302, ">u8"),  # selectorId: the scope
    ("algorithm", 304, ">u2"),  # selectorAlgorithm
    ("interval", 305, ">u4"),  # samplingPacketInterval
    ("space", 306, ">u4"),  # samplingPacketSpace
)


def dtype_of(layout: Layout) -> np.dtype[np.void]:
    """The packed record type of a layout."""
    return np.dtype([(name, kind) for name, _, kind in layout])


INGRESS_RECORD = dtype_of(INGRESS_LAYOUT)
DELAY_RECORD = dtype_of(DELAY_LAYOUT)
SAMPLING_RECORD = dtype_of(SAMPLING_LAYOUT)
RECORD_OF = {INGRESS_TEMPLATE: INGRESS_RECORD, DELAY_TEMPLATE: DELAY_RECORD}
Records = NDArray[np.void]


def template_record(template: int, layout: Layout, *, scope_fields: int = 0) -> bytes:
    """A template record, or with scope fields an options template record (RFC 7011 sections 3.4.1, 3.4.2)."""
    fields = b"".join(struct.pack("!HH", element, np.dtype(kind).itemsize) for _, element, kind in layout)
    head = struct.pack("!HHH", template, len(layout), scope_fields) if scope_fields else b""
    return (head or struct.pack("!HH", template, len(layout))) + fields


def _set(set_id: int, body: bytes) -> bytes:
    return SET_HEADER.pack(set_id, SET_HEADER.size + len(body)) + body


_TEMPLATES = _set(
    TEMPLATE_SET,
    template_record(INGRESS_TEMPLATE, INGRESS_LAYOUT) + template_record(DELAY_TEMPLATE, DELAY_LAYOUT),
) + _set(OPTIONS_TEMPLATE_SET, template_record(SAMPLING_TEMPLATE, SAMPLING_LAYOUT, scope_fields=1))


@dataclass
class Encoder:
    """One transport session of one exporter: it holds the sequence number."""

    domain: int
    sampling_ratio: int = 1
    sequence: int = 0

    def templates(self, export_time_s: int) -> bytes:
        """The message that makes all others readable: templates, and the sampler's options record."""
        sampler = np.zeros(1, SAMPLING_RECORD)
        sampler["selector"], sampler["algorithm"] = SELECTOR, SYSTEMATIC_COUNT
        sampler["interval"], sampler["space"] = 1, self.sampling_ratio - 1
        body = _TEMPLATES + _set(SAMPLING_TEMPLATE, sampler.tobytes())
        return self._message(export_time_s, body, records=1)

    def records(self, export_time_s: int, template: int, records: Records) -> Iterator[bytes]:
        """Data messages, as many as the MTU asks for."""
        records = records.astype(RECORD_OF[template])  # numpy likes to change the byte order under way
        room = MAX_MESSAGE_OCTETS - HEADER.size - SET_HEADER.size
        step = room // records.dtype.itemsize
        for start in range(0, len(records), step):
            part = records[start : start + step]
            yield self._message(export_time_s, _set(template, part.tobytes()), records=len(part))

    def _message(self, export_time_s: int, body: bytes, *, records: int) -> bytes:
        header = HEADER.pack(VERSION, HEADER.size + len(body), export_time_s, self.sequence, self.domain)
        self.sequence = (self.sequence + records) % 2**32
        return header + body
