"""NetFlow version 9 (RFC 3954) and version 5, brought to the form of IPFIX.

Version 9, RFC 3954 section 5: header of 20 octets, then FlowSets as IPFIX has sets, with other ids:

    version 9, count | sysUptime (ms) | UNIX seconds | sequence number | source id
    FlowSet: id (0 templates, 1 options templates, 256 and up data), length, body

Its options template (section 6.1) gives the length in octets of the scope fields and of the other fields,
not their number, and numbers scopes by a list of their own. Field types are IPFIX's elements; there is no
enterprise bit. The sequence number counts messages, not records.

Version 5 has no templates: a header of 24 octets, then ``count`` records of 48. It is read as one data set
of a template that everybody knows. The sequence number counts records. The header tells the sampling.

    version 5, count | sysUptime (ms) | UNIX seconds | nanoseconds | sequence number
    | engine type, engine id | sampling mode (2 bits), interval (14 bits)
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from collectors.flows import elements as ie
from collectors.flows.template import Body, Field, Template, checked
from twin.errors import DecodeError

HEADER_V9 = Struct(">HHIIII")
HEADER_V5 = Struct(">HHIIIIBBH")
V9_TEMPLATES, V9_OPTIONS_TEMPLATES = 0, 1

# Scopes have a number space of their own (RFC 3954 section 6.1); kept apart from every element by an
# enterprise number that cannot be sent. The one that matters is the interface, by which samplers are told.
SCOPE = 1 << 32
_SCOPES = {2: ie.INGRESS}

_TWO, _THREE = Struct(">HH"), Struct(">HHH")

# The record of version 5, field by field as Cisco documents it.
V5_TEMPLATE = Template(
    256,
    tuple(
        Field(0, id, length)
        for id, length in (
            (ie.SOURCE_IPV4, 4), (ie.DESTINATION_IPV4, 4), (ie.NEXT_HOP_IPV4, 4), (ie.INGRESS, 2),
            (ie.EGRESS, 2), (ie.PACKETS, 4), (ie.OCTETS, 4), (ie.START_UPTIME, 4), (ie.END_UPTIME, 4),
            (ie.SOURCE_PORT, 2), (ie.DESTINATION_PORT, 2), (ie.PADDING, 1), (ie.TCP_FLAGS, 1),
            (ie.PROTOCOL, 1), (ie.TOS, 1), (ie.SOURCE_AS, 2), (ie.DESTINATION_AS, 2),
            (ie.SOURCE_PREFIX_V4, 1), (ie.DESTINATION_PREFIX_V4, 1), (ie.PADDING, 2),
        )
    ),
)  # fmt: skip


def read_v9_templates(body: Body) -> Iterator[Template]:
    """The templates of a template FlowSet (section 5.2): id, number of fields, (type, length) of each."""
    at = 0
    while len(body) - at >= _TWO.size:
        template_id, count = _TWO.unpack_from(body, at)
        if not any(body[at:]):
            return  # padding
        at += _TWO.size
        fields = _fields(body, at, count)
        at += _TWO.size * count
        yield checked(Template(template_id, fields))


def read_v9_options_templates(body: Body) -> Iterator[Template]:
    """The templates of an options template FlowSet (section 6.1)."""
    at = 0
    while len(body) - at >= _THREE.size:
        template_id, scope_octets, option_octets = _THREE.unpack_from(body, at)
        if not any(body[at:]):
            return  # padding
        at += _THREE.size
        scopes = _fields(body, at, scope_octets // _TWO.size)
        at += scope_octets
        options = _fields(body, at, option_octets // _TWO.size)
        at += option_octets
        named = tuple(_scope(field) for field in scopes)
        yield checked(Template(template_id, named + options, max(len(named), 1)))


def _scope(field: Field) -> Field:
    id = _SCOPES.get(field.id)
    return Field(SCOPE, *field[1:]) if id is None else Field(0, id, field.length)


def _fields(body: Body, at: int, count: int) -> tuple[Field, ...]:
    if at + _TWO.size * count > len(body):
        raise DecodeError("a template runs past the end of its set")
    return tuple(Field(0, id, length) for id, length in _TWO.iter_unpack(body[at : at + _TWO.size * count]))
