"""The datastores of a lab device as XML, and subtree filters over them (RFC 6241 section 6).

Modules: ietf-interfaces (RFC 8343), ietf-ip (RFC 8344), ietf-system (RFC 7317), iana-if-type. The tree is
built when it is asked for, so statistics are never stale. Configuration (``get-config``) is the tree
without state nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, cast

from lxml import etree

from ndtwin.lab.device import ETHERNET, Device, Interface

IF_NS = "urn:ietf:params:xml:ns:yang:ietf-interfaces"
IANA_IF_NS = "urn:ietf:params:xml:ns:yang:iana-if-type"
IP_NS = "urn:ietf:params:xml:ns:yang:ietf-ip"
SYSTEM_NS = "urn:ietf:params:xml:ns:yang:ietf-system"
MODULES = (
    (IF_NS, "ietf-interfaces", "2018-02-20"),
    (IANA_IF_NS, "iana-if-type", "2017-01-19"),
    (IP_NS, "ietf-ip", "2018-02-22"),
    (SYSTEM_NS, "ietf-system", "2014-08-06"),
)
STATISTICS = (  # leaf of the statistics container → counter (COUNTER_NAMES)
    ("in-octets", "in_octets"),
    ("in-unicast-pkts", "in_packets"),
    ("in-discards", "in_discards"),
    ("in-errors", "in_errors"),
    ("out-octets", "out_octets"),
    ("out-unicast-pkts", "out_packets"),
    ("out-discards", "out_discards"),
    ("out-errors", "out_errors"),
)
Element = etree._Element


def new_element(tag: str, **prefixes: str) -> Element:
    """An element whose own namespace is the default one."""
    spaces: Any = {None: etree.QName(tag).namespace, **prefixes}  # the stubs know no default namespace
    return etree.Element(tag, nsmap=spaces)


def date_and_time(at_ns: int) -> str:
    """yang:date-and-time (RFC 6991)."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _leaf(parent: Element, name: str, value: object) -> None:
    namespace = etree.QName(parent).namespace
    etree.SubElement(parent, f"{{{namespace}}}{name}").text = str(value)


def interfaces_tree(device: Device, *, state: bool) -> Element:
    """The container ``interfaces``."""
    root = new_element(f"{{{IF_NS}}}interfaces", ianaift=IANA_IF_NS)
    for interface in device.interfaces:
        entry = etree.SubElement(root, f"{{{IF_NS}}}interface")
        _configuration(entry, interface)
        if state:
            _state(entry, device, interface)
        _addresses(entry, interface)
    return root


def _configuration(entry: Element, interface: Interface) -> None:
    _leaf(entry, "name", interface.name)
    _leaf(entry, "description", interface.alias)
    kind = "ethernetCsmacd" if interface.kind == ETHERNET else "softwareLoopback"
    _leaf(entry, "type", f"ianaift:{kind}")
    _leaf(entry, "enabled", "true")


def _state(entry: Element, device: Device, interface: Interface) -> None:
    _leaf(entry, "admin-status", "up")
    _leaf(entry, "oper-status", "up" if interface.oper_up else "down")
    _leaf(entry, "last-change", date_and_time(max(interface.last_change_ns, device.started_ns)))
    _leaf(entry, "if-index", interface.index)
    if interface.mac:
        _leaf(entry, "phys-address", interface.mac.hex(":"))
    _leaf(entry, "speed", round(interface.speed_bps))
    statistics = etree.SubElement(entry, f"{{{IF_NS}}}statistics")
    _leaf(statistics, "discontinuity-time", date_and_time(device.started_ns))
    for leaf, counter in STATISTICS:
        _leaf(statistics, leaf, interface.counter(counter))


def _addresses(entry: Element, interface: Interface) -> None:
    if interface.address is None:
        return
    ipv4 = new_element(f"{{{IP_NS}}}ipv4")
    entry.append(ipv4)
    address = etree.SubElement(ipv4, f"{{{IP_NS}}}address")
    _leaf(address, "ip", interface.address.ip)
    _leaf(address, "prefix-length", interface.address.network.prefixlen)


def system_tree(device: Device) -> Element:
    """The container ``system``."""
    root = new_element(f"{{{SYSTEM_NS}}}system")
    _leaf(root, "hostname", device.name)
    return root


def system_state_tree(device: Device) -> Element:
    """The container ``system-state``."""
    root = new_element(f"{{{SYSTEM_NS}}}system-state")
    clock = etree.SubElement(root, f"{{{SYSTEM_NS}}}clock")
    _leaf(clock, "current-datetime", date_and_time(device.clock()))
    _leaf(clock, "boot-datetime", date_and_time(device.started_ns))
    return root


_TREES: dict[
    str, tuple[Callable[[Device, bool], Element], bool]
] = {  # container → (builder, has configuration)
    f"{{{IF_NS}}}interfaces": (lambda device, state: interfaces_tree(device, state=state), True),
    f"{{{SYSTEM_NS}}}system": (lambda device, state: system_tree(device), True),
    f"{{{SYSTEM_NS}}}system-state": (lambda device, state: system_state_tree(device), False),
}


def data_trees(device: Device, *, state: bool, selector: Element | None = None) -> Iterator[Element]:
    """The top-level containers, filtered; only those that the filter can match are built."""
    for tag, (build, has_configuration) in _TREES.items():
        if not (state or has_configuration):
            continue
        if selector is None:
            yield build(device, state)
            continue
        wanted = [child for child in _elements(selector) if _same_name(child, tag)]
        if wanted and (kept := _select(build(device, state), wanted)) is not None:
            yield kept


# -------------------------------------------------------------------------------------- subtree filters


def _elements(parent: Element) -> list[Element]:
    return [child for child in parent if isinstance(child.tag, str)]


def _same_name(pattern: Element, tag: str) -> bool:
    """Equal local names; a pattern without a namespace matches any (section 6.2.1)."""
    want, have = etree.QName(pattern), etree.QName(tag)
    return want.localname == have.localname and want.namespace in (None, have.namespace)


def _select(node: Element, patterns: list[Element]) -> Element | None:
    """What patterns of this node's name select together, or None (section 6.2.5).

    A pattern whose content matches fail selects nothing; one without selection nodes selects the whole node.
    """
    holding = [
        pattern for pattern in patterns if all(_content_matches(node, match) for match in _matches(pattern))
    ]
    if not holding:
        return None
    if any(len(_matches(pattern)) == len(_elements(pattern)) for pattern in holding):
        return deepcopy(node)
    inner = [child for pattern in holding for child in _elements(pattern)]
    kept = etree.Element(node.tag, nsmap=cast(Any, node.nsmap))
    for child in _elements(node):
        wanted = [pattern for pattern in inner if _same_name(pattern, child.tag)]
        if wanted and (part := _select(child, wanted)) is not None:
            kept.append(part)
    return kept if len(kept) else None


def _matches(pattern: Element) -> list[Element]:
    """The content match nodes among a pattern's children: leaves with text (section 6.2.5)."""
    return [child for child in _elements(pattern) if (child.text or "").strip() and not _elements(child)]


def _content_matches(node: Element, pattern: Element) -> bool:
    text = (pattern.text or "").strip()
    return any(_same_name(pattern, child.tag) and child.text == text for child in _elements(node))
