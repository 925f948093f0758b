"""IPFIX messages (RFC 7011) → record batches. Sans-IO: datagrams in, columns out.

    message = header (16 octets: version 10, length, export time, sequence number, observation domain)
              set*   (set id, length, body: templates (2), options templates (3), data (256 and up))

Theory and invariants
---------------------
- Templates belong to a transport session and an observation domain: the key is (exporter address, its port,
  domain) (section 8). A restarted exporter that comes from a new port starts with no templates; what it sent
  before under the same numbers is never applied to it (nfdump #159, goflow2 #87).
- UDP may deliver data before its template. Such sets are held, bounded in number, octets and age, and decoded
  when the template comes; the records then carry the export time they were sent with.
- The sequence number counts data records, options included, templates not (section 3.1; nProbe #208). A gap
  is a count of lost records; a late message gives its records back; a duplicate changes nothing; two messages
  in a row that continue each other behind the expected number are a restart.
- Anything that does not fit raises DecodeError and the whole datagram counts as undecoded; the state it would
  have advanced is resynchronised by the next message. No input can make the state grow beyond its bounds.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from struct import Struct

from collectors.flows.batch import RecordBatch
from collectors.flows.sampling import Samplers
from collectors.flows.template import Body, Template, read_templates
from twin.errors import DecodeError

_HEADER = Struct(">HHIII")
_SET = Struct(">HH")
_TEMPLATES, _OPTIONS_TEMPLATES, _FIRST_DATA = 2, 3, 256
_LATER = {5: "NetFlow 5", 9: "NetFlow 9"}

MAX_STREAMS = 8192  # (exporter, port, domain): the least recently heard goes first
MAX_TEMPLATES = 2048  # per stream
MAX_HELD_SETS, MAX_HELD_OCTETS, MAX_HELD_S = 128, 512 * 1024, 300
_JUMP = 1_000_000  # records; a larger gap is a restart with a random number, not a loss


@dataclass
class _Stream:
    """What one exporter said in one domain over one transport session."""

    templates: dict[int, Template] = field(default_factory=dict)
    held: deque[tuple[int, bytes, int]] = field(default_factory=deque)  # template id, body, export time
    samplers: Samplers = field(default_factory=Samplers)
    expected: int | None = None  # sequence number that comes next; None: take the next as it is
    last_end: int | None = None  # where the newest message ended
    missing: int = 0  # records lost and not yet turned up


@dataclass
class IpfixCounters:
    """What happened so far, for health metrics."""

    messages: int = 0
    records: int = 0
    sets_held: int = 0
    sets_dropped: int = 0
    templates_changed: int = 0


class IpfixSession:
    """All exporters of one listener."""

    def __init__(self) -> None:
        self.counters = IpfixCounters()
        self.lost_records: Counter[str] = Counter()  # per exporter address; late messages give back
        self._streams: OrderedDict[tuple[str, int, int], _Stream] = OrderedDict()

    def decode(self, datagram: bytes, exporter: tuple[str, int]) -> list[RecordBatch]:
        """One datagram → its batches, options among them; DecodeError when it is malformed."""
        length, export_time_s, sequence, domain = _read_header(datagram)
        sets = _split(memoryview(datagram)[_HEADER.size : length])
        stream = self._stream((*exporter[:2], domain))
        reading = _Reading(self.counters, stream, exporter[0], domain, export_time_s)
        try:
            for set_id, body in sets:
                reading.take(set_id, body)
        except DecodeError:
            stream.expected = stream.last_end = None
            raise
        self._track(stream, exporter[0], sequence, reading)
        self.counters.messages += 1
        self.counters.records += sum(len(batch) for batch in reading.batches)
        return reading.batches

    def _stream(self, key: tuple[str, int, int]) -> _Stream:
        stream = self._streams.setdefault(key, _Stream())
        self._streams.move_to_end(key)
        if len(self._streams) > MAX_STREAMS:
            self._streams.popitem(last=False)
        return stream

    def _track(self, stream: _Stream, address: str, sequence: int, reading: _Reading) -> None:
        """Compare the sequence number with what it should be."""
        end = (sequence + reading.counted) % 2**32
        gap = 0 if stream.expected is None else (sequence - stream.expected + 2**31) % 2**32 - 2**31
        behind = -_JUMP <= gap < 0
        late = behind and not (stream.missing == 0 and sequence == stream.last_end)
        if late:
            found = min(reading.counted, stream.missing)
            stream.missing -= found
            self.lost_records[address] -= found
        elif 0 < gap <= _JUMP:
            stream.missing += gap
            self.lost_records[address] += gap
        stream.last_end = end
        if reading.incomplete:
            stream.expected = stream.last_end = None
        elif not late:
            stream.expected = end


class _Reading:
    """One message being read into a stream."""

    def __init__(
        self, counters: IpfixCounters, stream: _Stream, address: str, domain: int, export_time_s: int
    ) -> None:
        self.batches: list[RecordBatch] = []
        self.counted = 0  # data records of this message, by which its sequence number advances
        self.incomplete = False  # a set is held: its records cannot be counted
        self._counters = counters
        self._stream = stream
        self._address = address
        self._domain = domain
        self._export_time_s = export_time_s

    def take(self, set_id: int, body: Body) -> None:
        """Read one set."""
        if set_id in (_TEMPLATES, _OPTIONS_TEMPLATES):
            for template in read_templates(set_id, body, options=set_id == _OPTIONS_TEMPLATES):
                self._learn(template, set_id)
        elif set_id < _FIRST_DATA:
            raise DecodeError(f"set id {set_id} is reserved (RFC 7011 section 3.3.2)")
        elif set_id in self._stream.templates:
            self.counted += self._decode(self._stream.templates[set_id], body, self._export_time_s)
        else:
            self.incomplete = True
            self._hold(set_id, body)

    def _learn(self, template: Template, set_id: int) -> None:
        templates = self._stream.templates
        if not template.fields:
            self._withdraw(template.id, set_id)
            return
        known = templates.get(template.id)
        if known is None and len(templates) >= MAX_TEMPLATES:
            raise DecodeError(f"more than {MAX_TEMPLATES} templates from one exporter: not kept")
        self._counters.templates_changed += known is not None and known != template
        templates[template.id] = template
        self._release(template)

    def _withdraw(self, id: int, set_id: int) -> None:
        """One template, or with the set's own id all of its kind (section 8.1)."""
        templates, options = self._stream.templates, set_id == _OPTIONS_TEMPLATES
        gone = [known for known, t in templates.items() if bool(t.scope_count) == options]
        for known in gone if id == set_id else [id]:
            templates.pop(known, None)

    def _hold(self, set_id: int, body: Body) -> None:
        held = self._stream.held
        held.append((set_id, bytes(body), self._export_time_s))
        self._counters.sets_held += 1
        octets = sum(len(kept) for _, kept, _ in held)
        while len(held) > MAX_HELD_SETS or octets > MAX_HELD_OCTETS:
            octets -= len(held.popleft()[1])
            self._counters.sets_dropped += 1

    def _release(self, template: Template) -> None:
        """Decode what waited for this template; what is too old or does not fit it is dropped."""
        held, self._stream.held = self._stream.held, deque()
        for set_id, body, export_time_s in held:
            if set_id != template.id:
                self._stream.held.append((set_id, body, export_time_s))
            elif abs(self._export_time_s - export_time_s) > MAX_HELD_S:
                self._counters.sets_dropped += 1
            else:
                try:
                    self._decode(template, memoryview(body), export_time_s)
                except DecodeError:
                    self._counters.sets_dropped += 1

    def _decode(self, template: Template, body: Body, export_time_s: int) -> int:
        records, variable = template.read(body)
        batch = RecordBatch(self._address, self._domain, export_time_s, template, records, variable)
        if batch.is_options:
            self._stream.samplers.learn(batch)
        else:
            ratio = self._stream.samplers.ratio(batch)
            batch = RecordBatch(
                self._address, self._domain, export_time_s, template, records, variable, ratio
            )
        self.batches.append(batch)
        return len(batch)


