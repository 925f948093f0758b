"""One way to compile a function: numba, without the GIL, cached on disk, typed for the type checker.

numba takes what it compiled from its cache while the function's own file stays as it is. Constants of other
modules and functions of theirs are compiled in, and when these change it looks at neither: an upgrade that
changes one file would leave others with the constants of before. So the stamp of everything compiled here
holds these too (:func:`elsewhere`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher
from numba.extending import _Intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])
CONSTANTS = (bool, int, float, str, np.generic)  # and tuples of these


def compiled(function: Function) -> Function:
    """Compile at the first call; later processes find the code beside the module or in numba's folder."""
    return cast(Function, _stamped(njit(cache=True, nogil=True)(function)))


def kernel(function: Any) -> Any:
    """The same, of code without types: arithmetic may be reordered, and divides by zero like numpy's."""
    return _stamped(njit(cache=True, nogil=True, fastmath=True, error_model="numpy")(function))


def event_loop(function: Function) -> Function:
    """The same for code that creates no array: merged into its callers, arrays handed on uncounted.

    numba counts references atomically wherever an array changes hands. That costs the simulator two thirds of
    its time (3.2 M packet-hops/s with, 10.8 M without, on one core); ``_nrt=False`` is numba's switch for it.
    """
    return cast(Function, _stamped(njit(cache=True, nogil=True, forceinline=True, _nrt=False)(function)))


def elsewhere(module: str) -> Iterator[str]:
    """What functions of a module may have compiled in from outside of its file: the constants it sees, and
    the files of the compiled functions it sees, with what is elsewhere for these."""
    seen, waiting = {module}, [module]
    while waiting:
        for name, value in sorted(vars(sys.modules[waiting.pop()]).items()):
            if _is_constant(value) and not name.startswith("__"):
                yield f"{name} = {value!r}"
            home = _home(value)
            if home is not None and home not in seen:
                seen.add(home)
                waiting.append(home)
                yield hashlib.sha256(Path(str(sys.modules[home].__file__)).read_bytes()).hexdigest()


def _is_constant(value: Any) -> bool:
    return isinstance(value, CONSTANTS) or (isinstance(value, tuple) and all(map(_is_constant, value)))


def _home(value: Any) -> str | None:
    """The module of a compiled function."""
    if isinstance(value, Dispatcher):
        return str(value.py_func.__module__)
    return str(value._defn.__module__) if isinstance(value, _Intrinsic) else None


@cache
def _digest(module: str) -> str:
    """Asked for where a module's first function is compiled: below its imports and constants."""
    return hashlib.sha256("\n".join(elsewhere(module)).encode()).hexdigest()


def _stamped(dispatcher: Any) -> Any:
    """With a stamp that :func:`elsewhere` counts for; numba has no public way to say so."""
    file = dispatcher._cache._cache_file
    file._source_stamp = (file._source_stamp, _digest(dispatcher.py_func.__module__))
    return dispatcher
