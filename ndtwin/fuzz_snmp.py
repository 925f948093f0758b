"""The trap receiver as a target of :mod:`ndtwin.fuzzing`: traps and informs of all versions.

The community and the user of the good messages are known to the receiver, so that mutations of what lies
behind them are looked at too. Version 3 comes without authentication: what an attacker can send.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count

from collectors.inventory import parse_inventory
from collectors.snmp.trap_receiver import TrapReceiver
from collectors.snmp.traps import interface_of, notification_of
from ndtwin.fuzzing import Take, Target
from ndtwin.lab import ber

_COMMUNITY, _ENGINE = "known to the fuzzer", b"\x80\x00\x7e\xd9\x05fuzz"
_TRAP_V1, _INFORM, _TRAP_V2 = 0xA4, 0xA6, 0xA7  # RFC 1157 section 4.1.6, RFC 3416 section 3
_LINK_DOWN = (1, 3, 6, 1, 6, 3, 1, 1, 5, 3)
_INVENTORY = """
network = "fuzz"
[credentials.c]
community = "env:NDTWIN_FUZZ_COMMUNITY"
[credentials.u]
version = "3"
user = "fuzz"
[[devices]]
name = "a"
address = "192.0.2.1"
snmp = { credentials = "c" }
[[devices]]
name = "b"
address = "192.0.2.2"
snmp = { credentials = "u" }
"""


def snmp_targets() -> Sequence[Target]:
    """The receiver behind the trap listener."""
    return (Target("snmp-trap", _messages(), _receiver),)


def _receiver() -> Take:
    os.environ["NDTWIN_FUZZ_COMMUNITY"] = _COMMUNITY
    sets = parse_inventory(_INVENTORY).credentials
    receiver, numbers = TrapReceiver(sets.values()), count()
    expected = (None, None, sets["c"], sets["u"])  # of the device that seems to send

    def take(message: bytes) -> bool:
        number = next(numbers)
        if number % 1_000 == 0:
            receiver.tick(float(number // 1_000))
        source = "192.0.2.1", 1 + number % 60_000
        found = receiver.receive(message, source, expected[number % len(expected)])
        if found.bindings:
            interface_of(notification_of(found.bindings), lambda index: "")
        return bool(found.bindings)

    return take


def _messages() -> tuple[bytes, ...]:
    bindings = _sequence(
        _binding((1, 3, 6, 1, 2, 1, 1, 3, 0), ber.time_ticks(123_456)),
        _binding((1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0), ber.oid(_LINK_DOWN)),
        _binding((1, 3, 6, 1, 2, 1, 2, 2, 1, 1, 7), ber.integer(7)),
        _binding((1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1, 7), ber.octets("ge-0/0/7")),
    )
    body = ber.integer(4711) + ber.integer(0) + ber.integer(0) + bindings
    trap, inform = ber.tlv(_TRAP_V2, body), ber.tlv(_INFORM, body)
    return (
        _sequence(ber.integer(0), ber.octets(_COMMUNITY), _generic_trap()),
        _sequence(ber.integer(1), ber.octets(_COMMUNITY), trap),
        _sequence(ber.integer(1), ber.octets(_COMMUNITY), inform),
        _version_3(trap),
        _version_3(inform),
    )


def _generic_trap() -> bytes:
    contents = (
        ber.oid((1, 3, 6, 1, 4, 1, 32473)),
        ber.tlv(ber.IP_ADDRESS, bytes([192, 0, 2, 1])),
        ber.integer(2),
        ber.integer(0),
        ber.time_ticks(99),
        _sequence(_binding((1, 3, 6, 1, 2, 1, 2, 2, 1, 1, 7), ber.integer(7))),
    )
    return ber.tlv(_TRAP_V1, b"".join(contents))


def _version_3(pdu: bytes) -> bytes:
    """RFC 3412 section 6, without authentication or privacy."""
    header = _sequence(ber.integer(1), ber.integer(65_507), ber.octets(b"\x04"), ber.integer(3))
    times = ber.integer(1) + ber.integer(100)
    security = _sequence(ber.octets(_ENGINE), times, ber.octets("fuzz"), ber.octets(b""), ber.octets(b""))
    scoped = _sequence(ber.octets(_ENGINE), ber.octets(b""), pdu)
    return _sequence(ber.integer(3), header, ber.octets(security), scoped)


def _binding(oid: tuple[int, ...], value: bytes) -> bytes:
    return _sequence(ber.oid(oid), value)


def _sequence(*parts: bytes) -> bytes:
    return ber.tlv(ber.SEQUENCE, b"".join(parts))
