"""The inventory's table ``[traps]``: where traps and informs are taken."""

import ipaddress
from collections.abc import Iterator

import msgspec


class TrapTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Traps come to one UDP port, from devices with ``snmp``, under any of their credential sets."""

    listen: str = "127.0.0.1:162"  # 162: RFC 3417 section 3.2

    @property
    def endpoint(self) -> tuple[str, int]:
        """(host, port)."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def check_trap_table(table: TrapTable | None) -> Iterator[tuple[str, str]]:
    """(place, what is wrong and what to do)."""
    if table is None:
        return
    host, _, port = table.listen.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        host = ""
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        yield "traps.listen", f"{table.listen!r} is not ADDRESS:PORT: write such as 0.0.0.0:162"
