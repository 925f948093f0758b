"""The Session-Sender without sockets: test packets out, replies in, an echo for each that is worth one.

Theory
------
T1 is when a packet left, T2 when the reflector had it, T3 when it sent it back, T4 when it was here again:

    round trip = (T4 − T1) − (T3 − T2)       each bracket on one clock: no synchronisation is needed
    forward    =  T2 − T1,  backward = T4 − T3       two clocks: only if both are synchronised
    offset     = ((T2 − T1) − (T4 − T3)) / 2         of their clock against ours, if both ways were alike

T1 and T4 are ours and are taken from our memory, not from the reply. A forward or backward delay below what
both clocks' errors allow cannot be: then at least one of the clocks is not what it says.

What a reply must show to be believed: it comes from the address that was asked (the socket is connected), it
repeats sequence number, timestamp and error estimate of a packet that is waited for, its SSID is ours or zero
(RFC 8972 section 3), with a key its HMAC fits, and its times are in order. All else is counted by reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from collectors.stamp import tlv
from collectors.stamp.packets import (
    PLAIN_OCTETS,
    SIGNED_OCTETS,
    ReplyPacket,
    TestPacket,
    decode_reply,
    encode_test,
)
from collectors.stamp.timestamps import NS_PER_S, ErrorEstimate, TimestampFormat, from_wire, to_wire
from twin.errors import DecodeError

_WRAP = 1 << 32
_COS_OCTETS = tlv.HEADER_OCTETS + 4
_SEAL_OCTETS = tlv.HEADER_OCTETS + 16


@dataclass(frozen=True)
class SessionSettings:
    """One session: one flow of packets to one reflector."""

    ssid: int = 0
    key: bytes = field(default=b"", repr=False)
    dscp: int = 0
    payload_octets: int = PLAIN_OCTETS  # of UDP; rounded up to what the base packet and its TLVs take
    form: TimestampFormat = "ntp"
    timeout_s: float = 1.0  # a reply that takes longer is lost


@dataclass(frozen=True)
class Echo:
    """One packet that came back."""

    sequence: int
    reply_sequence: int
    sent_ns: int
    round_trip_s: float
    forward_s: float
    backward_s: float
    synchronised: bool  # both clocks say so, and nothing contradicts them
    error_s: float  # of the one-way delays, by what the clocks say
    reordered: bool  # a packet sent later was back earlier
    remarked: bool  # it reached the reflector in another class than it was sent in
    doubted: bool = False  # it left later than it says: good for losses, not for delays


@dataclass
class _Sent:
    at_ns: int
    timestamp: int
    error: int
    error_s: float
    synchronised: bool
    answered: bool = False
    doubted: bool = False


class SenderSession:
    """Makes packets and judges replies. ``counts`` says what became of every reply."""

    def __init__(self, settings: SessionSettings) -> None:
        self.settings = settings
        self._extra_octets = max(settings.payload_octets - self._base_octets, 0)
        self._sealed = bool(settings.key) and self._classed
        self._unsealed = self._tlvs()
        self._next = 0
        self._newest_back = -1
        self._waiting: dict[int, _Sent] = {}  # by sequence number, oldest first
        self.counts: Counter[str] = Counter()

    @property
    def _base_octets(self) -> int:
        return SIGNED_OCTETS if self.settings.key else PLAIN_OCTETS

    @property
    def waiting(self) -> int:
        """Packets whose time-out has not passed, answered or not."""
        return len(self._waiting)

    def send(self, now_ns: int, clock: ErrorEstimate) -> bytes:
        """The next packet. Its timestamp is ``now_ns``: call it as late as can be."""
        self.expire(now_ns)
        sequence, self._next = self._next, self._next + 1
        stamp, error = to_wire(now_ns, clock.form), clock.to_wire()
        self._waiting[sequence % _WRAP] = _Sent(now_ns, stamp, error, clock.error_s, clock.synchronised)
        self.counts["sent"] += 1
        return encode_test(
            TestPacket(sequence % _WRAP, stamp, error, self.settings.ssid, self._extra(sequence)),
            self.settings.key,
        )

    @property
    def _classed(self) -> bool:
        """Whether packets carry a Class of Service TLV: not for the default, and not without room."""
        room = self._extra_octets - (_SEAL_OCTETS if self.settings.key else 0)
        return self.settings.dscp > 0 and room >= _COS_OCTETS

    def _tlvs(self) -> bytes:
        """The class of service and padding up to the size, less the seal."""
        extra = b""
        if self._classed:
            value = tlv.ClassOfService(self.settings.dscp).to_value()
            extra = tlv.encode(tlv.CLASS_OF_SERVICE, value)
        room = self._extra_octets - (_SEAL_OCTETS if self._sealed else 0)
        return extra + tlv.padding(room - len(extra))

    def _extra(self, sequence: int) -> bytes:
        return (
            tlv.seal(sequence % _WRAP, self._unsealed, self.settings.key) if self._sealed else self._unsealed
        )

    def doubt(self) -> None:
        """The newest packet left noticeably later than its timestamp says: the program was held up."""
        self.counts["doubted"] += 1
        next(reversed(self._waiting.values())).doubted = True

    def expire(self, now_ns: int) -> None:
        """Forget the packets whose time-out has passed."""
        oldest_ns = now_ns - int(self.settings.timeout_s * NS_PER_S)
        while self._waiting:
            sequence, sent = next(iter(self._waiting.items()))
            if sent.at_ns >= oldest_ns:
                return
            del self._waiting[sequence]

    def receive(self, datagram: bytes, received_ns: int) -> Echo | None:
        """What a reply tells; None when it is not to be believed, and ``counts`` says why."""
        try:
            reply = decode_reply(datagram, self.settings.key)
        except DecodeError:
            self.counts["malformed"] += 1
            return None
        sent = self._waiting.get(reply.sender_sequence)
        if sent is None or received_ns - sent.at_ns > self.settings.timeout_s * NS_PER_S:
            self.counts["late"] += 1
            return None
        theirs = ErrorEstimate.from_wire(reply.error)
        there_ns = from_wire(reply.receive_timestamp, theirs.form, sent.at_ns)
        back_ns = from_wire(reply.timestamp, theirs.form, there_ns)
        plausible = 0 <= back_ns - there_ns <= received_ns - sent.at_ns
        if doubt := self._doubt(reply, sent, plausible=plausible):
            self.counts[doubt] += 1
            return None
        return self._echo(reply, sent, theirs, there_ns, back_ns, received_ns)

    def _doubt(self, reply: ReplyPacket, sent: _Sent, *, plausible: bool) -> str:
        """Why a reply is not to be believed; empty when it is."""
        if (reply.sender_timestamp, reply.sender_error) != (sent.timestamp, sent.error):
            return "foreign"
        if reply.ssid not in (0, self.settings.ssid):
            return "foreign"
        if sent.answered:
            return "duplicate"
        return "" if plausible else "implausible"

    def _echo(
        self,
        reply: ReplyPacket,
        sent: _Sent,
        theirs: ErrorEstimate,
        there_ns: int,
        back_ns: int,
        received_ns: int,
    ) -> Echo:
        sent.answered = True
        self.counts["received"] += 1
        forward_s = (there_ns - sent.at_ns) / NS_PER_S
        backward_s = (received_ns - back_ns) / NS_PER_S
        error_s = sent.error_s + theirs.error_s
        reordered = reply.sender_sequence < self._newest_back
        self._newest_back = max(self._newest_back, reply.sender_sequence)
        return Echo(
            sequence=reply.sender_sequence,
            reply_sequence=reply.sequence,
            sent_ns=sent.at_ns,
            round_trip_s=(received_ns - sent.at_ns - (back_ns - there_ns)) / NS_PER_S,
            forward_s=forward_s,
            backward_s=backward_s,
            synchronised=sent.synchronised and theirs.synchronised and min(forward_s, backward_s) >= -error_s,
            error_s=error_s,
            reordered=reordered,
            remarked=self._remarked(reply),
            doubted=sent.doubted,
        )

    def _remarked(self, reply: ReplyPacket) -> bool:
        if self.settings.dscp == 0 or not reply.extra:
            return False
        reading = tlv.read(reply.extra)
        told = reading.first(tlv.CLASS_OF_SERVICE)
        if (
            told is None
            or told.flags
            or not tlv.intact(reply.sequence, reply.extra, reading, self.settings.key)
        ):
            return False
        return tlv.ClassOfService.from_value(told.value).arrived_dscp != self.settings.dscp
