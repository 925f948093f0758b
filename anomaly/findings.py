"""What one window gives: findings, and what of earlier ones has not gone away yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twin.records import Suspect

FindingKind = Literal["delay-divergence", "load-divergence", "link-down", "telemetry-stale"]
Severity = Literal["info", "warning", "critical"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in one window. Its scope says what it is about: link names, "node:X", …"""

    kind: FindingKind
    scope: frozenset[str]
    suspects: tuple[Suspect, ...]
    summary: str
    severity: Severity = "warning"
    paths: tuple[str, ...] = ()
    strength: float = 1.0  # score of the leading suspect


@dataclass(frozen=True)
class Judgement:
    """All findings of one window.

    ``lingering`` is the scope that is no longer alarming but not clean either; ``blind`` are the kinds of
    alert about which this window says nothing (no prediction, routing just changed).
    """

    findings: tuple[Finding, ...] = ()
    lingering: frozenset[str] = frozenset()
    blind: frozenset[str] = frozenset()
