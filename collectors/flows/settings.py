"""The inventory's table ``[ipfix]``: where flow export is taken, by how many processes, and how finely."""

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

MAX_PROCESSES = 64
# Whether flowDirection is believed. Where nothing is said it is, and what that costs is told.
FlowDirection = Literal["trust", "ignore"]
ForeignFormat = Literal[
    "pmacct", "goflow2", "goflow2-protobuf"
]  # of flows that other collectors write to Kafka


class FlowTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """IPFIX, NetFlow 9 and NetFlow 5 come to one port."""

    listen: str = "127.0.0.1:4739"  # 4739: IANA, RFC 7011 section 10.3.4
    tcp: bool = False  # IPFIX over TCP too, on the same port
    processes: Annotated[int, msgspec.Meta(ge=1, le=MAX_PROCESSES)] = 1
    # Destinations are told apart by the prefix that the exporter tells, but no finer than this.
    longest_prefix_v4: Annotated[int, msgspec.Meta(ge=0, le=32)] = 32
    longest_prefix_v6: Annotated[int, msgspec.Meta(ge=0, le=128)] = 128
    per_class: bool = True  # false: one figure for all DSCPs

    @property
    def endpoint(self) -> tuple[str, int]:
        """(host, port)."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def check_flow_table(table: FlowTable | None, exporters: list[str]) -> Iterator[tuple[str, str]]:
    """(place, what is wrong and what to do)."""
    if table is None:
        if exporters:
            yield "ipfix", f'{exporters[0]} exports, nothing listens: add [ipfix] listen = "0.0.0.0:4739"'
        return
    host, _, port = table.listen.rpartition(":")
    if not _is_address(host.strip("[]")) or not port.isdecimal() or not 0 <= int(port) <= 65535:
        yield "ipfix.listen", f"{table.listen!r} is not ADDRESS:PORT: write such as 0.0.0.0:4739"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
