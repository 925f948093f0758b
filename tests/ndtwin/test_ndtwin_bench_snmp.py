"""The SNMP bench, and the simulated agents it polls."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto.api import v2c

from ndtwin.bench_snmp import bench_service, bench_snmp
from ndtwin.lab.swarm import COMMUNITY, Swarm, swarm_device

IF_NAME, IN_OCTETS = (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1), (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 6)


def _bulk(swarm: Swarm, oid: tuple[int, ...], request_id: int, now_s: float, community: str = COMMUNITY):  # type: ignore[no-untyped-def]  # pyasn1 has no types
    pdu = v2c.GetBulkRequestPDU()
    v2c.apiBulkPDU.set_defaults(pdu)
    v2c.apiBulkPDU.set_request_id(pdu, request_id)
    v2c.apiBulkPDU.set_max_repetitions(pdu, 3)
    v2c.apiBulkPDU.set_varbinds(pdu, [(oid, v2c.Null(""))])
    message = v2c.Message()
    v2c.apiMessage.set_defaults(message)
    v2c.apiMessage.set_community(message, community)
    v2c.apiMessage.set_pdu(message, pdu)
    answer = swarm.answer(encoder.encode(message), now_s)
    if answer is None:
        return None
    response = v2c.apiMessage.get_pdu(decoder.decode(answer, asn1Spec=v2c.Message())[0])
    return v2c.apiPDU.get_request_id(response), v2c.apiPDU.get_varbinds(response)


def test_a_simulated_agent_answers_like_a_real_one() -> None:
    """Rows in order under the request's own id, the same from memory; counters go on every second."""
    swarm = Swarm(swarm_device(2))
    (first_id, first), (second_id, second) = (_bulk(swarm, IF_NAME, n, 0.5) for n in (7, 123456789))
    assert (first_id, second_id) == (7, 123456789)
    assert [bytes(value) for _, value in first[:2]] == [b"ge-0/0/1", b"ge-0/0/2"]
    assert first == second
    octets = [int(_bulk(swarm, IN_OCTETS, 1, now_s)[1][0][1]) for now_s in (0.5, 0.6, 2.0)]
    assert octets[0] == octets[1] < octets[2]
    assert _bulk(swarm, IF_NAME, 7, 0.5, community="other") is None


@pytest.mark.live
def test_silent_devices_do_not_delay_the_others() -> None:
    """Of twenty devices two are silent and told as such; the others' samples come in every period."""
    figures = bench_service(20, 4, 2.0)
    assert (figures["devices"], figures["silent"], figures["overruns"]) == (20, 2, 0)
    assert figures["poll_s"] <= 2.0
    assert figures["late"] <= 1  # a busy machine may stop for longer than a period


@pytest.mark.live
def test_the_bench_compares_with_pysnmp(need_tool: Callable[[str], str]) -> None:
    """Against snmpd the fast engine reads several times what the portable one does."""
    need_tool("snmpd")
    said: list[str] = []
    figures = bench_snmp(seconds=0.5, devices=10, interfaces=2, period_s=1.0, watch=said.append)
    assert len(said) == 2
    assert figures["vs_pysnmp"] > 3
    assert figures["cpu_varbinds_per_s"] > 10_000
    assert figures["interfaces"] >= 1


def test_agents_end_with_whoever_started_them() -> None:
    """A swarm whose standard input closes is gone: nothing is left behind by a bench that was killed."""
    command = ["-m", "ndtwin.lab.swarm", "127.119.255.0", "0", "2", "1", "1"]
    done = subprocess.run(
        [sys.executable, *command], input="", text=True, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ready\n")
