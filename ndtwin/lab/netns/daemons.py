"""A router's programs: the table of what runs in its namespace, with which files, in which order."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ndtwin.lab.netns import files
from ndtwin.lab.netns.files import FRR_USER
from ndtwin.lab.netns.plan import CUSTOMERS, FRAME_OCTETS, NETCONF_PORT, STAMP_PORT, Plan, Router
from ndtwin.lab.netns.spaces import state_directory
from ndtwin.lab.netns.tools import environment, program, run
from ndtwin.lab.snmp_agent import SnmpAccess
from ndtwin.processes import Child


@dataclass(frozen=True)
class Access:
    """What the programs need to know of secrets: those of SNMP, and files for SSH."""

    snmp: SnmpAccess
    snmp_writer: str
    host_keys: Mapping[str, Path]  # by router
    authorised_keys: Path


@dataclass(frozen=True)
class Site:
    """A router and where its files lie."""

    router: Router
    place: files.Place
    collector: str  # ADDRESS:PORT for flow records

    def at(self, name: str) -> str:
        """The path of one of its files."""
        return str(self.place / name)


Argv = Callable[[Site], list[str]]


def _snmpd(site: Site) -> list[str]:
    return ["snmpd", "-C", "-c", site.at("snmpd.conf"), "-f", "-Lo", "-I", "-smux"]


def _zebra(site: Site) -> list[str]:
    return ["zebra", *_frr(site, "zebra"), "-M", "zebra_snmp"]


def _ospfd(site: Site) -> list[str]:
    return ["ospfd", *_frr(site, "ospfd"), "-M", "ospfd_snmp"]


def _frr(site: Site, name: str) -> list[str]:
    own = ["-f", site.at("frr.conf"), "-z", site.at("zserv"), "-i", site.at(f"{name}.pid")]
    return [*own, "-u", FRR_USER, "-g", FRR_USER, "--vty_socket", str(site.place.state), "--log", "stdout"]


def _lldpd(site: Site) -> list[str]:
    own = ["-u", site.at("lldpd.sock"), "-O", site.at("lldpd.conf"), "-X", site.at("agentx")]
    return ["lldpd", "-d", *own, "-I", "eth*", "-C", "eth*"]


def _softflowd(site: Site) -> list[str]:
    own = ["-p", site.at("softflowd.pid"), "-c", site.at("softflowd.ctl")]
    # The kernel hands packets over by blocks of 256 KiB, which whole packets fill soonest. Headers alone took
    # the quietest router 7 to 12 s, so that its flows came after their window had closed; now it is 2 to 4 s.
    times = ["-t", "maxlife=1s", "-t", "expint=1s", "-C", str(FRAME_OCTETS)]
    where = ["-i", f"{_index(site.router)}:{CUSTOMERS}", "-n", site.collector, "-v", "10"]
    return ["softflowd", "-d", *own, *times, *where, files.flow_filter(site.router)]


def _index(router: Router) -> str:
    """The ifIndex of cust0."""
    shown = run("ip", "-n", router.space, "-o", "link", "show", "dev", CUSTOMERS)
    return shown.partition(":")[0]


def _netconfd(site: Site) -> list[str]:
    own = [f"--ncxserver-sockname={site.at('ncx.sock')}", "--no-startup", "--access-control=off"]
    return ["netconfd", "--module=ietf-interfaces", "--superuser=root", "--log-level=warn", *own]


def _sshd(site: Site) -> list[str]:
    return ["sshd", "-D", "-e", "-f", site.at("sshd.conf")]


PROGRAMS: Mapping[str, Argv] = {  # in the order of their start: subagents look for snmpd once
    "snmpd": _snmpd,
    "zebra": _zebra,
    "ospfd": _ospfd,
    "lldpd": _lldpd,
    "softflowd": _softflowd,
    "netconfd": _netconfd,
    "sshd": _sshd,
}
AGENTS = ("snmpd", "softflowd", "sshd", "netconfd")  # what a collector hears


def make_site(router: Router, plan: Plan, access: Access, ipfix_port: int) -> Site:
    """Write a router's files."""
    directory = state_directory(plan.slot) / router.name
    place = files.Place(directory, access.host_keys[router.name], access.authorised_keys)
    for name in ("", "bin", "snmp", "writer", "persist"):
        (directory / name).mkdir(mode=0o755)
    texts = {
        "snmpd.conf": files.snmpd_conf(router, place, access.snmp, access.snmp_writer),
        "writer/snmp.conf": files.writer_conf(access.snmp_writer),
        "snmp/frr.conf": files.agentx_conf(place),
        "frr.conf": files.frr_conf(router),
        "lldpd.conf": files.lldpd_conf(router),
        "sshd.conf": files.sshd_conf(router, place, _subsystem(place)),
        "bin/get-interface-ipv4": files.address_helper(),
    }
    for name, text in texts.items():
        _write(directory / name, text, secret=name in ("snmpd.conf", "writer/snmp.conf"))
    (directory / "bin/get-interface-ipv4").chmod(0o755)
    owner = pwd.getpwnam(FRR_USER)
    os.chown(directory, owner.pw_uid, owner.pw_gid)
    return Site(router, place, f"{plan.collector}:{ipfix_port}")


