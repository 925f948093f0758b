"""Work on all flows, cut into chunks that run on threads; kernels hold no lock, so they run side by side.

How flows are cut depends on how many there are and on nothing else, and sums over chunks run in order: what
comes out does not depend on the machine's cores. A few thousand flows are one chunk, done before other
threads wake.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

CHUNKS = 8
SMALL = 1_500  # flows: below, threads cost more than they bring


def chunks(flows: int) -> list[tuple[int, int]]:
    """(first, end) of every chunk; they are equal within one flow."""
    count = chunk_count(flows)
    return list(pairwise(flows * k // count for k in range(count + 1)))


def chunk_count(flows: int) -> int:
    """How many chunks so many flows make."""
    return CHUNKS if flows >= SMALL else 1


def each_chunk(flows: int, threads: int, work: Callable[[int, int, int], None]) -> None:
    """Call work(number of the chunk, first flow, end) for all chunks; the first error of any is raised."""
    parts = [(number, low, high) for number, (low, high) in enumerate(chunks(flows))]
    if threads == 1 or len(parts) == 1:
        for part in parts:
            work(*part)
        return
    for done in [_pool(threads).submit(work, *part) for part in parts]:
        done.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="flows")
