"""pysnmp's UDP sockets, for which only the device that was asked can answer.

One socket of pysnmp serves many devices, and pysnmp matches answers by their number alone: whoever guesses a
request-id could answer for any device. So the number of every request is noted with the address it went to,
and a datagram whose number and sender do not belong together is dropped and counted. An answer counts once.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from pysnmp.carrier.asyncio.dgram import udp, udp6
from pysnmp.hlapi.v3arch import asyncio as hlapi

from collectors.snmp.engine import Traffic
from collectors.snmp.wire import message_id

_MOST_OUTSTANDING = 65_536


class Asked:
    """The requests that may still be answered."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._open: OrderedDict[int, tuple[str, int]] = OrderedDict()

    def sent(self, message: bytes, address: Any) -> None:
        """A request goes out."""
        number = message_id(message)
        if number is not None:
            self._open[number] = (address[0], address[1])
            if len(self._open) > _MOST_OUTSTANDING:
                self._open.popitem(last=False)

    def answered(self, message: bytes, address: Any) -> bool:
        """Whether a datagram answers one of them; then it does no more."""
        number = message_id(message)
        if number is None or self._open.get(number) != (address[0], address[1]):
            self._traffic.ignored += number is not None
            self._traffic.malformed += number is None
            return False
        del self._open[number]
        return True


class _Checked:
    """Over a transport of pysnmp."""

    asked: Asked

    def send_message(self, outgoing: bytes, address: Any) -> None:
        """pysnmp's call: a request."""
        self.asked.sent(outgoing, address)
        super().send_message(outgoing, address)  # type: ignore[misc]  # pysnmp's transport comes after us

    def datagram_received(self, datagram: bytes, address: Any) -> None:
        """asyncio's call: something came."""
        if self.asked.answered(datagram, address):
            super().datagram_received(datagram, address)  # type: ignore[misc]


class _Udp(_Checked, udp.UdpAsyncioTransport):  # type: ignore[misc]  # pysnmp has no types
    pass


class _Udp6(_Checked, udp6.Udp6AsyncioTransport):  # type: ignore[misc]
    pass


class _Target:
    """Over a transport target: opens the checked socket."""

    traffic: Traffic

    def open_client_mode(self) -> Any:
        """pysnmp's call, once for each engine: the first target opens the socket of all."""
        transport = super().open_client_mode()  # type: ignore[misc]
        transport.asked = Asked(self.traffic)
        return transport


class _UdpTarget(_Target, hlapi.UdpTransportTarget):  # type: ignore[misc]
    PROTO_TRANSPORT = _Udp


class _Udp6Target(_Target, hlapi.Udp6TransportTarget):  # type: ignore[misc]
    PROTO_TRANSPORT = _Udp6


async def target_of(address: str, port: int, *, timeout_s: float, retries: int, traffic: Traffic) -> Any:
    """Where requests go, for pysnmp's commands."""
    kind = _Udp6Target if ":" in address else _UdpTarget
    target = await kind.create((address, port), timeout=timeout_s, retries=retries)
    target.traffic = traffic
    return target
