"""Work on all flows, cut into chunks that run on threads; kernels hold no lock, so they run side by side.

How flows are cut depends on how many there are and on nothing else, and sums over chunks run in order: what
comes out does not depend on the machine's cores. A few thousand flows are one chunk, done before other
threads wake.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")

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
    parts = enumerate(chunks(flows))  # every thread takes the next: a step of it is one step of Python

    def take() -> None:
        for number, (low, high) in parts:
            work(number, low, high)

    helpers = min(threads, chunk_count(flows)) - 1
    taking = [_pool(threads - 1).submit(take) for _ in range(helpers)]
    try:
        take()
    finally:
        begun = [helper for helper in taking if not helper.cancel()]  # who wakes too late finds nothing left
        wait(begun)
    for helper in begun:
        helper.result()


def beside(threads: int, work: Callable[[], T]) -> Callable[[], T]:
    """Begin ``work`` on another thread, where there is one; who calls what is returned gets its result."""
    return work if threads == 1 else _pool(threads - 1).submit(work).result


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="flows")
