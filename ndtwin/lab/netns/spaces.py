"""Network namespaces: made, joined, shaped, and removed without a trace.

A slot is held by a socket with an abstract name (unix(7)): the kernel lets go of it when its process ends,
however it ends, and no file is left. A slot that nobody holds but of which namespaces exist belonged to a lab
that was killed: whoever comes next cleans it. Only names that begin with a slot's prefix are ever touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from collectors.stamp.sockets import within
from ndtwin.lab.netns.plan import (
    CUSTOMERS,
    FRAME_OCTETS,
    MANAGEMENT,
    MTU,
    PREFIX,
    SIZES,
    SLOTS,
    Plan,
    Port,
    Router,
    space_prefix,
)
from ndtwin.lab.netns.tools import batch, run
from twin.errors import UsageError

HEADER_OCTETS = 14  # that tc counts and the records do not
ROUNDING = 16  # a bucket is kept as a time: it must hold a full frame at any rate
MEAN_FRAME = SIZES.mean_bits / 8 + HEADER_OCTETS
_SYSTEM = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}
_GONE_S = 10.0
SSHD_DIRECTORY = Path("/run/sshd")  # sshd wants it for the separation of privileges


def state_directory(slot: int) -> Path:
    """Sockets and process ids of a slot's programs; short, for unix sockets have short names."""
    return Path(f"/run/{PREFIX}{slot}")


@contextlib.contextmanager
def held_slot() -> Iterator[int]:
    """A slot of our own, clean at the beginning and at the end; what dead labs left is cleaned on the way."""
    mine: tuple[int, socket.socket] | None = None
    for slot in range(SLOTS):
        lock = _hold(slot)
        if lock is None:
            continue
        clean(slot)
        if mine is None:
            mine = slot, lock
        else:
            lock.close()
    if mine is None:
        raise UsageError(f"{SLOTS} labs run on this machine already: stop one")
    with contextlib.closing(mine[1]):
        try:
            yield mine[0]
        finally:
            clean(mine[0])


def _hold(slot: int) -> socket.socket | None:
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind(f"\0{PREFIX}-netns-{slot}")
    except OSError:
        lock.close()
        return None
    return lock


# ------------------------------------------------------------------------------------------- removing


def left_behind(slot: int) -> tuple[list[str], list[str]]:
    """(namespaces, interfaces of our own namespace) that bear a slot's names."""
    known = Path("/run/netns")
    spaces = [path.name for path in known.iterdir()] if known.exists() else []
    links = [name for _, name in socket.if_nameindex()]
    return (
        sorted(name for name in spaces if name.startswith(space_prefix(slot))),
        sorted(name for name in links if name.startswith(f"{PREFIX}{slot}m")),
    )


def clean(slot: int) -> None:
    """End what runs in a slot's namespaces, remove them, their cables and their files."""
    spaces, links = left_behind(slot)
    if spaces:
        _end_inside(spaces)
    for name in links:
        run("ip", "link", "del", name, check=False)  # goes by itself when its other end goes
    for name in spaces:
        run("ip", "netns", "del", name)
    directory = state_directory(slot)
    if (directory / SSHD_DIRECTORY.name).exists():
        with contextlib.suppress(OSError):  # an sshd of the machine's own has come to use it
            SSHD_DIRECTORY.rmdir()
    shutil.rmtree(directory, ignore_errors=True)


def _end_inside(spaces: list[str]) -> None:
    """SIGKILL, until nobody is there. A process that only opens a socket there is gone at the second look."""
    deadline_s = time.monotonic() + _GONE_S
    before = _inside(spaces)
    while before and time.monotonic() < deadline_s:
        time.sleep(0.05)
        for pid in before & _inside(spaces):
            with contextlib.suppress(ProcessLookupError):  # ended by itself
                os.kill(pid, signal.SIGKILL)
        before = _inside(spaces)


