"""NETCONF replies as XML: safely read, and turned into rows by tables of paths.

A model is a table (:class:`Listing`): where its list entries are, which leaf is their key, and which leaf
becomes which field. Several entries of one key are one row (RFC 7223 keeps configuration and state apart);
of several leaves for one field the first that is there counts. Leaves that no table names do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from lxml import etree

from twin.errors import DecodeError

PREFIXES = {
    "nc": "urn:ietf:params:xml:ns:netconf:base:1.0",
    "if": "urn:ietf:params:xml:ns:yang:ietf-interfaces",
    "ip": "urn:ietf:params:xml:ns:yang:ietf-ip",
    "rt": "urn:ietf:params:xml:ns:yang:ietf-routing",
    "v4ur": "urn:ietf:params:xml:ns:yang:ietf-ipv4-unicast-routing",
    "v6ur": "urn:ietf:params:xml:ns:yang:ietf-ipv6-unicast-routing",
    "nw": "urn:ietf:params:xml:ns:yang:ietf-network",
    "nt": "urn:ietf:params:xml:ns:yang:ietf-network-topology",
    "oc-if": "http://openconfig.net/yang/interfaces",
    "oc-eth": "http://openconfig.net/yang/interfaces/ethernet",
    "oc-ip": "http://openconfig.net/yang/interfaces/ip",
    "oc-qos": "http://openconfig.net/yang/qos",
    "oc-probes": "http://openconfig.net/yang/probes",
}
Reader = Callable[[str], Any]
Row = dict[str, Any]  # field → value


@dataclass(frozen=True)
class Listing:
    """One list of one YANG module, as a table."""

    entries: tuple[str, ...]  # XPath below the data
    key: str  # XPath from an entry; entries without one are left out
    leaves: tuple[tuple[str, str, Reader], ...]  # XPath from an entry, field, what reads it
    merged: bool = True  # entries of one key are one row; else each is its own


def parse_reply(reply: bytes) -> Any:
    """An <rpc-reply>, <data> or <notification> → its root; DecodeError when it is no proper XML."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True, huge_tree=False
    )
    try:
        root = etree.fromstring(reply, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise DecodeError(f"NETCONF reply is not XML: {error}") from error
    document: Any = root.getroottree().docinfo
    if document.doctype:
        raise DecodeError("NETCONF reply has a document type, which RFC 6241 section 3 forbids")
    return root


def rows(root: Any, listing: Listing) -> list[tuple[str, Row]]:
    """(key, row) of every entry, in order of the keys; DecodeError for a leaf that cannot be read."""
    groups: list[tuple[str, list[Any]]] = []
    known: dict[str, list[Any]] = {}
    for path in listing.entries:
        for entry in _path(f".//{path}")(root):
            key = _text(entry, listing.key)
            if not key:
                continue
            if listing.merged and key in known:
                known[key].append(entry)
            else:
                known[key] = [entry]
                groups.append((key, known[key]))
    return [(key, _row(key, group, listing)) for key, group in sorted(groups, key=lambda one: one[0])]


def _row(key: str, entries: list[Any], listing: Listing) -> Row:
    row: Row = {}
    for path, field, read in listing.leaves:
        if field in row:
            continue
        text = next((found for entry in entries if (found := _text(entry, path))), "")
        if not text:
            continue
        try:
            row[field] = read(text)
        except ValueError as error:
            raise DecodeError(f"NETCONF: {key}: {plain(path)} is {text[:60]!r}") from error
    return row


def _text(entry: Any, path: str) -> str:
    found = _path(path)(entry)
    return (found[0].text or "").strip() if found else ""


@lru_cache(maxsize=512)
def _path(path: str) -> Callable[[Any], list[Any]]:
    compiled: Any = etree.XPath(path, namespaces=PREFIXES)
    return compiled  # type: ignore[no-any-return]  # paths select elements: a list


def plain(path: str) -> str:
    """A path without its prefixes, for people."""
    return "/".join(step.rpartition(":")[2] for step in path.split("/"))


# ---------------------------------------------------------------------------------------------- readers


def date_ns(text: str) -> int:
    """yang:date-and-time (RFC 6991) → nanoseconds since the epoch."""
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000) * 1_000


def is_up(text: str) -> bool:
    """``up`` of the IETF, ``UP`` of OpenConfig."""
    return text.lower() == "up"


def is_true(text: str) -> bool:
    """A YANG boolean."""
    return text == "true"


def local_name(text: str) -> str:
    """An identity without its prefix."""
    return text.rpartition(":")[2]


def counter(text: str) -> int:
    """A counter: never below zero, never above 64 bits."""
    value = int(text)
    if not 0 <= value < 1 << 64:
        raise ValueError(text)
    return value


def fields(row: Mapping[str, Any], *names: str) -> Row:
    """Those of a row that are there."""
    return {name: row[name] for name in names if name in row}
