"""Flow export messages → record batches: IPFIX (RFC 7011), NetFlow 9 (RFC 3954), NetFlow 5. Sans-IO.

``feed`` takes messages and gathers their records; ``take`` gives what was gathered, the records of all
messages of one stream and template as one batch. Theory and invariants:

- Templates belong to a transport session and an observation domain: a *stream* is (exporter address,
  transport and port, protocol, domain) (RFC 7011 section 8). A restarted exporter that comes from a new port
  starts with no templates; what it sent before under the same numbers is never applied to it (nfdump #159,
  goflow2 #87). :mod:`collectors.flows.cache` keeps templates over a restart of ours.
- UDP may deliver data before its template. Such sets are held, bounded in number, octets and age, and decoded
  when the template comes; the records then carry the time they were sent at.
- What options tell (samplers, the exporter's start) holds for everything that is taken with them.
- Anything that does not fit raises DecodeError and nothing of that message is taken but the templates before
  the fault; the next message sets the sequence number anew (:mod:`collectors.flows.sequence`).
- No input makes the state of an exporter grow beyond its bounds, and an exporter's bounds are its own: what
  one of them sends takes nothing from another.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from collectors.flows import elements as ie
from collectors.flows.batch import Buffer, RecordBatch, per_record
from collectors.flows.message import PROTOCOLS, read_message
from collectors.flows.sampling import Samplers
from collectors.flows.sequence import Sequence
from collectors.flows.template import FIRST_ID, Cut, Template, Variable
from twin.errors import DecodeError

MAX_STREAMS = 256  # per exporter; the least recently heard goes first. Line cards have domains of their own
MAX_TEMPLATE_FIELDS = 32_768  # per exporter, over all its streams: some 20 MB if somebody means harm
_IPFIX_OPTIONS = 3
MAX_HELD_SETS, MAX_HELD_OCTETS, MAX_HELD_S = 128, 512 * 1024, 300  # per exporter

Exporter = tuple[str, int] | tuple[str, int, str]  # address, port, transport where it is not UDP
Ints = Collection[int]
StreamKey = tuple[Exporter, int, int]  # exporter, protocol version, domain


# Records found in a message: their template, when they were sent, the exporter's uptime then, and themselves.
_Found = tuple[Template, int, int, Cut]


@dataclass(slots=True, eq=False)
class _Gathered:
    """Records of one template that wait to be taken: nothing that the garbage collector must look at."""

    template: Template
    fixed: list[Buffer] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    sent_s: list[int] = field(default_factory=list)
    uptime_ms: list[int] = field(default_factory=list)
    variable: list[Variable] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Owner:
    """One exporter: its streams, and what it uses of its bounds."""

    streams: set[StreamKey] = field(default_factory=set)
    template_fields: int = 0
    held: deque[_Held] = field(default_factory=deque)
    held_octets: int = 0


@dataclass(slots=True, eq=False)
class Stream:
    """What one exporter said in one domain over one transport session."""

    address: str
    domain: int
    owner: _Owner
    sequence: Sequence
    templates: dict[int, Template] = field(default_factory=dict)
    samplers: Samplers = field(default_factory=Samplers)
    boot_ms: int = -1  # when the exporter started, where its options tell (systemInitTimeMilliseconds)
    gathered: dict[int, _Gathered] = field(default_factory=dict)  # by identity of the template
    used: int = 0  # the count of messages when it was last heard


class _Held(NamedTuple):
    """A data set that waits for its template."""

    stream: Stream
    template_id: int
    body: bytes
    sent_s: int
    uptime_ms: int


@dataclass
class FlowCounters:
    """What happened so far, for health metrics."""

    messages: int = 0
    records: int = 0
    sets_held: int = 0
    sets_dropped: int = 0
    templates_changed: int = 0


class FlowSession:
    """All exporters of one listener."""

    def __init__(self) -> None:
        self.counters = FlowCounters()
        self.lost_records: Counter[str] = Counter()  # per exporter address; late messages give back
        self.unread_sets: Counter[str] = Counter()  # per exporter address; their template came late or never
        self.gathered_records = 0  # since the last ``take``
        self.changed = False  # templates or samplers, since whoever keeps them last looked
        self._streams: dict[StreamKey, Stream] = {}
        self._owners: dict[str, _Owner] = {}  # by address: as many as the caller lets in
        self._dirty: dict[Stream, None] = {}  # streams that gathered something, in order
        self._known: WeakValueDictionary[tuple[object, ...], Template] = WeakValueDictionary()

    def decode(self, datagram: bytes, exporter: Exporter) -> list[RecordBatch]:
        """One message → its batches, options among them; DecodeError when it is malformed."""
        self.feed(datagram, exporter)
        return self.take()

    def feed(self, datagram: bytes | memoryview, exporter: Exporter) -> None:
        """Take one message in, and keep nothing of its buffer; DecodeError when it is malformed."""
        body = memoryview(datagram)
        version, sent_s, uptime_ms, number, domain, sets, ratio = read_message(body)
        stream = self._streams.get((exporter, version, domain))
        if stream is None:
            stream = self._open(exporter, version, domain)
        stream.used = self.counters.messages
        found: list[_Found] = []
        counted, options, all_counted = 0, 0, True
        try:
            for set_id, start, end in sets:
                template = stream.templates.get(set_id)
                if template is not None:
                    cut = template.cut(body, start, end)
                    counted += cut[0]
                    options += cut[0] if template.scope_count else 0
                    found.append((template, sent_s, uptime_ms, cut))
                elif set_id < FIRST_ID:
                    found += self._learn(stream, version, sent_s, set_id, body[start:end])
                else:
                    all_counted = False
                    self._hold(stream.owner, _Held(stream, set_id, bytes(body[start:end]), sent_s, uptime_ms))
        except DecodeError:
            stream.sequence.unsure()
            raise
        if ratio:
            self.changed |= stream.samplers.keep(None, ratio)
        for each in found:
            self._gather(stream, each)
        lost = stream.sequence.take(number, counted, options)
        if lost:
            self.lost_records[stream.address] += lost
        if not all_counted and not stream.sequence.counts_messages:
            stream.sequence.unsure()
        self.counters.messages += 1

    def take(self) -> list[RecordBatch]:
        """What was gathered since the last time."""
        batches: list[RecordBatch] = []
        for stream in self._dirty:
            gathered, stream.gathered = stream.gathered, {}
            made = [_batch(stream, one) for one in gathered.values()]
            for options in made:
                if options.is_options:
                    self._learn_options(stream, options)
            batches += [batch if batch.is_options else _explained(stream, batch) for batch in made]
        self._dirty = {}
        self.counters.records += self.gathered_records
        self.gathered_records = 0
        return batches

    def find(self, exporter: Exporter, version: int, domain: int) -> Stream | None:
        """The stream of these, if it was heard."""
        return self._streams.get((exporter, version, domain))

    def forget(self, exporter: Exporter) -> None:
        """A transport session that is over, as TCP's can be: what it said holds no more."""
        for key in [key for key in self._streams if key[0] == exporter]:
            self._drop(key)

    def streams(self) -> Iterable[tuple[StreamKey, Stream]]:
        """Every stream with its key."""
        return self._streams.items()

    def restore(self, key: StreamKey, templates: Iterable[Template]) -> Stream:
        """A stream of an earlier life, with its templates; DecodeError when they exceed the bounds."""
        stream = self._open(*key)
        for template in templates:
            self._keep(stream, template)
        return stream

    # ------------------------------------------------------------------------------------ streams

    def _open(self, exporter: Exporter, version: int, domain: int) -> Stream:
        owner = self._owners.setdefault(exporter[0], _Owner())
        if len(owner.streams) >= MAX_STREAMS:
            self._drop(min(owner.streams, key=lambda key: self._streams[key].used))
        protocol, key = PROTOCOLS[version], (exporter, version, domain)
        stream = Stream(exporter[0], domain, owner, Sequence(protocol.counts_messages))
        stream.templates.update({template.id: template for template in protocol.templates})
        self._streams[key] = stream
        owner.streams.add(key)
        return stream

    def _drop(self, key: StreamKey) -> None:
        gone = self._streams.pop(key)
        gone.owner.streams.discard(key)
        gone.owner.template_fields -= sum(len(template.fields) for template in gone.templates.values())
        self.changed = True

    # ---------------------------------------------------------------------------------- templates

    def _learn(
        self, stream: Stream, version: int, sent_s: int, set_id: int, body: memoryview
    ) -> list[_Found]:
        """Read a set of templates; give the records that waited for them."""
        read = PROTOCOLS[version].template_sets.get(set_id)
        if read is None:
            raise DecodeError(f"set id {set_id} is reserved (RFC 7011 section 3.3.2)")
        found: list[_Found] = []
        for template in read(body):
            if not template.fields:
                self._withdraw(stream, template.id, options=set_id == _IPFIX_OPTIONS)
            elif stream.templates.get(template.id) != template:
                self._keep(stream, template)
                found += self._release(stream, template.id, sent_s)
        return found

    def _keep(self, stream: Stream, template: Template) -> None:
        before = stream.templates.get(template.id)
        more = len(template.fields) - (len(before.fields) if before else 0)
        if stream.owner.template_fields + more > MAX_TEMPLATE_FIELDS:
            raise DecodeError(f"templates of more than {MAX_TEMPLATE_FIELDS} fields: not kept")
        stream.owner.template_fields += more
        self.counters.templates_changed += before is not None
        self.changed = True
        key = (template.id, template.fields, template.scope_count)
        stream.templates[template.id] = self._known.setdefault(key, template)

    def _withdraw(self, stream: Stream, id: int, *, options: bool) -> None:
        """One template, or with the set's own id all of its kind (section 8.1)."""
        alike = [known for known, t in stream.templates.items() if bool(t.scope_count) == options]
        for known in alike if id < FIRST_ID else [id]:
            gone = stream.templates.pop(known, None)
            stream.owner.template_fields -= len(gone.fields) if gone else 0
            self.changed = True

    def _hold(self, owner: _Owner, held: _Held) -> None:
        owner.held.append(held)
        owner.held_octets += len(held.body)
        self.counters.sets_held += 1
        while len(owner.held) > MAX_HELD_SETS or owner.held_octets > MAX_HELD_OCTETS:
            owner.held_octets -= len(owner.held[0].body)
            self._leave_unread(owner.held.popleft())

    def _leave_unread(self, held: _Held) -> None:
        self.counters.sets_dropped += 1
        self.unread_sets[held.stream.address] += 1

    def _release(self, stream: Stream, id: int, now_s: int) -> list[_Found]:
        """What waited for this template; what is too old or does not fit it is dropped."""
        owner = stream.owner
        waited = [held for held in owner.held if held.stream is stream and held.template_id == id]
        if not waited:
            return []
        owner.held = deque(h for h in owner.held if h.stream is not stream or h.template_id != id)
        owner.held_octets = sum(len(held.body) for held in owner.held)
        found: list[_Found] = []
        for held in waited:
            try:
                if abs(now_s - held.sent_s) > MAX_HELD_S:
                    raise DecodeError("too old")
                cut = stream.templates[id].cut(memoryview(held.body), 0, len(held.body))
            except DecodeError:
                self._leave_unread(held)
                continue
            found.append((stream.templates[id], held.sent_s, held.uptime_ms, cut))
        return found

    # ------------------------------------------------------------------------------------ records

    def _gather(self, stream: Stream, found: _Found) -> None:
        template, sent_s, uptime_ms, (rows, fixed, variable) = found
        gathered = self.gather(stream, template, bytes(fixed), (rows,), (sent_s,), (uptime_ms,))
        if variable:
            gathered.variable.append(variable)

    def gather(
        self,
        stream: Stream,
        template: Template,
        fixed: Buffer,
        counts: Ints,
        sent_s: Ints,
        uptime_ms: Ints,
    ) -> _Gathered:
        """Records of one template, back to back: so many of each message, and what its header says."""
        gathered = stream.gathered.get(id(template))
        if gathered is None:
            gathered = stream.gathered[id(template)] = _Gathered(template)
            self._dirty[stream] = None
        gathered.fixed.append(fixed)
        gathered.counts += counts
        gathered.sent_s += sent_s
        gathered.uptime_ms += uptime_ms
        self.gathered_records += sum(counts)
        return gathered

    def _learn_options(self, stream: Stream, options: RecordBatch) -> None:
        self.changed |= stream.samplers.learn(options)
        boot_ms = options.integers(ie.BOOT_MS)
        if boot_ms is not None and len(boot_ms) and boot_ms[-1] != stream.boot_ms:
            stream.boot_ms = int(boot_ms[-1])
            self.changed = True


def _batch(stream: Stream, gathered: _Gathered) -> RecordBatch:
    """What was gathered of one template as one batch."""
    counts, names = gathered.counts, gathered.template.variable
    return RecordBatch(
        address=stream.address,
        domain=stream.domain,
        export_time_s=per_record(gathered.sent_s, counts, np.int64),
        template=gathered.template,
        fixed=tuple(gathered.fixed),
        count=sum(counts),
        variable={name: [value for some in gathered.variable for value in some[name]] for name in names},
        uptime_ms=per_record(gathered.uptime_ms, counts, np.int64),
    )


def _explained(stream: Stream, batch: RecordBatch) -> RecordBatch:
    """The batch with what the stream's options tell of it."""
    uptime_ms = batch.uptime_ms
    if stream.boot_ms >= 0 and isinstance(uptime_ms, int) and uptime_ms == -1:
        uptime_ms = batch.export_time_s * 1000 - stream.boot_ms
    return replace(batch, ratio=stream.samplers.ratio(batch), uptime_ms=uptime_ms)
