"""CISCO-CLASS-BASED-QOS-MIB → the counters of every class of every policy on an interface.

The module is a graph in tables. A service policy (policyIndex) sits on an interface, in one direction.
Below it hang objects (policyIndex, objectsIndex) with a type and a parent: class maps, and below these
their queueing. Names and settings stand under an object's configIndex, statistics under the object itself.
So a class's counters are CMStats of its object, and its queue's depth is QueueingStats of that queueing
object whose parent it is.

Policies nest: below a class may hang a policy with classes of its own, whose packets the outer class counts
too. Only the innermost classes are told, so that their sum counts every packet once.

A policer below a class sorts its packets into conforming, exceeding and violating ones, and each kind has
its actions; what it drops is lost in the class's queue. cbQosCMDropPkt counts "all features that can produce
drops", policers among them, so what a policer dropped is not added to it; but not all agents count so, and
never does a class drop less than its policers do: the larger figure is told. Where an action is not told,
nothing is taken for dropped: exceeding packets may as well be sent on with another mark.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from collectors.snmp.engine import Index, Value
from collectors.snmp.tables import Columns, integer, text
from twin.records import QueueCounters

_CLASS_MAP, _QUEUEING, _POLICE = 2, 4, 7  # QosObjectType
_DROP = 5  # PoliceAction
_VERDICTS = ("conformed", "exceeded", "violated")
_DIRECTIONS = {1: "in", 2: "out"}  # cbQosPolicyDirection


def queues(policies: Columns, objects: Columns, names: Mapping[int, str]) -> tuple[QueueCounters, ...]:
    """Every class map on a known interface, by interface, direction and class."""
    kinds, parents = objects.get("kind", {}), objects.get("parent", {})
    queueing = {(index[0], parents.get(index)): index for index, kind in kinds.items() if kind == _QUEUEING}
    classes = [index for index, kind in kinds.items() if kind == _CLASS_MAP and len(index) == 2]
    outer = {above for index in classes for above in _above(index, parents)}
    policers = _policers(kinds, parents)
    found = []
    for index in classes:
        place = _place(policies, index[:1], names)
        if index not in outer and place is not None:
            below = queueing.get((index[0], index[1])), policers.get(index, [])
            found.append(_queue(objects, index, *below, place))
    return tuple(sorted(found, key=lambda one: (one.interface, one.direction, one.name)))


def has_policers(objects: Columns) -> bool:
    """Whether statistics of policers are worth reading."""
    return _POLICE in objects.get("kind", {}).values()


def _policers(kinds: Mapping[Index, Value], parents: Mapping[Index, Value]) -> dict[Index, list[Index]]:
    """The policers of every class."""
    found: dict[Index, list[Index]] = defaultdict(list)
    for index, kind in kinds.items():
        parent = integer(parents.get(index))
        if kind == _POLICE and parent is not None:
            found[index[0], parent].append(index)
    return found


def _policed(objects: Columns, policers: Sequence[Index], unit: str) -> int | None:
    """What policers dropped, packets or octets; None where none of them is known to drop anything."""
    counted = [
        integer(objects.get(f"{verdict}_{unit}", {}).get(index))
        for index in policers
        for verdict in _VERDICTS
        if _drops(objects, index, verdict)
    ]
    told = [number for number in counted if number is not None]
    return sum(told) if told else None


def _drops(objects: Columns, policer: Index, verdict: str) -> bool:
    """Whether a policer drops packets so judged: by its one action, or one of several (another table)."""
    config = integer(objects.get("config", {}).get(policer))
    if config is None:
        return False
    several = objects.get(f"{verdict}_actions", {})
    return objects.get(f"{verdict}_action", {}).get((config,)) == _DROP or any(
        action == _DROP for index, action in several.items() if index[0] == config
    )


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


def _queue(
    objects: Columns,
    index: Index,
    queueing: Index | None,
    policers: Sequence[Index],
    place: tuple[str, str],
) -> QueueCounters:
    def counted(name: str, at: Index | None = index) -> int | None:
        return None if at is None else integer(objects.get(name, {}).get(at))

    def dropped(unit: str) -> int | None:
        told = (counted(f"dropped_{unit}"), _policed(objects, policers, unit))
        return max((number for number in told if number is not None), default=None)

    config = integer(objects.get("config", {}).get(index)) or 0
    return QueueCounters(
        interface=place[0],
        direction="in" if place[1] == "in" else "out",
        name=text(objects.get("name", {}).get((config,))) or f"class{config}",
        offered_octets=counted("offered_octets"),
        sent_octets=counted("sent_octets"),
        dropped_packets=dropped("packets"),
        dropped_octets=dropped("octets"),
        depth_packets=counted("depth_packets", queueing),
        depth_octets=counted("depth_octets", queueing),
        most_depth_octets=counted("most_depth_octets", queueing),
    )
