"""Addresses and prefixes as integers, and longest-prefix match over them.

A prefix is ``(version, value, length)`` where ``value`` is its network address shifted right by the host
bits, so that two prefixes of one length are equal exactly when their values are. A lookup walks the lengths
that occur in the table from long to short: one dictionary probe per length, whatever the table's size.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")
_BITS = {4: 32, 6: 128}


class Prefix(NamedTuple):
    """A network prefix; an address is a prefix of full length."""

    version: int
    value: int
    length: int


@lru_cache(maxsize=65_536)
def parse_prefix(text: str) -> Prefix | None:
    """``10.3.0.0/16``, ``10.3.0.1`` or ``2001:db8::/32``; None when the text is a name."""
    try:
        net = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    return Prefix(
        net.version, int(net.network_address) >> (_BITS[net.version] - net.prefixlen), net.prefixlen
    )


class PrefixTable(Generic[V]):
    """An immutable longest-prefix-match table; of equal prefixes the first entry given wins."""

    def __init__(self, entries: Iterable[tuple[Prefix, V]]) -> None:
        tables: dict[tuple[int, int], dict[int, V]] = {}
        for prefix, value in entries:
            tables.setdefault((prefix.version, prefix.length), {}).setdefault(prefix.value, value)
        self._by_version = {
            version: [
                (length, tables[version, length])
                for v, length in sorted(tables, reverse=True)
                if v == version
            ]
            for version in _BITS
        }

    def longest(self, wanted: Prefix) -> V | None:
        """The value of the longest entry that covers the whole of ``wanted``."""
        for length, table in self._by_version[wanted.version]:
            if length <= wanted.length:
                value = table.get(wanted.value >> (wanted.length - length))
                if value is not None:
                    return value
        return None
