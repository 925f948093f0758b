"""Notifications (RFC 5277) → events: what the table knows, by namespace and name; the rest is no news.

A notification tells the device's time. Where that is far from ours, when it was read counts: clocks that are
off are told of elsewhere, and an event in the future would never be applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collectors.netconf_xml import date_ns, parse_reply
from twin.errors import DecodeError
from twin.records import NetworkEvent

NOTIFICATION = "urn:ietf:params:xml:ns:netconf:notification:1.0"
_BASE = "urn:ietf:params:xml:ns:yang:ietf-netconf-notifications"  # RFC 6470
_YUMA = "http://yuma123.org/ns/interfaces-notifications"
_MOST_SKEW_NS = 60 * 10**9
_LONGEST_DETAIL = 300


@dataclass(frozen=True)
class Kind:
    """What one notification becomes."""

    event: str
    interface: str = ""  # the leaf that names it
    details: tuple[str, ...] = ()  # leaves, wherever in it


KINDS: Mapping[tuple[str, str], Kind] = {
    (_BASE, "netconf-config-change"): Kind(
        "configuration-changed", details=("username", "datastore", "operation", "target")
    ),
    (_BASE, "netconf-capability-change"): Kind(
        "capabilities-changed", details=("added-capability", "deleted-capability")
    ),
    (_YUMA, "link-up"): Kind("link-up", interface="if-name"),
    (_YUMA, "link-down"): Kind("link-down", interface="if-name"),
}


def event_of(notification: bytes, network: str, device: str, now_ns: int) -> NetworkEvent | None:
    """One <notification>; None for what is no news; DecodeError for what is no notification."""
    root = parse_reply(notification)
    if root.tag != f"{{{NOTIFICATION}}}notification":
        raise DecodeError(f"NETCONF: <{_name(root)[1]}> is no notification")
    for content in root:
        kind = KINDS.get(_name(content))
        if kind is not None:
            return NetworkEvent(
                network=network,
                device=device,
                observed_at_ns=_time_ns(root, now_ns),
                kind=kind.event,
                interface=_leaf(content, kind.interface) if kind.interface else "",
                detail=_detail(content, kind),
            )
    return None


def _name(element: Any) -> tuple[str, str]:
    """Namespace and name. lxml's QName refuses a namespace with a brace, which its parser lets pass."""
    namespace, _, name = element.tag.rpartition("}")
    return namespace.removeprefix("{"), name


def _time_ns(root: Any, now_ns: int) -> int:
    try:
        at_ns = date_ns(_leaf(root, "eventTime"))
    except ValueError as error:
        raise DecodeError(f"NETCONF notification: eventTime: {error}") from error
    return at_ns if abs(at_ns - now_ns) <= _MOST_SKEW_NS else now_ns


def _leaf(parent: Any, name: str) -> str:
    found = next(parent.iter(f"{{*}}{name}"), None)
    return (found.text or "").strip() if found is not None else ""


def _detail(content: Any, kind: Kind) -> str:
    told = (
        f"{name} {(leaf.text or '').strip()}"
        for name in kind.details
        for leaf in content.iter(f"{{*}}{name}")
    )
    return ", ".join(told)[:_LONGEST_DETAIL]