def _inside(spaces: list[str]) -> set[int]:
    """Processes whose network namespace is one of these."""
    wanted = set()
    for name in spaces:
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(f"/run/netns/{name}")
            wanted.add((found.st_dev, found.st_ino))
    inside = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # ended meanwhile
                found = os.stat(f"/proc/{entry.name}/ns/net")
                if (found.st_dev, found.st_ino) in wanted:
                    inside.add(int(entry.name))
    return inside


# --------------------------------------------------------------------------------------------- making


def build(plan: Plan) -> None:
    """Namespaces, cables, addresses, queues."""
    directory = state_directory(plan.slot)
    directory.mkdir(mode=0o755)
    if not SSHD_DIRECTORY.exists():
        SSHD_DIRECTORY.mkdir(mode=0o755)
        (directory / SSHD_DIRECTORY.name).touch()
    batch("ip", "", [f"netns add {space}" for space in plan.spaces])
    for space in plan.spaces:
        _set_system(space)
    batch("ip", "", [line for router in plan.routers for line in _cables(router, plan)])
    for router in plan.routers:
        batch("ip", "", [f"addr add {router.gateway} dev {router.outside}", f"link set {router.outside} up"])
        batch("ip", router.space, _router_lines(router, plan))
        batch("ip", router.host_space, _host_lines(router))
        batch("tc", router.space, [f"qdisc add {shape(port, plan)}" for port in router.ports])


def _set_system(space: str) -> None:
    with within(space):
        for name, value in _SYSTEM.items():
            file = Path("/proc/sys") / name
            if file.exists():  # a kernel may lack IPv6
                file.write_text(value)


def _cables(router: Router, plan: Plan) -> list[str]:
    lines = [
        f"link add {router.outside} type veth peer name {MANAGEMENT} netns {router.space}",
        f"link add host0 netns {router.host_space} type veth peer name {CUSTOMERS} netns {router.space}",
    ]
    for port in router.ports:
        if port.link < plan.back[port.link]:
            there = f"name {port.peer_port} netns {port.peer}"
            lines.append(f"link add {port.name} netns {router.space} type veth peer {there}")
    return lines


def _router_lines(router: Router, plan: Plan) -> list[str]:
    lines = ["link set lo up", f"addr add {router.router_id}/32 dev lo"]
    lines += [f"addr add {router.management} dev {MANAGEMENT}", f"link set {MANAGEMENT} up"]
    lines += [f"addr add {one} dev {CUSTOMERS}" for one in (router.customers, router.receivers)]
    lines.append(f"link set {CUSTOMERS} mtu {MTU} up")
    for port in router.ports:
        lines.append(f"addr add {port.address} dev {port.name}")
        # One packet at a time: a queue counts frames, not what the sender would have cut up later.
        lines.append(f"link set {port.name} mtu {MTU} gso_max_segs 1 up")
    if str(router.gateway.ip) != plan.collector:
        lines.append(f"route add {plan.collector}/32 via {router.gateway.ip}")
    return lines


def _host_lines(router: Router) -> list[str]:
    return [
        "link set lo up",
        f"addr add {router.host} dev host0",
        f"addr add {router.sink} dev host0",
        f"link set host0 mtu {MTU} gso_max_segs 1 up",
        f"route add default via {router.customers.ip}",
    ]


def shape(port: Port, plan: Plan, share: float = 1.0) -> str:
    """A link's rate and queue, as ``tc`` reads it.

    tc counts Ethernet's header and the records do not: the rate is what gives the mean packet its capacity.
    """
    rate_bps = share * port.capacity_bps * MEAN_FRAME / (MEAN_FRAME - HEADER_OCTETS)
    limit = round(plan.network.links[port.link].buffer_packets * MEAN_FRAME) + FRAME_OCTETS
    return f"dev {port.name} root tbf rate {rate_bps:.0f}bit burst {FRAME_OCTETS + ROUNDING} limit {limit}"
