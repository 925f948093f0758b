"""`ndtwin bench fuzz`: mutated messages into everything that listens, and what it costs in memory.

To add a target, write a function that gives a :class:`ndtwin.fuzzing.Target` and put it into ``TARGETS``.
The memory is that of the whole process: ``peak_mb`` is the most it had, ``grown_mb`` how much more it had in
the last quarter than in the first, the worst of all targets: what is flat has a growth near 0.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from ndtwin.fuzz_flows import flow_targets
from ndtwin.fuzz_netconf import netconf_targets
from ndtwin.fuzz_snmp import snmp_targets
from ndtwin.fuzz_stamp import stamp_targets
from ndtwin.fuzzing import Counts, Target, fuzz

TARGETS: tuple[Callable[[], Sequence[Target]], ...] = (
    flow_targets,
    stamp_targets,
    netconf_targets,
    snmp_targets,
)
_LOOK_EVERY = 2_000  # messages


class _Memory:
    """The most that the process had, by quarters of a target's run."""

    def __init__(self, datagrams: int) -> None:
        self._process = psutil.Process()
        self._quarter = max(datagrams // 4, 1)
        self.peaks_mb = [0.0] * 4

    def look(self, done: int) -> None:
        """At what there is now."""
        if done % _LOOK_EVERY == 0 or done + 1 == 4 * self._quarter:
            quarter = min(done // self._quarter, 3)
            now_mb = self._process.memory_info().rss / 1e6
            self.peaks_mb[quarter] = max(self.peaks_mb[quarter], now_mb)


def bench_fuzz(
    datagrams: int = 100_000,
    *,
    seed: int = 1,
    only: Sequence[str] = (),
    watch: Callable[[str], None] = print,
) -> dict[str, Any]:
    """``datagrams``, ``crashes`` and ``peak_mb`` over all targets, and a table of them."""
    targets = [t for make in TARGETS for t in make() if not only or t.name in only]
    each = max(datagrams // max(len(targets), 1), 1)
    table: dict[str, dict[str, Any]] = {}
    for target in targets:
        memory, began_s = _Memory(each), time.perf_counter()
        counts = fuzz(target, each, seed, each=memory.look)
        gc.collect()
        table[target.name] = _row(counts, memory, time.perf_counter() - began_s)
        watch(f"{target.name}: {counts.datagrams} messages, {counts.crashes} crashes")
    return {
        "datagrams": sum(row["datagrams"] for row in table.values()),
        "crashes": sum(row["crashes"] for row in table.values()),
        "peak_mb": max((row["peak_mb"] for row in table.values()), default=0.0),
        "grown_mb": max((row["grown_mb"] for row in table.values()), default=0.0),
        "targets": table,
    }


def _row(counts: Counts, memory: _Memory, seconds: float) -> dict[str, Any]:
    return {
        "datagrams": counts.datagrams,
        "taken": counts.taken,
        "crashes": counts.crashes,
        "datagrams_per_s": counts.datagrams / seconds,
        "peak_mb": max(memory.peaks_mb),
        "grown_mb": max(memory.peaks_mb[3] - memory.peaks_mb[0], 0.0),
        **({"first_crashes": counts.first_crashes} if counts.first_crashes else {}),
    }
