"""Flow records that other collectors write to Kafka → the record batches that our decoders make.

Networks that run pmacct (nfacctd, sfacctd: one JSON object a message, or several in lines) or goflow2 (one
object a message, or with ``-format bin`` Protocol Buffers behind their length) keep them: their topics are
read as they are. What is needed of a flow, and where each writes it:

    what                     pmacct (aggregate: …)                      goflow2
    exporter                 peer_ip_src                                sampler_address
    destination, its length  ip_dst or net_dst, mask_dst                dst_addr, dst_net
    class                    tos                                        ip_tos
    ingress interface        iface_in                                   in_if
    counts                   bytes, packets                             bytes, packets
    sampling                 sampling_rate (where not renormalised)     sampling_rate
    start, end               timestamp_start, timestamp_end, else       time_flow_start_ns, time_flow_end_ns,
                             stamp_inserted, stamp_updated              else time_received_ns

Without peer_ip_src nobody knows where the traffic entered: such messages are refused, and so is what is no
JSON. pmacct's own markers (event_type other than "purge") are no flows and are passed over, and so is what is
no IP (ARP in sFlow, say): its destination is told, and empty.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from struct import Struct

import msgspec

from collectors.flows import elements as ie
from collectors.flows import protobuf
from collectors.flows.batch import RecordBatch
from collectors.flows.sampling import Samplers
from collectors.flows.settings import ForeignFormat
from collectors.flows.template import Field, Template
from twin.errors import DecodeError

_MOST = 2**63 - 1
_NOT_TOLD = frozenset("0-:. ")  # all there is in a time stamp that tells nothing
_TIMES_AND_COUNTS = "QQQQIIB"
_COMMON = (
    (ie.START_MS, 8), (ie.END_MS, 8), (ie.OCTETS, 8), (ie.PACKETS, 8), (ie.SAMPLING_INTERVAL, 4),
    (ie.INGRESS, 4), (ie.TOS, 1),
)  # fmt: skip


def _template(id: int, *address: tuple[int, int]) -> Template:
    return Template(id, tuple(Field(0, element, length) for element, length in (*address, *_COMMON)))


_TEMPLATES = {
    4: _template(256, (ie.DESTINATION_IPV4, 4), (ie.DESTINATION_PREFIX_V4, 1)),
    6: _template(257, (ie.DESTINATION_IPV6, 16), (ie.DESTINATION_PREFIX_V6, 1)),
}
_ROWS = {4: Struct(">4sB" + _TIMES_AND_COUNTS), 6: Struct(">16sB" + _TIMES_AND_COUNTS)}


@dataclass(frozen=True)
class _Flow:
    """One flow, whoever told it."""

    exporter: str
    destination: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    start_ms: int
    end_ms: int
    octets: int
    packets: int
    sampling: int
    ingress: int
    tos: int


class _Pmacct(msgspec.Struct):
    event_type: str = "purge"
    peer_ip_src: str = ""
    ip_dst: str | None = None
    net_dst: str | None = None
    mask_dst: int = 0
    tos: int = 0
    iface_in: int = 0
    bytes: int = 0
    packets: int = 0
    sampling_rate: int = 1
    timestamp_start: str = ""
    timestamp_end: str = ""
    stamp_inserted: str = ""
    stamp_updated: str = ""


class _Goflow2(msgspec.Struct):
    sampler_address: str
    dst_addr: str
    dst_net: int | str = 0
    ip_tos: int = 0
    in_if: int = 0
    bytes: int = 0
    packets: int = 0
    sampling_rate: int = 1
    time_received_ns: int = 0
    time_flow_start_ns: int = 0
    time_flow_end_ns: int = 0


def read_foreign(format: ForeignFormat, payload: bytes) -> list[RecordBatch]:
    """One Kafka message → its flows, a batch for each exporter and family; DecodeError when it is none."""
    try:
        split, read = _READERS[format]
        batches = _batches(flow for one in split(payload) for flow in read(one))
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise DecodeError(f"no flow of {format}: {error}") from error
    if not payload.strip():  # no length of a message is white space alone
        raise DecodeError(f"no flow of {format}: the message is empty")
    return batches


def _batches(flows: Iterable[_Flow]) -> list[RecordBatch]:
    rows: dict[tuple[str, int], list[bytes]] = {}
    for flow in flows:
        version: int = flow.destination.version
        rows.setdefault((flow.exporter, version), []).append(_row(version, flow))
    batches = []
    for (exporter, version), mine in rows.items():
        batch = RecordBatch(
            address=exporter, domain=0, export_time_s=0, template=_TEMPLATES[version], fixed=tuple(mine),
            count=len(mine), variable={},
        )  # fmt: skip
        batches.append(replace(batch, ratio=Samplers().ratio(batch)))
    return batches


def _row(version: int, flow: _Flow) -> bytes:
    return _ROWS[version].pack(
        flow.destination.ip.packed,
        flow.destination.network.prefixlen,
        _bounded(flow.start_ms, _MOST),
        _bounded(flow.end_ms, _MOST),
        _bounded(flow.octets, _MOST),
        _bounded(flow.packets, _MOST),
        _bounded(flow.sampling, 2**32 - 1),
        _bounded(flow.ingress, 2**32 - 1),
        _bounded(flow.tos, 255),
    )


def _bounded(value: int, most: int) -> int:
    if not 0 <= value <= most:
        raise ValueError(f"{value} is out of range")
    return value


# --------------------------------------------------------------------------------------------- pmacct


def _read_pmacct(line: bytes) -> list[_Flow]:
    told = msgspec.json.decode(line, type=_Pmacct, strict=False)
    if told.event_type != "purge":
        return []
    if told.ip_dst is None and told.net_dst is None:
        raise ValueError("it lacks ip_dst: add dst_host to `aggregate`")
    destination = told.net_dst or told.ip_dst
    if not destination:
        return []
    start_ms = _milliseconds(told.timestamp_start, told.stamp_inserted, told.timestamp_end)
    end_ms = _milliseconds(told.timestamp_end, told.stamp_updated, told.timestamp_start)
    return [
        _Flow(
            exporter=_address(told.peer_ip_src, "peer_ip_src: add it to `aggregate`"),
            destination=_destination(destination, told.mask_dst),
            start_ms=start_ms,
            end_ms=max(start_ms, end_ms),
            octets=told.bytes,
            packets=told.packets,
            sampling=told.sampling_rate,
            ingress=told.iface_in,
            tos=told.tos,
        )
    ]


def _milliseconds(*stamps: str) -> int:
    """The first that is told, where "0000-00-00 00:00:00.000000" is how pmacct says that it does not know.

    Seconds since 1970 (timestamps_since_epoch), RFC 3339, or a date and time, which are taken as UTC.
    """
    stamp = next((one for one in stamps if not _NOT_TOLD.issuperset(one)), "")
    if not stamp:
        raise ValueError("it lacks times: add timestamp_start and timestamp_end to `aggregate`")
    if stamp.replace(".", "", 1).isdecimal():
        return round(float(stamp) * 1000)
    moment = datetime.fromisoformat(stamp)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


# -------------------------------------------------------------------------------------------- goflow2


def _read_goflow2(line: bytes) -> list[_Flow]:
    told = msgspec.json.decode(line, type=_Goflow2)
    if not told.dst_addr:
        return []
    end_ns = told.time_flow_end_ns or told.time_received_ns
    start_ns = told.time_flow_start_ns or end_ns
    return [
        _Flow(
            exporter=_address(told.sampler_address, "sampler_address"),
            destination=_destination(told.dst_addr, _length(told.dst_net)),
            start_ms=start_ns // 1_000_000,
            end_ms=end_ns // 1_000_000,
            octets=told.bytes,
            packets=told.packets,
            sampling=told.sampling_rate,
            ingress=told.in_if,
            tos=told.ip_tos,
        )
    ]


def _length(network: int | str) -> int:
    """``10.1.0.0/16`` as newer releases write it, or its length as older ones do."""
    return network if isinstance(network, int) else int(network.rpartition("/")[2] or 0)


# Fields of goflow2's pb/flow.proto; releases before 2 wrote seconds into other fields: 2, 38 and 5.
_SAMPLER, _DESTINATION, _LENGTH, _TOS, _IN_IF = 11, 7, 17, 23, 18
_OCTETS, _PACKETS, _SAMPLING = 9, 10, 3
_RECEIVED_NS, _START_NS, _END_NS = 110, 111, 112


def _read_protobuf(message: bytes) -> list[_Flow]:
    told = protobuf.fields(message)
    end_ns = _number(told, _END_NS) or _number(told, _RECEIVED_NS)
    if not end_ns:
        raise ValueError("it lacks times in nanoseconds: goflow2 2.0 or newer writes them")
    exporter, destination = _text(told, _SAMPLER), _text(told, _DESTINATION)
    if exporter and not destination:
        return []
    return [
        _Flow(
            exporter=_address(exporter, "sampler_address"),
            destination=_destination(destination, _number(told, _LENGTH)),
            start_ms=(_number(told, _START_NS) or end_ns) // 1_000_000,
            end_ms=end_ns // 1_000_000,
            octets=_number(told, _OCTETS),
            packets=_number(told, _PACKETS),
            sampling=_number(told, _SAMPLING),
            ingress=_number(told, _IN_IF),
            tos=_number(told, _TOS),
        )
    ]


def _number(told: dict[int, protobuf.Value], field: int) -> int:
    value = told.get(field, 0)
    if isinstance(value, bytes):
        raise ValueError(f"field {field} is no number")
    return value


def _text(told: dict[int, protobuf.Value], field: int) -> str:
    """An address of 4 or 16 octets."""
    octets = told.get(field, b"")
    if isinstance(octets, int):
        raise ValueError(f"field {field} is no address")
    return str(ipaddress.ip_address(octets)) if octets else ""


def _lines(payload: bytes) -> Iterable[bytes]:
    return filter(None, payload.splitlines())


_READERS: dict[ForeignFormat, tuple[Callable[[bytes], Iterable[bytes]], Callable[[bytes], list[_Flow]]]] = {
    "pmacct": (_lines, _read_pmacct),
    "goflow2": (_lines, _read_goflow2),
    "goflow2-protobuf": (protobuf.delimited, _read_protobuf),
}


def _address(text: str, what: str) -> str:
    if not text:
        raise ValueError(f"it lacks {what}")
    return str(ipaddress.ip_address(text)).removeprefix("::ffff:")


def _destination(text: str, length: int) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    """The address with its prefix length; a host where none is told."""
    return ipaddress.ip_interface(f"{text}/{length}" if length > 0 else text)
