"""STAMP's reflector and sender as targets of :mod:`ndtwin.fuzzing`: from bytes to replies and delay records.

What an attacker could not forge would hide what lies behind it. So the signed reflector's messages are signed
again after they were mutated, and every other reply to the sender repeats what the sender waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from collectors.stamp import tlv
from collectors.stamp.bins import ProbeBins, ProbeLabel
from collectors.stamp.packets import SIGNED_OCTETS, ReplyPacket, TestPacket, encode_reply, encode_test, tag
from collectors.stamp.reflector import Arrival, Reflector, ReflectorSettings
from collectors.stamp.sender import SenderSession, SessionSettings
from collectors.stamp.timestamps import NS_PER_S, ErrorEstimate, to_wire
from ndtwin.fuzzing import Take, Target

_NOW_NS = 1_800_000_000 * NS_PER_S
_STEP_NS = 1_000_000  # from one message to the next
_KEY = b"known to the fuzzer"
_CLOCK = ErrorEstimate(synchronised=True, error_s=1e-5)
_COVERED = 96  # octets under the HMAC
_SOURCES = 5_000
_ECHOED = slice(24, 38)  # sender's sequence number, timestamp and error estimate in a reply
_SENT = slice(0, 14)  # the same in what it sends


def stamp_targets() -> Sequence[Target]:
    """Both roles, and the reflector with a key."""
    return (
        Target("stamp-reflector", _requests(b""), lambda: _reflector(b"")),
        Target("stamp-reflector-signed", _requests(_KEY), lambda: _reflector(_KEY)),
        Target("stamp-sender", _replies(), _sender),
    )


def _reflector(key: bytes) -> Take:
    reflector, numbers = Reflector(ReflectorSettings(key=key)), count()

    def take(message: bytes) -> bool:
        number = next(numbers)
        now_ns = _NOW_NS + number * _STEP_NS
        source = f"198.51.{number % _SOURCES // 250}.{number % 250}"
        arrival = Arrival((source, 1 + number % 7), "192.0.2.1", now_ns, dscp=number % 64)
        if key and len(message) >= SIGNED_OCTETS:
            message = message[:_COVERED] + tag(message[:_COVERED], key) + message[SIGNED_OCTETS:]
        reply = reflector.reflect(message, arrival, _CLOCK)
        return reply is not None and len(reply.stamped(now_ns, _CLOCK)) == len(message)

    return take


def _sender() -> Take:
    session, numbers = SenderSession(SessionSettings(ssid=9, dscp=46, payload_octets=100)), count()
    label = ProbeLabel("A", "B", packet_bits=1024.0)
    bins = ProbeBins(label, bin_ns=NS_PER_S, timeout_ns=NS_PER_S)

    def take(message: bytes) -> bool:
        number = next(numbers)
        now_ns = _NOW_NS + number * _STEP_NS
        sent = session.send(now_ns, _CLOCK)
        bins.sent(now_ns)
        if number % 2 and len(message) >= _ECHOED.stop:
            message = message[: _ECHOED.start] + sent[_SENT] + message[_ECHOED.stop :]
        echo = session.receive(message, now_ns + _STEP_NS // 2)
        if echo is not None:
            bins.echo(0, echo)
        if number % 1_000 == 0:
            bins.close(now_ns)
        return echo is not None

    return take


def _requests(key: bytes) -> list[bytes]:
    classed = tlv.encode(tlv.CLASS_OF_SERVICE, tlv.ClassOfService(46).to_value()) + tlv.padding(20)
    unknown = tlv.encode(200, b"abc") + tlv.encode(2, bytes(20))
    packets = [
        TestPacket(number, to_wire(_NOW_NS, "ntp"), _CLOCK.to_wire(), 9, extra)
        for number, extra in enumerate((b"", classed, unknown, tlv.seal(3, classed, _KEY), bytes(40)))
    ]
    return [encode_test(packet, key) for packet in packets]


def _replies() -> list[bytes]:
    """What may come back while the fuzzer's clock runs: the sender's own fields are put in by the taker."""
    classed = tlv.encode(tlv.CLASS_OF_SERVICE, tlv.ClassOfService(46, 46).to_value())
    there = to_wire(_NOW_NS, "ntp")
    replies = [
        ReplyPacket(number, there, _CLOCK.to_wire(), ssid, there, number, there, _CLOCK.to_wire(), 255, extra)
        for number, (ssid, extra) in enumerate(((9, b""), (0, classed), (9, classed + tlv.padding(30))))
    ]
    return [encode_reply(reply) for reply in replies]
