"""The lab in namespaces: its plan, its files, and one that runs, is killed, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import numpy as np
import pytest
from netns_ring import need_namespaces, ring, running_lab, wait

from collectors.inventory import load_inventory
from collectors.netconf import NetconfPoller
from collectors.stamp.sockets import within
from ndtwin.lab.client import LabClient
from ndtwin.lab.netns.files import Place, frr_conf, snmpd_conf, sshd_conf
from ndtwin.lab.netns.plan import FRAME_OCTETS, Plan, make_plan
from ndtwin.lab.netns.settings import NetnsSettings
from ndtwin.lab.netns.spaces import held_slot, left_behind, shape, state_directory
from ndtwin.lab.netns.tools import check_ready, run
from ndtwin.lab.netns.traffic import due
from ndtwin.lab.settings import LabSettings
from ndtwin.lab.snmp_agent import SnmpAccess
from twin.errors import PeerError, TopologyError, UsageError
from twin.records import NetworkEvent

START_S = 120.0


def plan_of(topology: str = "nsfnet", slot: int = 3) -> Plan:
    return make_plan(LabSettings(topology=topology), NetnsSettings(), slot)


# ------------------------------------------------------------------------------------------------- plan


def test_nothing_is_given_twice() -> None:
    """Within a lab every address belongs to one interface, every name to one namespace."""
    plan = plan_of()
    addresses = [
        str(one)
        for router in plan.routers
        for one in (
            router.management.ip,
            router.gateway.ip,
            router.router_id,
            router.customers.ip,
            router.host.ip,
            router.receivers.ip,
            router.sink.ip,
            *(port.address.ip for port in router.ports),
        )
    ]
    assert len(addresses) == len(set(addresses)) == 7 * 14 + 42
    assert len(set(plan.spaces)) == 28
    assert all(len(router.outside) <= 15 for router in plan.routers)  # IFNAMSIZ


def test_two_labs_share_neither_names_nor_what_the_collector_sees() -> None:
    """Labs of different slots have other namespaces and other management addresses."""
    one, other = plan_of(slot=0), plan_of(slot=1)
    assert not {*one.spaces} & {*other.spaces}
    seen = [
        {r.management.ip for r in plan.routers} | {r.gateway.ip for r in plan.routers}
        for plan in (one, other)
    ]
    assert not seen[0] & seen[1]


def test_both_ends_of_a_cable_agree() -> None:
    """The two ports of a cable name each other and are neighbours of one /31."""
    plan = plan_of()
    ports = {port.link: (router, port) for router in plan.routers for port in router.ports}
    assert len(ports) == 42
    for link, (router, port) in ports.items():
        there, far = ports[plan.back[link]]
        assert (port.peer, port.peer_port) == (there.space, far.name)
        assert (far.peer, far.peer_port) == (router.space, port.name)
        assert port.address.network == far.address.network
        assert port.address.ip != far.address.ip


def test_the_busiest_link_is_loaded_as_wished() -> None:
    """Capacities follow from the traffic: the busiest link stays at or below lab.utilisation."""
    plan = plan_of()
    paths = plan.network.paths
    load = np.bincount(paths.links, plan.traffic.bps[paths.hop_path], minlength=42)
    used = load / plan.network.capacity_bps
    assert 0.3 < used.max() <= LabSettings().utilisation + 1e-9


@pytest.mark.parametrize(
    ("away_s", "sent_s", "left_out_s"), [(0.001, 0.001, 0.0), (0.02, 0.02, 0.0), (0.15, 0.02, 0.13)]
)
def test_a_stall_makes_no_burst(away_s: float, sent_s: float, left_out_s: float) -> None:
    """What customers missed while the machine was busy is left out, but for as much as a queue bears."""
    assert due(away_s) == pytest.approx((sent_s, left_out_s))
    busiest_bps = LabSettings().utilisation * plan_of().network.capacity_bps
    queue_bits = plan_of().network.buffer_packets * plan_of().traffic.mean_packet_bits.max()
    assert (due(away_s)[0] * busiest_bps < queue_bits / 2).all()


def test_who_receives_has_a_higher_address_than_anybody_who_sends() -> None:
    """Else softflowd would tell half of the flows as ones that leave the network where they enter it."""
    routers = plan_of().routers
    assert max(router.host.ip for router in routers) < min(router.sink.ip for router in routers)


@pytest.mark.parametrize(
    ("topology", "words"),
    [("power-law:60", "60 routers: a lab in namespaces has 2 to 24"), ("nowhere", "no topology 'nowhere'")],
)
def test_what_makes_no_lab_is_refused(topology: str, words: str) -> None:
    """Too many routers, or none: one line that says what is valid."""
    with pytest.raises(TopologyError, match=words):
        plan_of(topology)


def test_a_name_that_makes_no_namespace_is_refused(tmp_path: Path) -> None:
    """Names of routers become names of namespaces and directories."""
    with pytest.raises(TopologyError, match=r"'a\.b' makes no name of a namespace"):
        plan_of(str(_two(tmp_path / "two.graphml", "a.b", "c")))


def _two(path: Path, *names: str) -> Path:
    ring(path, "AB")
    path.write_text(path.read_text().replace('"A"', f'"{names[0]}"').replace('"B"', f'"{names[1]}"'))
    return path


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("share", [1.0, 0.01])
def test_a_queue_holds_its_packets_and_a_full_frame(share: float) -> None:
    """The bucket holds one frame, the queue the buffer's packets, and the rate is the capacity's share."""
    plan = plan_of()
    port = plan.routers[0].ports[0]
    words = shape(port, plan, share).split()
    figures = dict(zip(words[4::2], words[5::2], strict=True))
    assert int(figures["burst"]) >= FRAME_OCTETS
    assert int(figures["limit"]) >= 64 * FRAME_OCTETS
    rate_bps = float(figures["rate"].removesuffix("bit"))
    assert rate_bps / (share * port.capacity_bps) == pytest.approx(514 / 500, rel=1e-3)


def test_files_say_what_the_plan_says(tmp_path: Path) -> None:
    """SNMP tells the queues' rates, OSPF runs on every cable with short timers, sshd serves NETCONF only."""
    plan = plan_of()
    router = plan.routers[0]
    place = Place(tmp_path, tmp_path / "key", tmp_path / "keys")
    access = SnmpAccess("community-x", "ndtwin", "auth-key-x", "privacy-key-x")
    snmpd = snmpd_conf(router, place, access, "writer-x")
    for port in router.ports:
        assert f"interface {port.name} 6 {port.capacity_bps:.0f}\n" in snmpd
    assert "rwcommunity writer-x 198.18.3.2 -V caches" in snmpd
    assert snmpd.count(f"exactEngineID 0x80007ed905{router.router_id.packed.hex()}\n") == 1
    ospf, ssh = frr_conf(router), sshd_conf(router, place, "SERVER --socket")
    assert ospf.count("ip ospf network point-to-point") == len(router.ports)
    assert "ForceCommand SERVER --socket\n" in ssh
    assert "PasswordAuthentication no\n" in ssh
    for text in (ospf, ssh):
        assert not any(
            secret in text for secret in ("community-x", "auth-key-x", "privacy-key-x", "writer-x")
        )


