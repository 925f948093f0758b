"""One way to compile a function: numba, without the GIL, cached on disk, its type kept for the type checker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile on first call; later processes find the machine code beside the module (or in numba's cache folder)."""
    return cast(Function, njit(cache=True, nogil=True)(function))


def inlined(function: Function) -> Function:
    """The same, merged into its callers: for small functions of a hot loop.

    Passing arrays to a function that is not merged costs atomic reference counting for each of them.
    """
    return cast(Function, njit(cache=True, nogil=True, forceinline=True)(function))
