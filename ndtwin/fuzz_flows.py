"""The flow listener as a target of :mod:`ndtwin.fuzzing`: from bytes to reports, with a clock that moves."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from functools import partial
from itertools import count, cycle

import numpy as np

from collectors.flows.aggregate import FlowAggregator
from collectors.flows.burst import Burst
from collectors.flows.decoder import Exporter
from collectors.flows.foreign import read_foreign
from collectors.flows.framing import Framer
from collectors.flows.netflow import HEADER_V5, HEADER_V9, V5_TEMPLATE
from collectors.flows.settings import ForeignFormat
from collectors.listener import FlowListener
from collectors.receive import MAX_OCTETS, SLOT_OCTETS
from collectors.stats import CollectorStats
from ndtwin.fuzzing import Take, Target
from ndtwin.lab import ipfix_encoder as lab
from twin.errors import DecodeError
from twin.records import Record

_EXPORTER = "192.0.2.1"
_NOW_S = 1_800_000_000
_TICK_EVERY = 1_000  # messages: a second of the listener's clock
_PORTS = 8
_BURST, _BLOCK = 96, 9  # datagrams in a burst; every so many is a mutated one
_RECORDS = 12


def flow_targets() -> Sequence[Target]:
    """IPFIX over UDP and TCP, NetFlow 9 and 5, and what other collectors write to Kafka."""
    return (
        Target("ipfix", _ipfix_messages(), _udp_taker),
        Target("ipfix-bursts", _ipfix_messages(), _burst_taker),
        Target("ipfix-tcp", [b"".join(_ipfix_messages()), *_ipfix_messages()], _tcp_taker),
        Target("netflow9", _v9_messages(), _udp_taker),
        Target("netflow5", _v5_messages(), _udp_taker),
        Target("pmacct", _json_messages(_PMACCT), partial(_foreign_taker, "pmacct")),
        Target("goflow2", _json_messages(_GOFLOW2), partial(_foreign_taker, "goflow2")),
        Target("goflow2-protobuf", [_PROTOBUF, 3 * _PROTOBUF], partial(_foreign_taker, "goflow2-protobuf")),
    )


def _listener() -> tuple[FlowListener, CollectorStats, list[int]]:
    now_ns, stats, dropped = [_NOW_S * 1_000_000_000], CollectorStats(), _Dropped()
    listener = FlowListener(
        "fuzz", {_EXPORTER: "R"}, dropped.take, stats, bin_ns=5_000_000_000, clock=lambda: now_ns[0]
    )
    return listener, stats, now_ns


class _Dropped:
    """Where records go that nobody wants; each is looked at as the publisher would."""

    cells = 0

    def take(self, record: Record) -> None:
        self.cells += len(getattr(record, "cells", ()))


def _udp_taker() -> Take:
    listener, _, now_ns = _listener()
    numbers = count()

    def take(message: bytes) -> bool:
        number = next(numbers)
        if number % _TICK_EVERY == 0:
            now_ns[0] += 1_000_000_000
            listener.tick()
        return listener.receive(message, (_EXPORTER, 1 + number % _PORTS))

    return take


def _burst_taker() -> Take:
    """As they come from a socket: many at once, in slots that still hold what was there before.

    Between two mutated ones are good ones enough for a block.
    """
    listener, stats, now_ns = _listener()
    templates, _, data, _ = _ipfix_messages()
    slots, rest = np.zeros((_BURST, SLOT_OCTETS), np.uint8), np.zeros((_BURST, MAX_OCTETS), np.uint8)
    slots[:, : len(data)] = np.frombuffer(data, np.uint8)
    sizes, senders = np.full(_BURST, len(data)), np.arange(_BURST) % 2
    exporters: list[Exporter] = [(_EXPORTER, 1), (_EXPORTER, 2)]
    for exporter in exporters:
        listener.receive(templates, exporter)
    places, numbers = cycle(range(_BURST - 1, 0, -_BLOCK)), count(1)  # with the lowest a burst is whole

    def take(message: bytes) -> bool:
        k = next(places)
        octets, sizes[k] = np.frombuffer(message, np.uint8), len(message)
        slots[k, : min(len(octets), SLOT_OCTETS)] = octets[:SLOT_OCTETS]
        rest[k, : max(len(octets) - SLOT_OCTETS, 0)] = octets[SLOT_OCTETS:]
        if k >= _BLOCK:
            return True
        before = stats.undecoded_datagrams
        listener.take_in(Burst(slots, sizes, senders, exporters, rest))
        if next(numbers) % 16 == 0:
            now_ns[0] += 1_000_000_000
            listener.tick()
        return stats.undecoded_datagrams < before + _BURST // _BLOCK

    return take


def _tcp_taker() -> Take:
    """Every message is a connection, read in pieces."""
    listener, _, now_ns = _listener()
    numbers = count()

    def take(stream: bytes) -> bool:
        number = next(numbers)
        if number % _TICK_EVERY == 0:
            now_ns[0] += 1_000_000_000
            listener.tick()
        framer, middle = Framer(), number % max(len(stream), 1)
        try:
            parts = [message for data in (stream[:middle], stream[middle:]) for message in framer.feed(data)]
        except DecodeError:
            return False
        exporter = (_EXPORTER, 1 + number % _PORTS, "tcp")
        return all(listener.receive(message, exporter) for message in parts)

    return take


def _foreign_taker(format: ForeignFormat) -> Take:
    """Messages of a topic, summed as the collector sums them."""
    now_ns, numbers = [_NOW_S * 1_000_000_000], count()
    sums = FlowAggregator("fuzz", {_EXPORTER: "R"}, bin_ns=5_000_000_000)

    def take(message: bytes) -> bool:
        if next(numbers) % _TICK_EVERY == 0:
            now_ns[0] += 1_000_000_000
            sums.close(now_ns[0])
        try:
            batches = read_foreign(format, message)
        except DecodeError:
            return False
        for batch in batches:
            if batch.address == _EXPORTER:
                sums.add(batch, now_ns[0])
        return True

    return take


_PMACCT = {
    "event_type": "purge", "peer_ip_src": _EXPORTER, "iface_in": 3, "ip_dst": "10.2.14.9", "mask_dst": 16,
    "tos": 184, "sampling_rate": 10, "timestamp_start": f"{_NOW_S}.250000", "packets": 7, "bytes": 5181,
}  # fmt: skip
_GOFLOW2 = {
    "sampler_address": _EXPORTER, "dst_addr": "2001:db8::1", "dst_net": "2001:db8::/32", "ip_tos": 184,
    "in_if": 3, "bytes": 5181, "packets": 7, "time_flow_start_ns": _NOW_S * 1_000_000_000,
}  # fmt: skip


# Exporter, destination and its length, octets, packets, when it was received, sampling; behind the length.
_PROTOBUF = bytes.fromhex("215a04c00002013a040a020e0988011048bd285007f0068080d09de9ceb8fd18180a")


def _json_messages(flow: dict[str, object]) -> list[bytes]:
    one = json.dumps(flow).encode()
    return [one, one + b"\n" + one]


def _ipfix_messages() -> list[bytes]:
    encoder = lab.Encoder(1, sampling_ratio=10)
    records = np.zeros(_RECORDS, lab.INGRESS_RECORD)
    records["source"], records["destination"] = 0x0A010001, 0x0A020000 + np.arange(_RECORDS)
    records["destination_prefix"], records["octets"], records["packets"] = 24, 1500, 3
    records["start_ms"], records["end_ms"] = _NOW_S * 1000 - 900, _NOW_S * 1000
    delays = np.zeros(_RECORDS, lab.DELAY_RECORD)
    delays["source"], delays["packets"], delays["delay_sum_us"] = 0x0A010001 + np.arange(_RECORDS), 3, 9000
    delays["end_ms"] = _NOW_S * 1000
    variable = struct.pack(">HHHHHHHHHHI", 300, 4, 12, 4, 1, 8, 82, 65535, 0x8000 | 100, 65535, 9)
    told = struct.pack(">IQ", 0x0A020001, 700) + b"\x04eth0" + b"\xff\x00\x03abc"
    body = _set(2, variable) + _set(300, told * 3)
    by_hand = lab.HEADER.pack(10, lab.HEADER.size + len(body), _NOW_S, 7, 1) + body
    messages = [encoder.templates(_NOW_S), by_hand]
    messages += encoder.records(_NOW_S, lab.INGRESS_TEMPLATE, records)
    messages += encoder.records(_NOW_S, lab.DELAY_TEMPLATE, delays)
    return messages


def _v9_messages() -> list[bytes]:
    flow = struct.pack(">14H", 256, 6, 8, 4, 12, 4, 1, 4, 2, 4, 22, 4, 21, 4)
    six = struct.pack(">10H", 257, 4, 28, 16, 30, 1, 1, 4, 2, 4)
    options = struct.pack(">9H", 400, 4, 8, 2, 4, 34, 4, 35, 1)
    record = struct.pack(">IIIIII", 0x0A010001, 0x0A020001, 1500, 3, 1000, 2000)
    told = bytes(15) + b"\x01" + bytes([64]) + struct.pack(">II", 900, 2)
    sets = (
        (_set(0, flow + six), _set(1, options)),
        (_set(400, struct.pack(">IIB", 0, 100, 1)),),
        (_set(256, record * 20),),
        (_set(257, told * 10),),
    )
    heads = (HEADER_V9.pack(9, 1, 5000, _NOW_S, number, 1) for number in count())
    return [head + b"".join(some) for head, some in zip(heads, sets, strict=False)]


def _v5_messages() -> list[bytes]:
    record = bytes(range(V5_TEMPLATE.shortest))
    return [
        HEADER_V5.pack(5, records, 5000, _NOW_S, 0, 30 * records, 0, 1, 0x4000 | 10) + record * records
        for records in (1, 30)
    ]


def _set(id: int, body: bytes) -> bytes:
    return lab.SET_HEADER.pack(id, lab.SET_HEADER.size + len(body)) + body
