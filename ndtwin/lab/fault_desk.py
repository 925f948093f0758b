"""Starting and stopping faults, whatever they break, and the journal of what was broken when.

A lab brings a table of faults and the network that they break; the simulated lab and the one in namespaces
each have their own. The journal is one JSON object a line: ``event`` (start, stop), ``at_ns`` (wall clock,
when it took effect), and the fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from ndtwin.lab.fault_records import FaultKind, FaultRecord, TargetKind, UnknownFaultError
from ndtwin.lab.fault_targets import Breakable
from twin.errors import UsageError
from twin.network import Network

Undo = Callable[[], None]
W = TypeVar("W", bound=Breakable)
Size = tuple[float | None, str, float, float]  # default, unit, lowest, highest
NO_SIZE: Size = (None, "", 0.0, 0.0)


@dataclass(frozen=True)
class Fault(Generic[W]):
    """One row of a table of faults."""

    kind: FaultKind
    choose: Callable[[W], int]
    start: Callable[[W, int, float], Undo]


def fault_kind(fault: str, target: TargetKind, about: str, size: Size = NO_SIZE) -> FaultKind:
    """What is told of a fault."""
    magnitude, unit, low, high = size
    return FaultKind(
        fault=fault, target=target, about=about, magnitude=magnitude, unit=unit, low=low, high=high
    )


class FaultDesk(Generic[W]):
    """Starts and stops the faults of a table on a network and keeps the journal."""

    def __init__(self, world: W, faults: Mapping[str, Fault[W]], journal: Path) -> None:
        self._world, self._faults, self._journal = world, faults, journal
        self._active: dict[str, tuple[FaultRecord, Undo]] = {}
        self._started = 0

    def kinds(self) -> list[FaultKind]:
        """Faults that there are."""
        return [row.kind for row in self._faults.values()]

    def active(self) -> list[FaultRecord]:
        """Faults that are on."""
        return [record for record, _ in self._active.values()]

    def start(self, fault: str, target: str | None = None, magnitude: float | None = None) -> FaultRecord:
        """Inject; UsageError lists what is valid. Call it where the network may be changed."""
        row = self._faults.get(fault)
        if row is None:
            raise UsageError(f"unknown fault {fault!r}: there is {', '.join(self._faults)}")
        size = check_magnitude(row.kind, magnitude)
        names = target_names(self._world.network, row.kind.target)
        index = row.choose(self._world) if target is None else find_target(row.kind, names, target)
        self._refuse_twice(fault, names[index])
        undo = row.start(self._world, index, size if size is not None else 0.0)
        self._started += 1
        record = FaultRecord(
            id=f"f{self._started}", fault=fault, target=names[index], magnitude=size, unit=row.kind.unit,
            started_at_ns=time.time_ns(),
        )  # fmt: skip
        self._active[record.id] = (record, undo)
        self._write("start", record.started_at_ns, record)
        return record

    def stop(self, fault_id: str) -> FaultRecord:
        """Undo; UnknownFaultError when it is not on. Call it where the network may be changed."""
        if fault_id not in self._active:
            active = ", ".join(self._active) or "none"
            raise UnknownFaultError(f"no active fault {fault_id!r}: active: {active}")
        record, undo = self._active.pop(fault_id)
        undo()
        record = msgspec.structs.replace(record, stopped_at_ns=time.time_ns())
        self._write("stop", record.stopped_at_ns or 0, record)
        return record

    def _refuse_twice(self, fault: str, target: str) -> None:
        for record in self.active():
            if record.fault == fault and (
                record.target == target or self._same_cable(fault, record.target, target)
            ):
                raise UsageError(f"{fault} on {record.target} is on already as {record.id}: stop it first")

    def _same_cable(self, fault: str, one: str, other: str) -> bool:
        names = self._world.network.link_names
        return fault == "link-down" and self._world.back[names.index(one)] == names.index(other)

    def _write(self, event: str, at_ns: int, record: FaultRecord) -> None:
        line = msgspec.json.encode({"event": event, "at_ns": at_ns, **msgspec.structs.asdict(record)})
        with self._journal.open("ab") as journal:
            journal.write(line + b"\n")


def target_names(network: Network, kind: TargetKind) -> tuple[str, ...]:
    """All targets of a kind, by index."""
    if kind == "link":
        return network.link_names
    if kind == "node":
        return network.nodes
    return tuple(network.path_name(path) for path in range(network.path_count))


def find_target(kind: FaultKind, names: tuple[str, ...], target: str) -> int:
    """Index of a target by name."""
    if target not in names:
        known = ", ".join(names[:60]) + (f", … ({len(names)} in all)" if len(names) > 60 else "")
        raise UsageError(f"{kind.fault}: unknown {kind.target} {target!r}: there is {known}")
    return names.index(target)


def check_magnitude(kind: FaultKind, magnitude: float | None) -> float | None:
    """The magnitude in force."""
    if magnitude is None or kind.magnitude is None:
        if magnitude is not None:
            raise UsageError(f"{kind.fault} has no magnitude: leave it out")
        return kind.magnitude
    if not kind.low <= magnitude <= kind.high:
        valid = f"{kind.low:g} to {kind.high:g} {kind.unit}"
        raise UsageError(f"{kind.fault}: magnitude {magnitude:g} is out of range: give {valid}")
    return magnitude


def read_journal(path: Path) -> Iterator[dict[str, object]]:
    """The journal's lines, oldest first."""
    if path.exists():
        for line in path.read_bytes().splitlines():
            yield msgspec.json.decode(line, type=dict[str, object])
