"""Templates and samplers to bytes and back, so that a restarted collector decodes at once.

Exporters send their templates every few minutes, some every half hour; without them everything in between
would be lost (telegraf #15089, goflow2 #330). What is kept is a stream's key with its templates and samplers,
as JSON. A file is not trusted more than a datagram: it passes the same checks and the same bounds. TCP
sessions are not kept: they end with the process.
"""

from __future__ import annotations

from collections.abc import Container

import msgspec

from collectors.flows.decoder import FlowSession, Stream, StreamKey
from collectors.flows.message import PROTOCOLS
from collectors.flows.template import Field, Template, checked
from twin.errors import DecodeError

MAX_OCTETS = 64 * 1024 * 1024
_FORMAT = 1


class _Template(msgspec.Struct, array_like=True):
    id: int
    scope_count: int
    fields: list[tuple[int, int, int]]  # enterprise, element, length


class _Sampler(msgspec.Struct, array_like=True):
    name: tuple[int, int] | None
    ratio: float


class _Stream(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    port: int
    version: int
    domain: int
    templates: list[_Template]
    samplers: list[_Sampler]
    boot_ms: int = -1


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    written_at_ns: int
    streams: list[_Stream]


def dump(session: FlowSession, now_ns: int) -> bytes:
    """Everything that is known of UDP streams."""
    kept = [_kept(key, stream) for key, stream in session.streams() if len(key[0]) == 2]
    return msgspec.json.encode(_File(_FORMAT, now_ns, kept))


def _kept(key: StreamKey, stream: Stream) -> _Stream:
    exporter, version, domain = key
    known = PROTOCOLS[version].templates
    templates = [
        _Template(t.id, t.scope_count, [(f.enterprise, f.id, f.length) for f in t.fields])
        for t in stream.templates.values()
        if t not in known
    ]
    samplers = [_Sampler(name, ratio) for name, ratio in stream.samplers.ratios.items()]
    return _Stream(exporter[0], exporter[1], version, domain, templates, samplers, stream.boot_ms)


def load(session: FlowSession, data: bytes, now_ns: int, *, oldest_ns: int, known: Container[str]) -> int:
    """Give the session what was dumped of known exporters since ``oldest_ns``; how many templates."""
    try:
        file = msgspec.json.decode(data, type=_File)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"no template cache: {error}") from error
    if file.format != _FORMAT or not oldest_ns <= file.written_at_ns <= now_ns:
        return 0
    return sum(_restore(session, kept) for kept in file.streams if kept.address in known)


def _restore(session: FlowSession, kept: _Stream) -> int:
    if kept.version not in PROTOCOLS:
        raise DecodeError(f"no template cache: version {kept.version}")
    templates = [
        checked(Template(t.id, tuple(Field(*field) for field in t.fields), t.scope_count))
        for t in kept.templates
    ]
    stream = session.restore(((kept.address, kept.port), kept.version, kept.domain), templates)
    for sampler in kept.samplers:
        stream.samplers.keep(sampler.name, sampler.ratio)
    stream.boot_ms = kept.boot_ms
    return len(templates)