def test_who_cannot_run_it_is_told_in_one_line() -> None:
    """Without root, or without a package, the error says what to do."""
    with pytest.raises(UsageError, match="run it as root, or use ndtwin lab sim"):
        check_ready(user=1000)
    wanted = (("sh", "dash"), ("no-such-program", "package-a"), ("/usr/lib/*/no/such.so", "package-b"))
    with pytest.raises(UsageError, match=r"apt-get install package-a package-b$"):
        check_ready(user=0, wanted=wanted)


# ------------------------------------------------------------------------------------------------- live


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[bytes], Path]]]:
    """Starts labs of a ring of four and waits until they are ready; kills what a test leaves."""
    need_namespaces()
    topology = ring(tmp_path / "ring.graphml")
    with contextlib.ExitStack() as running:

        def start(name: str) -> tuple[subprocess.Popen[bytes], Path]:
            run_dir = tmp_path / name
            return running.enter_context(running_lab(topology, run_dir, START_S)), run_dir

        yield start


def slot_of(run_dir: Path) -> int:
    spaces = LabClient(run_dir).status()["spaces"]
    return int(spaces[0].removeprefix("ndtwin").partition("-")[0])


def processes_of(pattern: str) -> list[tuple[int, str]]:
    """(id, command line) of running processes whose command line contains a pattern."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if pattern in line:
                found.append((int(entry.name), line))
    return found


@pytest.mark.netns
@pytest.mark.alone
@pytest.mark.live
def test_faults_break_the_kernel_and_mend_it(
    started: Callable[[str], tuple[subprocess.Popen[bytes], Path]],
) -> None:
    """A lost capacity is the queue's rate, a link down is OSPF's way round, a silent agent stands still."""
    lab, run_dir = started("faults")
    client = LabClient(run_dir)
    space = f"ndtwin{slot_of(run_dir)}-A"

    def rate() -> str:
        return run("tc", "-n", space, "qdisc", "show", "dev", "eth1").split("rate ")[1].split()[0]

    before = rate()
    fault = client.start("link-capacity", "A->B", 0.5)
    assert rate() != before
    client.stop(fault.id)
    assert rate() == before

    def hops() -> str:
        """The next hop; empty while OSPF looks for one."""
        route = run("ip", "-n", space, "route", "get", "10.255.0.2", check=False)
        return route.partition("via ")[2].partition(" ")[0]

    direct = hops()
    fault = client.start("link-down", "A->B")
    wait(lambda: hops() not in ("", direct), 30)
    client.stop(fault.id)
    wait(lambda: hops() == direct, 30)

    def forced() -> str:
        return run("ip", "-n", space, "route", "show", "10.255.0.3/32", "metric", "1")

    fault = client.start("wrong-route", "A->C")
    assert "via" in forced()
    client.stop(fault.id)
    assert forced() == ""

    def snmpd_stands() -> bool:
        pid = next(pid for pid, line in processes_of(f"ndtwin{slot_of(run_dir)}/A/snmpd.conf"))
        return "State:\tT" in Path(f"/proc/{pid}/status").read_text()

    fault = client.start("silent-device", "A")
    wait(snmpd_stands, 10)  # a signal takes effect when its process is next looked at
    client.stop(fault.id)
    wait(lambda: not snmpd_stands(), 10)
    with pytest.raises(UsageError, match="unknown link"):
        client.start("link-down", "B->D")
    journal = (run_dir / "faults.jsonl").read_text().splitlines()
    assert len(journal) == 8
    lab.send_signal(signal.SIGTERM)
    assert lab.wait(60) == 0, (run_dir / "log").read_text()


@pytest.mark.netns
@pytest.mark.alone
@pytest.mark.live
def test_a_killed_lab_is_cleaned_by_the_next_and_strangers_are_left_alone(
    started: Callable[[str], tuple[subprocess.Popen[bytes], Path]],
) -> None:
    """After kill -9 the next start removes what was left, and nothing else."""
    stranger = f"ndtwint-{os.getpid()}"
    run("ip", "netns", "add", stranger)
    try:
        lab, run_dir = started("killed")
        slot = slot_of(run_dir)
        assert len(left_behind(slot)[0]) == 8
        lab.kill()
        lab.wait()
        assert len(left_behind(slot)[0]) == 8
        with held_slot():
            assert left_behind(slot) == ([], [])
            assert not state_directory(slot).exists()
            assert processes_of(f"/run/ndtwin{slot}/") == []
            with within(stranger):
                pass
        with pytest.raises(PeerError, match="no lab answers"):
            LabClient(run_dir).status()
    finally:
        run("ip", "netns", "del", stranger)


CHANGE = """<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0">
<interfaces xmlns="urn:ietf:params:xml:ns:yang:ietf-interfaces"><interface><name>eth1</name>
<type xmlns:t="urn:ietf:params:xml:ns:yang:iana-if-type">t:ethernetCsmacd</type></interface></interfaces>
</config>"""


def netconfd_tells_interfaces_and_changes(run_dir: Path) -> None:
    """Yuma123's netconfd: counters of all interfaces, and its configuration change as an event."""
    inventory = load_inventory(run_dir / "inventory.toml")
    pollers = [
        NetconfPoller.of(inventory, inventory.devices[0], timeout_s=30.0, clock=time.time_ns)
        for _ in range(2)
    ]
    try:
        first = pollers[0].read()
        assert [one.name for one in first.sample.interfaces] == ["cust0", "eth1", "eth2", "lo", "mgmt0"]
        assert all((one.in_octets or 0) > 0 for one in first.sample.interfaces if one.name != "lo")
        pollers[1].session.open()
        editor = pollers[1].session._manager
        assert editor.edit_config(target="candidate", config=CHANGE).ok
        assert editor.commit().ok
        events: list[NetworkEvent] = []

        def told() -> bool:
            events.extend(pollers[0].read().events)
            return bool(events)

        wait(told, 30)
        assert [(event.kind, event.device) for event in events] == [("configuration-changed", "A")]
    finally:
        for poller in pollers:
            poller.close()


