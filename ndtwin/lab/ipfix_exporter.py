"""The exporters of all devices: every second's flows, as IPFIX from each device's own address.

One record a second and flow: an active time-out of one second, told by flowEndReason 2. What each record
says is in :mod:`ndtwin.lab.ipfix_encoder`. Hidden flows are never looked at. Templates go out at the start
and every 10 s (RFC 7011 section 8.4: over UDP they must be sent again). A silent device sends nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ndtwin.lab import ipfix_encoder as ipfix
from ndtwin.lab.addressing import Addressing
from ndtwin.lab.flows import FlowPlan
from ndtwin.lab.second import Second
from ndtwin.lab.world import World
from twin.network import Floats, Ints, Network, canonical_ends

TEMPLATE_INTERVAL_S = 10
ACTIVE_TIMEOUT = 2  # flowEndReason
UDP = 17
TRAFFIC_PORTS, PROBE_PORTS = (40000, 443), (50000, 50000)
SPREAD_S = 0.25  # the devices' bursts are spread over this part of a second


@dataclass(frozen=True)
class Hops:
    """Interface indices at both ends of every path under one routing, [P]; 0 where there is no route."""

    out: Ints  # at the source
    into: Ints  # at the destination


def hops_of(world: World, routed: Network) -> Hops:
    """First and last interface of every path."""
    out = np.array([interface.index for interface in world.source_interfaces], dtype=np.int64)
    into = out[
        np.array(world.back, dtype=np.int64)
    ]  # the interface at the target of a link is that of the way back
    paths = routed.paths
    reachable = paths.lengths > 0
    first, last = np.zeros(len(reachable), dtype=np.int64), np.zeros(len(reachable), dtype=np.int64)
    first[reachable] = out[paths.links[paths.offsets[:-1][reachable]]]
    last[reachable] = into[paths.links[paths.offsets[1:][reachable] - 1]]
    return Hops(first, last)


class RecordMaker:
    """A second of the simulator → the records of all devices. No sockets."""

    def __init__(self, world: World, plan: FlowPlan, addressing: Addressing, sampling_ratio: int = 1) -> None:
        self._world, self._plan, self._ratio = world, plan, sampling_ratio
        self._source, self._destination = canonical_ends(len(world.devices))
        self._customer_if = np.array(
            [device.interface("cust0").index for device in world.devices], dtype=np.int64
        )
        self._traffic_key = self._traffic_addresses(addressing)
        self._probe_key = self._probe_addresses()
        self._routed: Network | None = None
        self._hops = Hops(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        self._seen_packets = np.zeros(3 * plan.paths, dtype=np.int64)  # cumulative, for systematic sampling

    def _traffic_addresses(self, addressing: Addressing) -> ipfix.Records:
        key = np.zeros(self._plan.paths, ipfix.INGRESS_RECORD)
        hosts = np.array(
            [int(addressing.customers(d.index).network_address) + 10 for d in self._world.devices]
        )
        key["source"], key["destination"] = hosts[self._source], hosts[self._destination]
        key["source_prefix"] = key["destination_prefix"] = addressing.customer_prefix_length
        key["source_port"], key["destination_port"] = TRAFFIC_PORTS
        key["protocol"], key["end_reason"] = UDP, ACTIVE_TIMEOUT
        key["ingress_interface"] = self._customer_if[self._source]
        return key

    def _probe_addresses(self) -> ipfix.Records:
        key = np.zeros(self._plan.paths, ipfix.INGRESS_RECORD)
        routers = np.array([int(device.router_id) for device in self._world.devices])
        key["source"], key["destination"] = routers[self._source], routers[self._destination]
        key["source_prefix"] = key["destination_prefix"] = 32
        key["source_port"], key["destination_port"] = PROBE_PORTS
        key["protocol"], key["end_reason"] = UDP, ACTIVE_TIMEOUT
        return key

    def records(self, second: Second) -> list[tuple[ipfix.Records, ipfix.Records]]:
        """(ingress records, on-path delay records) of every device, in the order of the network's nodes."""
        if second.routed is not self._routed:
            self._routed, self._hops = second.routed, hops_of(self._world, second.routed)
        sampled = self._sample(second.sent_packets)
        kinds = ((self._traffic_key, self._plan.traffic_slice()), (self._probe_key, self._plan.probe_slice()))
        ingress = [self._ingress(second, sampled, key, part) for key, part in kinds]
        delays = self._delays(second)
        return [
            (
                np.concatenate([_seen(records[self._source == node]) for records in ingress]),
                _seen(delays[self._destination == node]),
            )
            for node in range(len(self._world.devices))
        ]

    def _sample(self, packets: Ints) -> Ints:
        """Every n-th packet of every flow: how many of these were taken (RFC 5475 section 5.1)."""
        before = self._seen_packets // self._ratio
        self._seen_packets = self._seen_packets + packets
        return self._seen_packets // self._ratio - before

    def _ingress(self, second: Second, sampled: Ints, key: ipfix.Records, part: slice) -> ipfix.Records:
        records = key.copy()
        packets, octets, taken = second.sent_packets[part], second.sent_octets[part], sampled[part]
        records["packets"] = taken
        records["octets"] = np.rint(octets * (taken / np.maximum(packets, 1))).astype(np.int64)
        records["direction"] = ipfix.INGRESS
        records["egress_interface"] = self._hops.out
        return _timed(records, second)

    def _delays(self, second: Second) -> ipfix.Records:
        part, delays = self._plan.traffic_slice(), second.delays
        records = np.zeros(self._plan.paths, ipfix.DELAY_RECORD)
        for name in ipfix.KEY_NAMES:
            records[name] = self._traffic_key[name]
        records["direction"] = ipfix.EGRESS
        records["ingress_interface"] = self._hops.into
        records["egress_interface"] = self._customer_if[self._destination]
        records["packets"] = delays.count[part] // self._ratio
        for name, values in (("mean", delays.mean_s), ("min", delays.min_s), ("max", delays.max_s)):
            records[f"delay_{name}_us"] = _microseconds(values[part])
        records["delay_sum_us"] = _microseconds(delays.mean_s[part] * records["packets"])
        return _timed(records, second)


