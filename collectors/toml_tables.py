"""TOML tables → checked structs, where every error is one line: the file, the place, what is wrong.

msgspec checks types and names; its words are turned into those of somebody who writes TOML, and where only
some values are allowed these are told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from twin.errors import InventoryError

T = TypeVar("T")
Hook = Callable[[type, object], object]  # makes what TOML has no type for; ValueError says what is wrong
_PLAIN_WORDS = (
    (r"Object contains unknown field", "unknown key"),
    (r"Object missing required field", "missing key"),
    (r" \| null`", "`"),
    (r"Expected `object`", "expected a table"),
    (r"Expected `array`", "expected a list"),
)


class TableReader:
    """Converts raw TOML tables; knows the file's name, so that every error can tell the place."""

    def __init__(self, origin: str, hook: Hook) -> None:
        self.origin = origin
        self._hook = hook

    def table(self, raw: object, kind: type[T], place: str) -> T:
        """One table as a struct."""
        try:
            return msgspec.convert(raw, kind, dec_hook=self._hook, from_attributes=True)
        except msgspec.ValidationError as error:
            raise self.error(place, str(error), kind) from error

    def rows(self, raw: object, kind: type[T], name: str, label: Callable[[Any], str]) -> tuple[T, ...]:
        """A list of tables."""
        if not isinstance(raw, list):
            raise self.error(name, f"write one [[{name}]] table for each")
        return tuple(self.table(row, kind, f"{name}[{i}]{label(row)}") for i, row in enumerate(raw))

    def mapping(self, raw: object, name: str) -> dict[str, object]:
        """Tables by name."""
        if not isinstance(raw, dict):
            raise self.error(name, f"write one [{name}.NAME] table for each")
        return raw

    def error(self, place: str, problem: str, kind: type | None = None) -> InventoryError:
        """What is wrong at a place: ``problem`` may be msgspec's, with the path within ``kind``."""
        problem, _, path = problem.partition(" - at `$")
        path = path.rstrip("`")
        allowed = _allowed(kind, path)
        if allowed and problem.startswith("Invalid enum value"):
            problem += f": use {', '.join(map(repr, allowed))}"
        for theirs, ours in _PLAIN_WORDS:
            problem = re.sub(theirs, ours, problem)
        place = (place + path).strip(".")
        return InventoryError(f"{self.origin}: {place}: {problem}" if place else f"{self.origin}: {problem}")


def _allowed(kind: Any, path: str) -> tuple[object, ...]:
    """The values that a key may have, where only some are allowed."""
    for name in re.findall(r"\w+", path):
        members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        kind = next((one for one in members if hasattr(one, "__struct_fields__")), None)
        kind = get_type_hints(kind).get(name) if kind is not None else None
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    literal = next((one for one in members if get_origin(one) is Literal), None)
    return get_args(literal)