def _write(path: Path, text: str, *, secret: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _subsystem(place: files.Place) -> str:
    server = shutil.which("netconf-subsystem", path="/usr/sbin:/usr/bin") or "/usr/sbin/netconf-subsystem"
    return f"{server} --ncxserver-sockname={NETCONF_PORT}@{place / 'ncx.sock'}"


def keep_caches_short(site: Site) -> None:
    """Tell snmpd how long its tables may be old."""
    settings = [
        word
        for table, seconds in files.CACHE_S.items()
        for word in (f"{files.CACHES}.{table}", "i", str(seconds))
    ]
    env = environment(SNMPCONFPATH=site.at("writer"), MIBS="")
    run("snmpset", "-t", "2", "-r", "5", str(site.router.management.ip), *settings, env=env)


@dataclass
class Daemons:
    """Everything that runs for the lab besides itself."""

    logs: Path
    children: dict[tuple[str, str], Child] = field(default_factory=dict)  # (router, program)

    def start(self, site: Site, name: str) -> None:
        """Start one program of a router, inside its namespace.

        Call it on the main thread: children end with the thread that made them.
        """
        argv = PROGRAMS[name](site)
        inside = [program("ip"), "netns", "exec", site.router.space]
        env = {
            "PATH": f"{site.at('bin')}:{environment()['PATH']}",
            "MIBS": "",
            "SNMPCONFPATH": site.at("snmp"),
            "SNMP_PERSISTENT_DIR": site.at("persist"),
        }
        self._start(site.router.name, name, [*inside, program(argv[0]), *argv[1:]], env)

    def start_reflector(self, spaces: Sequence[str]) -> None:
        """STAMP reflectors of all routers in one process; all share this machine's clock."""
        argv = [sys.executable, "-m", "ndtwin", "stamp", "reflect", "--listen", f"0.0.0.0:{STAMP_PORT}"]
        argv += [word for space in spaces for word in ("--netns", space)]
        self._start("", "reflector", [*argv, "--clock", "synchronised"], {})

    def _start(self, router: str, name: str, argv: list[str], env: dict[str, str]) -> None:
        log = self.logs / f"{router}-{name}.log" if router else self.logs / f"{name}.log"
        child = Child(f"{router} {name}".strip(), argv, log, env)
        self.children[router, name] = child
        child.start()

    def check(self, now_s: float) -> list[str]:
        """Restart what died; a line for each that did."""
        return [line for child in self.children.values() if (line := child.check(now_s)) is not None]

    @property
    def restarts(self) -> int:
        """Of all programs."""
        return sum(child.restarts for child in self.children.values())

    def send_templates(self, sites: Sequence[Site]) -> None:
        """Have softflowd tell its template again: by itself it does so every 16 messages, after a minute."""
        for site in sites:
            with socket.socket(socket.AF_UNIX) as control, contextlib.suppress(OSError):  # restarting, silent
                control.settimeout(0.5)
                control.connect(site.at("softflowd.ctl"))
                control.sendall(b"send-template\n")
                while control.recv(4096):  # it would die of an answer that nobody hears
                    continue

    def pids(self, router: str, names: Sequence[str]) -> list[int]:
        """Process ids of some programs of a router."""
        return [pid for name in names if (pid := self.children[router, name].pid)]

    def stop(self) -> None:
        """Ask all to end; who does not is ended with the namespaces."""
        for child in self.children.values():
            child.ask_to_stop()
        for child in self.children.values():
            child.wait_stopped(2.0)
