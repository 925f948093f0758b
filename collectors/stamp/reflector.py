"""The Session-Reflector without sockets: a test packet in, its reply or the reason for none out.

Rules
-----
- A reply is never longer than its request (RFC 8762 section 4.2: symmetrical), so a forged source address
  gains nothing. TWAMP Light senders whose packets are shorter than TWAMP's own reply (41 octets; RFC 6038 has
  them pad) would have to be answered at greater length, and are refused, unless the operator says
  ``answer_short``: then RFC 8762 section 4.6 is followed, with 41 octets for 14 or more (RFC 5357 section
  4.2.1). From 41 octets to 43 the reply is TWAMP's.
- Each source address may have so many packets a second, and all of them together so many: token buckets.
- Stateful (section 4): every session has its own reply sequence, so that its sender can tell which direction
  lost a packet. Stateless: the sequence number is the sender's.
- With a key only what carries its HMAC is answered; it is checked before anything is remembered.
- Sources and sessions remembered are bounded; the one not heard of for the longest time goes first.
- The reply leaves in the class in which the request came, or in the one a Class of Service TLV asks for.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from collectors.stamp import tlv
from collectors.stamp.packets import (
    SIGNED_OCTETS,
    TWAMP_REPLY_OCTETS,
    TWAMP_SENDER_OCTETS,
    ReplyPacket,
    TestPacket,
    decode_test,
    encode_reply,
)
from collectors.stamp.timestamps import NS_PER_S, ErrorEstimate, to_wire
from twin.errors import DecodeError

State = TypeVar("State")
UNKNOWN_TTL = 255  # RFC 5357 section 4.2.1: where the received TTL cannot be had


@dataclass(frozen=True)
class ReflectorSettings:
    """What a reflector does."""

    key: bytes = field(default=b"", repr=False)
    stateful: bool = True
    source_pps: float = 1000.0  # packets a second answered to one address
    total_pps: float = 20_000.0  # and to all
    most_sources: int = 4096
    most_sessions: int = 16_384
    answer_short: bool = False  # at greater length: a forged source address is sent three times as much
    forget_after_s: float = 900.0  # RFC 5357 section 4.2: REFWAIT's default


@dataclass(frozen=True)
class Arrival:
    """What the socket knows of a datagram."""

    source: tuple[str, int]
    local: str  # the address it was sent to
    received_ns: int
    ttl: int = UNKNOWN_TTL
    dscp: int = 0
    ecn: int = 0


@dataclass(frozen=True)
class Reply:
    """What is to be sent back. ``stamped`` puts the time of sending in, as late as can be."""

    packet: ReplyPacket
    dscp: int
    octets: int
    _key: bytes = field(repr=False)

    def stamped(self, now_ns: int, clock: ErrorEstimate) -> bytes:
        """The datagram."""
        stamp = to_wire(now_ns, clock.form)
        return encode_reply(replace(self.packet, timestamp=stamp), self._key)[: self.octets]


class _Recent(Generic[State]):
    """A bounded memory; what was not asked for longest is forgotten first."""

    def __init__(self, most: int, forget_after_ns: int) -> None:
        self._most = most
        self._forget_after_ns = forget_after_ns
        self._known: OrderedDict[Hashable, tuple[int, State]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Hashable, now_ns: int, new: State) -> State:
        """What is remembered of a key, or ``new``, which is remembered from now on."""
        at_ns, state = self._known.pop(key, (now_ns, new))
        if now_ns - at_ns > self._forget_after_ns:
            state = new
        self._known[key] = (now_ns, state)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return state


@dataclass
class _Bucket:
    """A token bucket that holds one second's worth."""

    rate_pps: float
    tokens: float
    at_ns: int

    def take(self, now_ns: int) -> bool:
        """Whether one more packet may pass."""
        elapsed_s = max(now_ns - self.at_ns, 0) / NS_PER_S
        self.at_ns = now_ns
        self.tokens = min(self.tokens + elapsed_s * self.rate_pps, max(self.rate_pps, 1.0))
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


@dataclass
class _Session:
    next_sequence: int = 0


class Reflector:
    """Answers test packets. ``counts`` says what became of every datagram."""

    def __init__(self, settings: ReflectorSettings) -> None:
        self._settings = settings
        forget_ns = int(settings.forget_after_s * NS_PER_S)
        self._buckets: _Recent[_Bucket] = _Recent(settings.most_sources, forget_ns)
        self._sessions: _Recent[_Session] = _Recent(settings.most_sessions, forget_ns)
        self._all: _Bucket | None = None
        self.counts: Counter[str] = Counter()  # reflected, unsigned, too-short, over-rate

    @property
    def sessions(self) -> int:
        """How many are remembered."""
        return len(self._sessions)

    def reflect(self, datagram: bytes, arrival: Arrival, clock: ErrorEstimate) -> Reply | None:
        """The reply to a datagram, or None; ``counts`` says why."""
        key = self._settings.key
        if not self._within_rate(arrival):
            self.counts["over-rate"] += 1
            return None
        least = TWAMP_SENDER_OCTETS if self._settings.answer_short else TWAMP_REPLY_OCTETS
        if len(datagram) < (SIGNED_OCTETS if key else least):
            self.counts["too-short"] += 1
            return None
        try:
            packet = decode_test(datagram, key)
        except DecodeError:
            self.counts["unsigned"] += 1
            return None
        self.counts["reflected"] += 1
        return self._reply(packet, max(len(datagram), TWAMP_REPLY_OCTETS), arrival, clock)

    def _reply(self, packet: TestPacket, octets: int, arrival: Arrival, clock: ErrorEstimate) -> Reply:
        key = self._settings.key
        sequence = self._sequence(packet.sequence, packet.ssid, arrival)
        answer = tlv.answer(
            packet.sequence, sequence, packet.extra, dscp=arrival.dscp, ecn=arrival.ecn, key=key
        )
        reply = ReplyPacket(
            sequence=sequence,
            timestamp=0,
            error=clock.to_wire(),
            ssid=packet.ssid,
            receive_timestamp=to_wire(arrival.received_ns, clock.form),
            sender_sequence=packet.sequence,
            sender_timestamp=packet.timestamp,
            sender_error=packet.error,
            sender_ttl=arrival.ttl,
            extra=answer.extra,
        )
        dscp = arrival.dscp if answer.reply_dscp is None else answer.reply_dscp
        return Reply(reply, dscp, octets, key)

    def _within_rate(self, arrival: Arrival) -> bool:
        now_ns, limits = arrival.received_ns, self._settings
        if self._all is None:
            self._all = _Bucket(limits.total_pps, limits.total_pps, now_ns)
        new = _Bucket(limits.source_pps, limits.source_pps, now_ns)
        mine = self._buckets.get(arrival.source[0], now_ns, new)
        return mine.take(now_ns) and self._all.take(now_ns)

    def _sequence(self, sent: int, ssid: int, arrival: Arrival) -> int:
        if not self._settings.stateful:
            return sent
        key = (*arrival.source, arrival.local, ssid)
        session = self._sessions.get(key, arrival.received_ns, _Session())
        if sent == 0:  # its sender began anew
            session.next_sequence = 0
        sequence = session.next_sequence
        session.next_sequence = (sequence + 1) & 0xFFFFFFFF
        return sequence
