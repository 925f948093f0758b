"""The YANG models that are understood, as tables, and what records become of their rows.

| model | becomes |
| --- | --- |
| ietf-interfaces (RFC 8343, RFC 7223), openconfig-interfaces | InterfaceCounters, InterfaceAddress |
| ietf-routing (RFC 8349, RFC 8022) with its IPv4 and IPv6 modules | Route |
| ietf-network-topology (RFC 8345) | Neighbour, of those links that leave the device itself |
| openconfig-qos | QueueCounters |
| openconfig-probes | PathDelay: round trips, microseconds |

A device is asked for the models that its hello announces; one that announces none of them (RFC 6020 wants it
to) is asked for ietf-interfaces. Where two models tell of one interface, the IETF's counts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from collectors.netconf_xml import (
    PREFIXES,
    Listing,
    Row,
    counter,
    date_ns,
    is_true,
    is_up,
    local_name,
    rows,
)
from twin.records import InterfaceAddress, InterfaceCounters, Neighbour, PathDelay, QueueCounters, Route

_DAY_NS = 86_400 * 10**9


@dataclass(frozen=True)
class Model:
    """What to ask for, and when: with every poll, or with the topology."""

    namespace: str  # as the hello announces it
    filters: tuple[str, ...]  # subtree filters
    topology: bool = False


def _container(name: str, prefix: str) -> str:
    return f'<{name} xmlns="{PREFIXES[prefix]}"/>'


IETF_INTERFACES = Model(
    PREFIXES["if"], (_container("interfaces", "if"), _container("interfaces-state", "if"))
)
MODELS: tuple[Model, ...] = (
    IETF_INTERFACES,
    Model(PREFIXES["oc-if"], (_container("interfaces", "oc-if"),)),
    Model(PREFIXES["oc-qos"], (_container("qos", "oc-qos"),)),
    Model(PREFIXES["oc-probes"], (_container("probes", "oc-probes"),)),
    Model(PREFIXES["rt"], (_container("routing", "rt"), _container("routing-state", "rt")), topology=True),
    Model(PREFIXES["nt"], (_container("networks", "nw"),), topology=True),
)


def announced(capabilities: Iterable[str]) -> tuple[Model, ...]:
    """The models of a hello (RFC 6020 section 5.6.4): ``NAMESPACE?module=…``."""
    told = {capability.partition("?")[0] for capability in capabilities}
    found = tuple(model for model in MODELS if model.namespace in told)
    return found if any(not model.topology for model in found) else (IETF_INTERFACES, *found)


# ------------------------------------------------------------------------------------------- interfaces

_PORT_SPEEDS = {  # identities of openconfig-if-ethernet
    "SPEED_10MB": 1e7,
    "SPEED_100MB": 1e8,
    "SPEED_1GB": 1e9,
    "SPEED_2500MB": 2.5e9,
    "SPEED_5GB": 5e9,
    "SPEED_10GB": 1e10,
    "SPEED_25GB": 2.5e10,
    "SPEED_40GB": 4e10,
    "SPEED_50GB": 5e10,
    "SPEED_100GB": 1e11,
    "SPEED_200GB": 2e11,
    "SPEED_400GB": 4e11,
    "SPEED_800GB": 8e11,
}
# Unicast packets, as SNMP's tables count.
_COUNTERS = (
    ("in-octets", "in_octets"),
    ("out-octets", "out_octets"),
    ("in-unicast-pkts", "in_packets"),
    ("out-unicast-pkts", "out_packets"),
    ("in-discards", "in_discards"),
    ("out-discards", "out_discards"),
    ("in-errors", "in_errors"),
    ("out-errors", "out_errors"),
)


def _port_speed(text: str) -> float | None:
    return _PORT_SPEEDS.get(local_name(text))


_INTERFACES = (
    Listing(
        # RFC 8343 keeps state in `interfaces`; devices of RFC 7223 have it in `interfaces-state`.
        entries=("if:interfaces/if:interface", "if:interfaces-state/if:interface"),
        key="if:name",
        leaves=(
            ("if:if-index", "if_index", int),
            ("if:admin-status", "admin_up", is_up),
            ("if:enabled", "admin_up", is_true),
            ("if:oper-status", "oper_up", is_up),
            ("if:speed", "speed_bps", float),
            ("if:statistics/if:discontinuity-time", "discontinuity_at_ns", date_ns),
            *((f"if:statistics/if:{leaf}", field, counter) for leaf, field in _COUNTERS),
        ),
    ),
    Listing(
        entries=("oc-if:interfaces/oc-if:interface",),
        key="oc-if:name",
        leaves=(
            ("oc-if:state/oc-if:ifindex", "if_index", int),
            ("oc-if:state/oc-if:admin-status", "admin_up", is_up),
            ("oc-if:state/oc-if:enabled", "admin_up", is_true),
            ("oc-if:state/oc-if:oper-status", "oper_up", is_up),
            ("oc-eth:ethernet/oc-eth:state/oc-eth:port-speed", "speed_bps", _port_speed),
            ("oc-if:state/oc-if:counters/oc-if:last-clear", "discontinuity_at_ns", int),
            *((f"oc-if:state/oc-if:counters/oc-if:{leaf}", field, counter) for leaf, field in _COUNTERS),
        ),
    ),
)


def interfaces_of(root: Any) -> tuple[InterfaceCounters, ...]:
    """All interfaces, by name."""
    found: dict[str, Row] = {}
    for listing in _INTERFACES:
        for name, row in rows(root, listing):
            found.setdefault(name, row)
    return tuple(InterfaceCounters(name=name, **{"if_index": 0, **found[name]}) for name in sorted(found))


_ADDRESSES = tuple(
    Listing(
        entries=(entry,),
        key=key,
        leaves=((f"{leaves}:ip", "address", str), (f"{leaves}:prefix-length", "length", int)),
        merged=False,
    )
    for entry, key, leaves in (
        *(
            (f"{tree}/if:interface/ip:{version}/ip:address", "../../if:name", "ip")
            for tree in ("if:interfaces", "if:interfaces-state")
            for version in ("ipv4", "ipv6")
        ),
        *(
            (
                "oc-if:interfaces/oc-if:interface/oc-if:subinterfaces/oc-if:subinterface"
                f"/oc-ip:{version}/oc-ip:addresses/oc-ip:address/oc-ip:state",
                "../../../../../../oc-if:name",
                "oc-ip",
            )
            for version in ("ipv4", "ipv6")
        ),
    )
)


def addresses_of(root: Any) -> tuple[InterfaceAddress, ...]:
    """All addresses, in order; what is none is left out."""
    found = set()
    for listing in _ADDRESSES:
        for name, row in rows(root, listing):
            prefix = _network(f"{row.get('address', '')}/{row.get('length', '')}")
            if prefix:
                found.add((name, str(row["address"]), prefix))
    return tuple(
        InterfaceAddress(interface=name, address=address, prefix=prefix)
        for name, address, prefix in sorted(found)
    )


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return ""


# ----------------------------------------------------------------------------------------------- queues

_QUEUES = Listing(
    entries=(
        "oc-qos:qos/oc-qos:interfaces/oc-qos:interface/oc-qos:output/oc-qos:queues/oc-qos:queue/oc-qos:state",
    ),
    key="../oc-qos:name",
    leaves=(
        ("../../../../oc-qos:interface-id", "interface", str),
        ("oc-qos:transmit-octets", "sent_octets", counter),
        ("oc-qos:dropped-pkts", "dropped_packets", counter),
        ("oc-qos:dropped-octets", "dropped_octets", counter),
        ("oc-qos:max-queue-len", "most_depth_octets", counter),
    ),
    merged=False,
)


def queues_of(root: Any) -> tuple[QueueCounters, ...]:
    """Output queues; those of no named interface are left out."""
    found = (
        QueueCounters(name=name, direction="out", **row)
        for name, row in rows(root, _QUEUES)
        if "interface" in row
    )
    return tuple(sorted(found, key=lambda queue: (queue.interface, queue.name)))


# ----------------------------------------------------------------------------------------------- routes

_UNICAST = ("v4ur", "v6ur")


def _any(path: str, *names: str) -> str:
    """Whichever of the two address families tells it."""
    return " | ".join(f"{path}{family}:{name}" for name in names for family in _UNICAST)


_ROUTE = "rt:routes/rt:route[rt:active or not(../rt:route/rt:active)]"
_HOP = "rt:next-hop/rt:next-hop-list/rt:next-hop"
_ROUTES = Listing(
    entries=tuple(
        f"{tree}/rt:ribs/rt:rib/{route}"
        for tree in ("rt:routing", "rt:routing-state")
        for route in (f"{_ROUTE}[not({_HOP})]", f"{_ROUTE}/{_HOP}")
    ),
    key=_any("ancestor-or-self::rt:route/", "destination-prefix"),
    leaves=(
        # In a list of next hops the entry is the hop, else the route; RFC 8022 and RFC 8349 differ in names.
        (
            f"{_any('rt:next-hop/', 'next-hop-address')} | {_any('', 'next-hop-address', 'address')}",
            "next_hop",
            str,
        ),
        ("rt:next-hop/rt:outgoing-interface | rt:outgoing-interface", "interface", str),
        ("ancestor-or-self::rt:route/rt:source-protocol", "protocol", local_name),
    ),
    merged=False,
)


def routes_of(root: Any) -> tuple[Route, ...]:
    """The routes in force; equal prefixes with several hops are several rows."""
    found = {
        Route(
            prefix=prefix,
            next_hop=row.get("next_hop", ""),
            interface=row.get("interface", ""),
            local=row.get("protocol") == "direct",
        )
        for text, row in rows(root, _ROUTES)
        if (prefix := _network(text))
    }
    return tuple(sorted(found, key=lambda route: (route.prefix, route.next_hop, route.interface)))


# --------------------------------------------------------------------------------------------- topology

_LINKS = Listing(
    entries=("nw:networks/nw:network/nt:link",),
    key="nt:link-id",
    leaves=(
        ("nt:source/nt:source-node", "source", str),
        ("nt:source/nt:source-tp", "local_interface", str),
        ("nt:destination/nt:dest-node", "remote_device", str),
        ("nt:destination/nt:dest-tp", "remote_interface", str),
    ),
    merged=False,
)


def neighbours_of(root: Any, device: str) -> tuple[Neighbour, ...]:
    """The links that leave a device. A device may tell of links of others: those they tell themselves."""
    found = {
        Neighbour(
            local_interface=row["local_interface"],
            remote_device=row["remote_device"],
            remote_interface=row.get("remote_interface", ""),
            protocol="static",
        )
        for _, row in rows(root, _LINKS)
        if row.get("source") == device and {"local_interface", "remote_device"} <= row.keys()
    }
    return tuple(sorted(found, key=lambda one: (one.local_interface, one.remote_device)))


# ----------------------------------------------------------------------------------------------- probes


def _micro_s(text: str) -> float:
    return counter(text) * 1e-6


_PROBES = Listing(
    entries=(
        "oc-probes:probes/oc-probes:probe/oc-probes:tests/oc-probes:test/oc-probes:results/oc-probes:state",
    ),
    key="../../oc-probes:target/oc-probes:state/oc-probes:address"
    " | ../../oc-probes:target/oc-probes:config/oc-probes:address",
    leaves=(
        ("oc-probes:start-timestamp", "start_ns", counter),
        ("oc-probes:last-test-timestamp", "end_ns", counter),
        ("oc-probes:test-duration", "duration_s", _micro_s),
        ("oc-probes:probes-sent", "sent", counter),
        ("oc-probes:probes-received", "count", counter),
        ("oc-probes:min-delay", "min_s", _micro_s),
        ("oc-probes:max-delay", "max_s", _micro_s),
        ("oc-probes:avg-delay", "mean_s", _micro_s),
        ("oc-probes:jitter", "ipdv_s", _micro_s),
        ("../../oc-probes:state/oc-probes:dscp", "traffic_class", int),
    ),
    merged=False,
)
_TOLD_AS_IS = ("sent", "min_s", "max_s", "ipdv_s", "traffic_class")


Result = tuple[str, tuple[tuple[str, Any], ...]]  # a test's address, and its row


def results_of(root: Any) -> frozenset[Result]:
    """The results that say when they were measured: what is read again unchanged is no measurement."""
    return frozenset(
        _result(address, row) for address, row in rows(root, _PROBES) if {"start_ns", "end_ns"} & row.keys()
    )


def _result(address: str, row: Row) -> Result:
    return address, tuple(sorted(row.items()))


def delays_of(root: Any, observed_at_ns: int, seen: Collection[Result] = ()) -> tuple[PathDelay, ...]:
    """The newest results of tests to an address but those in ``seen``; a count of 0: all probes were lost."""
    found = []
    for address, row in rows(root, _PROBES):
        if "count" not in row or ("mean_s" not in row and row["count"]) or _result(address, row) in seen:
            continue
        start_ns, end_ns = _interval(row, observed_at_ns)
        told: Row = {name: row[name] for name in _TOLD_AS_IS if name in row}
        if "sent" in row:
            told["lost"] = max(0, row["sent"] - row["count"])
        delay = PathDelay(
            destination=address,
            start_ns=start_ns,
            end_ns=end_ns,
            count=row["count"],
            mean_s=row.get("mean_s", 0.0),
            **told,
        )
        found.append(delay)
    return tuple(found)


def _interval(row: Mapping[str, Any], observed_at_ns: int) -> tuple[int, int]:
    """When it was measured. The model does not say where its timestamps count from: one that is not of the
    last day is not believed, and the test is taken to have ended when it was read.
    """
    end_ns = row.get("end_ns", 0)
    if not observed_at_ns - _DAY_NS < end_ns <= observed_at_ns:
        end_ns = observed_at_ns
    start_ns = row.get("start_ns", 0)
    if not end_ns - _DAY_NS < start_ns <= end_ns:
        start_ns = end_ns - int(row.get("duration_s", 0.0) * 1e9)
    return start_ns, end_ns