def _microseconds(values_s: Floats) -> Ints:
    return np.rint(values_s * 1e6).astype(np.int64)


def _timed(records: ipfix.Records, second: Second) -> ipfix.Records:
    records["start_ms"], records["end_ms"] = second.start_ns // 1_000_000, second.end_ns // 1_000_000
    return records


def _seen(records: ipfix.Records) -> ipfix.Records:
    """A flow without packets has no record."""
    return records[records["packets"] > 0]


class Exporters:
    """One socket and one sequence of messages for every device."""

    def __init__(self, world: World, maker: RecordMaker, addressing: Addressing, sampling_ratio: int) -> None:
        self._world, self._maker = world, maker
        self._encoders = [ipfix.Encoder(device.index, sampling_ratio) for device in world.devices]
        self._sockets = [_socket(addressing.management(device.index)) for device in world.devices]
        self._templates_sent_s = [-TEMPLATE_INTERVAL_S] * len(world.devices)
        self.dropped_messages = 0

    async def export(self, second: Second, collector: tuple[str, int]) -> None:
        """Send one second of all devices, a little apart: no receive buffer has to hold them all."""
        pause_s = SPREAD_S / len(self._sockets)
        for node, (ingress, delays) in enumerate(self._maker.records(second)):
            if not self._world.devices[node].silent:
                for message in self._messages(node, second.end_ns // 1_000_000_000, ingress, delays):
                    self._send(node, message, collector)
            await asyncio.sleep(pause_s)

    def _messages(
        self, node: int, now_s: int, ingress: ipfix.Records, delays: ipfix.Records
    ) -> Iterator[bytes]:
        encoder = self._encoders[node]
        if now_s - self._templates_sent_s[node] >= TEMPLATE_INTERVAL_S:
            self._templates_sent_s[node] = now_s
            yield encoder.templates(now_s)
        yield from encoder.records(now_s, ipfix.INGRESS_TEMPLATE, ingress)
        yield from encoder.records(now_s, ipfix.DELAY_TEMPLATE, delays)

    def _send(self, node: int, message: bytes, collector: tuple[str, int]) -> None:
        """UDP may lose: a full send buffer costs the message, the sequence number tells the collector."""
        try:
            self._sockets[node].sendto(message, collector)
        except BlockingIOError:
            self.dropped_messages += 1

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets:
            sock.close()


def _socket(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((address, 0))
    return sock