def _read_header(datagram: bytes) -> tuple[int, int, int, int]:
    """(length, export time, sequence number, observation domain)."""
    if len(datagram) < _HEADER.size:
        raise DecodeError(f"{len(datagram)} octets are no IPFIX message: its header alone has {_HEADER.size}")
    version, length, export_time_s, sequence, domain = _HEADER.unpack_from(datagram)
    if version in _LATER:
        raise DecodeError(f"{_LATER[version]} is not read yet: set the exporter to IPFIX (version 10)")
    if version != 10:
        raise DecodeError(f"version {version} is no IPFIX (10)")
    if length != len(datagram):
        raise DecodeError(f"the message says {length} octets, the datagram has {len(datagram)}")
    return length, export_time_s, sequence, domain


def _split(body: Body) -> list[tuple[int, Body]]:
    """The sets of a message; checked before any of them is read."""
    sets, at = [], 0
    while at < len(body):
        if len(body) - at < _SET.size:
            raise DecodeError("the message ends inside a set header")
        set_id, length = _SET.unpack_from(body, at)
        if length < _SET.size or at + length > len(body):
            raise DecodeError(f"set {set_id} says {length} octets, {len(body) - at} are left")
        sets.append((set_id, body[at + _SET.size : at + length]))
        at += length
    return sets
