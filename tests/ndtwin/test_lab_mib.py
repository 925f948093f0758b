"""The lab's MIB: order, look-ups, and encodings."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_doubles import make_device
from pyasn1.codec.ber import decoder
from pysnmp.proto import rfc1902

from ndtwin.lab import ber
from ndtwin.lab.device import Route
from ndtwin.lab.mib import Mib, fixed
from ndtwin.lab.mib_rttmon import rttmon_cells
from ndtwin.lab.mib_tables import route_index, standard_cells

ONE = fixed(ber.integer(1))
SMALL = Mib([((1, 3, 2), (10,), ONE), ((1, 3, 2), (9,), ONE), ((1, 3, 1), (0,), ONE)])


@given(st.integers(-(2**31), 2**31 - 1))
def test_integers_decode_to_themselves(value: int) -> None:
    """pyasn1 reads back every INTEGER that we encode."""
    assert int(decoder.decode(ber.integer(value))[0]) == value


@given(st.integers(0, 2**64 - 1))
def test_counters_decode_to_themselves(value: int) -> None:
    """pysnmp reads back every Counter64, the highest bit included."""
    assert int(decoder.decode(ber.counter64(value), asn1Spec=rfc1902.Counter64())[0]) == value


@given(st.lists(st.integers(0, 2**32 - 1), max_size=30), st.sampled_from([(1, 0), (1, 3), (0, 9)]))
def test_identifiers_decode_to_themselves(tail: list[int], head: tuple[int, int]) -> None:
    """pyasn1 reads back every object identifier, LLDP's 1.0 arc included."""
    assert tuple(decoder.decode(ber.oid((*head, *tail)))[0]) == (*head, *tail)


@given(st.binary(max_size=300))
def test_octets_decode_to_themselves(value: bytes) -> None:
    """pyasn1 reads back octet strings with short and with long lengths."""
    assert bytes(decoder.decode(ber.octets(value))[0]) == value


def test_counter32_wraps_and_gauge32_stays() -> None:
    """A counter starts again at 2³², a gauge stays at its maximum (RFC 2578)."""
    assert ber.counter32(2**32 + 5) == ber.integer(5, ber.COUNTER32)
    assert ber.gauge32(1e12) == ber.integer(2**32 - 1, ber.GAUGE32)


def test_successors_follow_numeric_order() -> None:
    """GETNEXT goes by sub-identifiers as numbers, not as text, and ends with endOfMibView."""
    seen = []
    oid: tuple[int, ...] = (1,)
    while True:
        following, encoded = SMALL.successor(oid)
        if encoded.endswith(ber.END_OF_MIB_VIEW):
            break
        seen.append(following)
        oid = following
    assert seen == [(1, 3, 1, 0), (1, 3, 2, 9), (1, 3, 2, 10)]
    assert following == oid


@pytest.mark.parametrize(
    ("oid", "ending"),
    [
        ((1, 3, 2, 9), ber.integer(1)),
        ((1, 3, 2, 77), ber.NO_SUCH_INSTANCE),
        ((1, 3, 2), ber.NO_SUCH_INSTANCE),
        ((1, 3, 7, 0), ber.NO_SUCH_OBJECT),
    ],
)
def test_get_says_why_there_is_nothing(oid: tuple[int, ...], ending: bytes) -> None:
    """A missing row of a known object is noSuchInstance, an unknown object noSuchObject."""
    assert SMALL.get(oid)[1].endswith(ending)


def test_bulk_is_repeated_successors() -> None:
    """GETBULK gives what as many GETNEXTs give, interleaved, and stops when all names are past the end."""
    starts = [(1, 3, 1), (1, 3, 2, 9)]
    got = list(SMALL.bulk(starts, 10))
    rows = []
    names = list(starts)
    for _ in range(4):
        pairs = [SMALL.successor(name) for name in names]
        names = [name for name, _ in pairs]
        rows += pairs
    assert got == rows


def test_bulk_of_nothing_is_empty() -> None:
    """No names or no repetitions: no bindings."""
    assert list(SMALL.bulk([], 5)) == []
    assert list(SMALL.bulk([(1, 3)], 0)) == []


def test_route_index_follows_rfc_4292() -> None:
    """destType.dest.pfxLen.policy.nextHopType.nextHop, lengths before addresses and before the policy."""
    learnt = Route(IPv4Network("10.2.0.0/16"), 1, IPv4Address("172.16.0.1"))
    attached = Route(IPv4Network("10.1.0.0/16"), 2)
    assert route_index(learnt) == (1, 4, 10, 2, 0, 0, 16, 2, 0, 0, 1, 4, 172, 16, 0, 1)
    assert route_index(attached) == (1, 4, 10, 1, 0, 0, 16, 2, 0, 0, 0, 0)


def test_no_two_cells_share_a_name() -> None:
    """Every row of every table has an index of its own."""
    device = make_device()
    names = [kind + instance for kind, instance, _ in standard_cells(device, b"id", 1)]
    names += [kind + instance for kind, instance, _ in rttmon_cells(device)]
    assert len(names) == len(set(names))


def test_an_interface_that_is_down_hears_nobody() -> None:
    """A port that goes down loses its LLDP neighbour, and the agent learns that its rows changed."""
    device = make_device()
    remote = (1, 0, 8802, 1, 1, 2, 1, 4, 1, 1)

    def neighbours() -> int:
        return sum(kind[: len(remote)] == remote for kind, _, _ in standard_cells(device, b"id", 1))

    revision = device.revision
    assert neighbours() == 7
    device.set_oper(device.interface("eth1"), up=False)
    assert neighbours() == 0
    assert device.revision > revision