@pytest.mark.netns
@pytest.mark.alone
@pytest.mark.live
def test_two_labs_run_beside_each_other_and_leave_nothing(
    started: Callable[[str], tuple[subprocess.Popen[bytes], Path]],
) -> None:
    """A second lab takes another slot, both serve, and both end without a trace."""
    labs = [started("one"), started("two")]
    slots = [slot_of(run_dir) for _, run_dir in labs]
    assert len({*slots}) == 2
    assert all(len(left_behind(slot)[0]) == 8 for slot in slots)
    netconfd_tells_interfaces_and_changes(labs[0][1])
    for lab, run_dir in labs:
        lab.send_signal(signal.SIGTERM)
        assert lab.wait(60) == 0, (run_dir / "log").read_text()
    for slot in slots:
        assert left_behind(slot) == ([], [])
        assert not state_directory(slot).exists()
        assert processes_of(f"/run/ndtwin{slot}/") == []


def test_addresses_lie_where_nobody_routes() -> None:
    """Management is in RFC 2544's block, everything else in private ones."""
    for router in plan_of().routers:
        assert router.management.ip in ip_network("198.18.0.0/15")
        for one in (router.router_id, router.customers.ip, *(port.address.ip for port in router.ports)):
            assert ip_address(str(one)).is_private
