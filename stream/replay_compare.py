"""What came out live beside what came out of a replay: byte for byte, window by window.

Only windows that both sides cover are compared: versions between the later of the two beginnings and the
earlier of the two ends, for each network. What is kept of a record is its identity and a digest, so that a
long replay of a large network fits into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from stream.codec import encode
from stream.consumer import Message, decode_message
from twin.records import Alert, DeadLetter, Prediction, Record, StateUpdate

Identity = tuple[str, int, str]  # network, version, what else tells two records of a window apart
Digests = tuple[bytes, bytes]  # of the bytes, and of the figures in them


@dataclass
class Comparison:
    """One kind of record, live beside replayed."""

    identical: int = 0  # byte for byte
    equal: int = 0  # every figure is the same, but the topology was first seen in another window
    different: int = 0  # the same window or the same change of an alert, other figures
    only_live: int = 0
    only_replayed: int = 0

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.different or self.only_live or self.only_replayed)

    def __str__(self) -> str:
        told = (
            (self.identical, "the same to the byte"),
            (self.equal, "of equal figures"),
            (self.different, "of other figures"),
            (self.only_live, "only live"),
            (self.only_replayed, "only in the replay"),
        )
        return ", ".join(f"{count} {what}" for count, what in told if count) or "none"


@dataclass
class Ledger:
    """The records of one side: identities and digests, by kind."""

    digests: dict[type[Record], dict[Identity, Digests]] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)

    def add(self, record: Record, payload: bytes) -> None:
        """Note a record; what is neither state, prediction nor alert is not compared."""
        identity = identity_of(record)
        if identity is None:
            return
        if isinstance(record, Prediction):
            self.models.add(f"{record.model} {record.model_version}")
        digests = _digest(payload), _digest(encode(_figures(record)))
        self.digests.setdefault(type(record), {})[identity] = digests

    def add_messages(self, messages: Iterable[Message]) -> None:
        """Note what archived messages carry; what does not decode is the archive's dead letter, not ours."""
        for message in messages:
            record = decode_message(message)
            if not isinstance(record, DeadLetter):
                self.add(record, message.payload)

    def versions(self) -> dict[str, tuple[int, int]]:
        """Network → first and last version of its states."""
        found: dict[str, list[int]] = {}
        for network, version, _ in self.digests.get(StateUpdate, ()):
            found.setdefault(network, []).append(version)
        return {network: (min(versions), max(versions)) for network, versions in found.items()}

    def within(self, kind: type[Record], windows: dict[str, range]) -> dict[Identity, Digests]:
        """The digests of one kind of record in the given windows."""
        found = self.digests.get(kind, {})
        return {key: digests for key, digests in found.items() if key[1] in windows.get(key[0], range(0))}


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).digest()


def _figures(record: Record) -> Record:
    """A record without when its topology was first seen, which a replay that begins later cannot know."""
    if isinstance(record, StateUpdate):
        return msgspec.structs.replace(record, topology_version=0, keyframe=False, topology=None)
    if isinstance(record, Prediction):
        return msgspec.structs.replace(record, topology_version=0)
    return record


def identity_of(record: Record) -> Identity | None:
    """Which output of which window a record is."""
    if isinstance(record, StateUpdate):
        return record.network, record.version, ""
    if isinstance(record, Prediction):
        return record.network, record.state_version, ""
    if isinstance(record, Alert):
        change = f"{record.fingerprint}/{record.state}/{record.updated_at_ns}"
        return record.network, record.last_version, change
    return None


COMPARED: dict[str, type[Record]] = {"states": StateUpdate, "predictions": Prediction, "alerts": Alert}


def compare(live: Ledger, replayed: Ledger) -> dict[str, Comparison]:
    """By name of the output; empty comparisons where the two cover no common window."""
    windows = _common(live.versions(), replayed.versions())
    return {
        name: _beside(live.within(kind, windows), replayed.within(kind, windows))
        for name, kind in COMPARED.items()
    }


def _common(live: dict[str, tuple[int, int]], replayed: dict[str, tuple[int, int]]) -> dict[str, range]:
    common = {}
    for network in live.keys() & replayed.keys():
        (first_live, last_live), (first, last) = live[network], replayed[network]
        common[network] = range(max(first_live, first), min(last_live, last) + 1)
    return common


def _beside(live: dict[Identity, Digests], replayed: dict[Identity, Digests]) -> Comparison:
    both = live.keys() & replayed.keys()
    identical = sum(live[key] == replayed[key] for key in both)
    equal = sum(live[key][1] == replayed[key][1] for key in both) - identical
    return Comparison(
        identical=identical,
        equal=equal,
        different=len(both) - identical - equal,
        only_live=len(live.keys() - both),
        only_replayed=len(replayed.keys() - both),
    )
