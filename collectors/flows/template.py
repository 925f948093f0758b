"""Templates: field specifications as they are sent, compiled to a numpy dtype.

RFC 7011 section 3.2, one field specifier (the enterprise number only where E is set):

    |E|  Information Element ident. |        Field Length           |
    |                      Enterprise Number                        |

A template whose fields all have a fixed length becomes one structured dtype: the data sets of many datagrams
are joined and read without a loop. Where a field is of variable length (65535) the records are walked one by
one, and the fixed fields still end up in one structured array. Unsigned integers may be sent in fewer octets
than their type has (section 6.2, reduced-size encoding); odd sizes have no dtype and are widened when the
column is asked for. The dtype is made when the first data come: a template nobody uses costs little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from struct import Struct
from typing import NamedTuple

import numpy as np

from collectors.flows.elements import Kind, kind_of
from twin.errors import DecodeError

VARIABLE = 65535
FIRST_ID = 256  # lower set ids are for templates
MAX_FIELDS = 1000  # a message could claim 16,000; no exporter's template has a tenth of this
_TWO, _FOUR = Struct(">HH"), Struct(">I")
_WHOLE = (Kind.UNSIGNED, Kind.SECONDS, Kind.MILLISECONDS, Kind.NTP)
_DTYPES = {
    **{(kind, octets): f">u{octets}" for kind in _WHOLE for octets in (1, 2, 4, 8)},
    (Kind.IPV4, 4): ">u4",
    (Kind.FLOAT, 4): ">f4",
    (Kind.FLOAT, 8): ">f8",
}

Body = memoryview


class Field(NamedTuple):
    """One field specifier."""

    enterprise: int
    id: int
    length: int

    @property
    def key(self) -> str:
        """The field's name in arrays: ``12``, or ``9/12101`` for enterprise 9."""
        return f"{self.enterprise}/{self.id}" if self.enterprise else str(self.id)


Variable = dict[str, list[bytes]]
# The records of one data set: their number, their fixed fields back to back without padding, and those of
# variable length. A plain tuple, because one is made for every datagram.
Cut = tuple[int, memoryview | bytes, Variable]
_NO_VARIABLE: Variable = {}


@dataclass(frozen=True)
class Template:
    """A template or options template; the first ``scope_count`` fields of the latter are its scope."""

    id: int
    fields: tuple[Field, ...]
    scope_count: int = 0

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """A template is a key wherever records are gathered: its hash is made once."""
        return hash((self.id, self.fields, self.scope_count))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A unique array name for every field: an element that comes twice is ``12`` and ``12#2``."""
        seen: dict[str, int] = {}
        names = []
        for field in self.fields:
            seen[field.key] = seen.get(field.key, 0) + 1
            names.append(field.key if seen[field.key] == 1 else f"{field.key}#{seen[field.key]}")
        return tuple(names)

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """The fixed-length fields, packed in order."""
        return np.dtype(
            [
                (name, _DTYPES.get((kind_of(field.enterprise, field.id), field.length), f"V{field.length}"))
                for name, field in zip(self.names, self.fields, strict=True)
                if field.length != VARIABLE
            ]
        )

    @cached_property
    def columns(self) -> frozenset[str]:
        """The names of the fixed-length fields."""
        return frozenset(self.dtype.names or ())

    @cached_property
    def variable(self) -> tuple[str, ...]:
        """The names of the variable-length fields."""
        return tuple(n for n, f in zip(self.names, self.fields, strict=True) if f.length == VARIABLE)

    @cached_property
    def shortest(self) -> int:
        """Octets of the shortest possible record; what is left over and shorter is padding."""
        return sum(1 if field.length == VARIABLE else field.length for field in self.fields)

    def cut(self, message: Body, start: int, end: int) -> Cut:
        """The records of a data set whose body lies there; DecodeError when it does not fit."""
        shortest = self.shortest
        count = (end - start) // shortest
        if count == 0:
            raise DecodeError(f"data set {self.id}: {end - start} octets, one record has {shortest}")
        if self.variable:
            return self._walk(message[start:end])
        return count, message[start : start + count * shortest], _NO_VARIABLE

    def _walk(self, body: Body) -> Cut:
        fixed = bytearray()
        variable: Variable = {name: [] for name in self.variable}
        at, count = 0, 0
        while len(body) - at >= self.shortest:
            for name, field in zip(self.names, self.fields, strict=True):
                if field.length == VARIABLE:
                    start, at = _span(body, at)
                    variable[name].append(bytes(body[start:at]))
                else:
                    fixed += body[at : at + field.length]
                    at += field.length
            if at > len(body):
                raise DecodeError(f"data set {self.id}: a record runs past the end of the set")
            count += 1
        return count, bytes(fixed), variable


def _span(body: Body, at: int) -> tuple[int, int]:
    """Where a variable-length field starts and ends: one octet of length, or 255 and two (section 7)."""
    try:
        length = body[at]
        at += 1
        if length == 255:
            length = int.from_bytes(body[at : at + 2], "big")
            at += 2
    except IndexError as error:
        raise DecodeError("a variable-length field starts past the end of its set") from error
    return at, at + length


def read_templates(set_id: int, body: Body, *, options: bool) -> Iterator[Template]:
    """The templates of a set; one without fields withdraws that id, or all of its kind (section 8.1)."""
    at = 0
    while len(body) - at >= _TWO.size:
        template_id, count = _TWO.unpack_from(body, at)
        if template_id == 0 and not any(body[at:]):
            return  # padding
        at += _TWO.size
        if count == 0 and (template_id >= FIRST_ID or template_id == set_id):
            yield Template(template_id, ())
            continue
        scope_count = 0
        if options:
            scope_count = int.from_bytes(body[at : at + 2], "big")
            at += 2
            if not 1 <= scope_count <= count:
                raise DecodeError(f"options template {template_id}: {scope_count} scope fields of {count}")
        _check_count(template_id, count)
        fields, at = _read_fields(body, at, count)
        yield checked(Template(template_id, fields, scope_count))


def _check_count(template_id: int, count: int) -> None:
    if template_id < FIRST_ID or not 0 < count <= MAX_FIELDS:
        raise DecodeError(f"template {template_id} with {count} fields: ids start at 256")


def checked(template: Template) -> Template:
    """The template itself; DecodeError when no record can be read with it."""
    _check_count(template.id, len(template.fields))
    if template.shortest == 0:
        raise DecodeError(f"template {template.id}: its records have no octets")
    return template


def _read_fields(body: Body, at: int, count: int) -> tuple[tuple[Field, ...], int]:
    fields = []
    for _ in range(count):
        if len(body) - at < _TWO.size:
            raise DecodeError("a template runs past the end of its set")
        id, length = _TWO.unpack_from(body, at)
        at += _TWO.size
        enterprise = 0
        if id & 0x8000:
            if len(body) - at < _FOUR.size:
                raise DecodeError("a template runs past the end of its set")
            (enterprise,) = _FOUR.unpack_from(body, at)
            at += _FOUR.size
        fields.append(Field(enterprise, id & 0x7FFF, length))
    return tuple(fields), at
