"""CISCO-CLASS-BASED-QOS-MIB → the counters of every class of every policy on an interface.

The module is a graph in tables. A service policy (policyIndex) sits on an interface, in one direction.
Below it hang objects (policyIndex, objectsIndex) with a type and a parent: class maps, and below these
their queueing. Names and settings stand under an object's configIndex, statistics under the object itself.
So a class's counters are CMStats of its object, and its queue's depth is QueueingStats of that queueing
object whose parent it is.

Policies nest: below a class may hang a policy with classes of its own, whose packets the outer class counts
too. Only the innermost classes are told, so that their sum counts every packet once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from collectors.snmp.engine import Index, Value
from collectors.snmp.tables import Columns, integer, text
from twin.records import QueueCounters

_CLASS_MAP, _QUEUEING = 2, 4  # QosObjectType
_DIRECTIONS = {1: "in", 2: "out"}  # cbQosPolicyDirection


def queues(policies: Columns, objects: Columns, names: Mapping[int, str]) -> tuple[QueueCounters, ...]:
    """Every class map on a known interface, by interface, direction and class."""
    kinds, parents = objects.get("kind", {}), objects.get("parent", {})
    queueing = {(index[0], parents.get(index)): index for index, kind in kinds.items() if kind == _QUEUEING}
    classes = [index for index, kind in kinds.items() if kind == _CLASS_MAP and len(index) == 2]
    outer = {above for index in classes for above in _above(index, parents)}
    found = []
    for index in classes:
        place = _place(policies, index[:1], names)
        if index not in outer and place is not None:
            found.append(_queue(objects, index, queueing.get((index[0], index[1])), place))
    return tuple(sorted(found, key=lambda one: (one.interface, one.direction, one.name)))


def _above(index: Index, parents: Mapping[Index, Value]) -> Iterator[Index]:
    """The objects that one hangs below; an agent's circle ends."""
    seen = {index}
    while (parent := integer(parents.get(index))) and (index[0], parent) not in seen:
        index = (index[0], parent)
        seen.add(index)
        yield index


def _place(policies: Columns, policy: Index, names: Mapping[int, str]) -> tuple[str, str] | None:
    interface = names.get(integer(policies.get("if_index", {}).get(policy)) or 0)
    direction = _DIRECTIONS.get(integer(policies.get("direction", {}).get(policy)) or 0)
    return (interface, direction) if interface and direction else None


def _queue(objects: Columns, index: Index, queueing: Index | None, place: tuple[str, str]) -> QueueCounters:
    def counted(name: str, at: Index | None = index) -> int | None:
        return None if at is None else integer(objects.get(name, {}).get(at))

    config = integer(objects.get("config", {}).get(index)) or 0
    return QueueCounters(
        interface=place[0],
        direction="in" if place[1] == "in" else "out",
        name=text(objects.get("name", {}).get((config,))) or f"class{config}",
        offered_octets=counted("offered_octets"),
        sent_octets=counted("sent_octets"),
        dropped_packets=counted("dropped_packets"),
        dropped_octets=counted("dropped_octets"),
        depth_packets=counted("depth_packets", queueing),
        depth_octets=counted("depth_octets", queueing),
        most_depth_octets=counted("most_depth_octets", queueing),
    )
