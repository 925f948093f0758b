"""The inventory: one TOML file that names the devices, how to reach them, and what they cannot tell.

Rules
-----
- Unknown keys are refused: a misspelt ``comunity`` must not become a silent default.
- A secret is never written in the file. Its value is a reference, ``env:NAME`` or ``file:PATH`` (relative to
  the inventory), resolved each time it is used, and never shown: not in a log, not in ``repr``.
- Every error is one line: the file, the place in it, what is wrong, what to do.
"""

import ipaddress
import os
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from collectors.flows.settings import FlowDirection, FlowTable, check_flow_table
from collectors.snmp.trap_table import TrapTable, check_trap_table
from collectors.stamp.tables import (
    ProbeTable,
    StampAccess,
    check_probes,
    check_rates,
    check_reflectors,
    probes_of,
)
from collectors.toml_tables import TableReader
from twin.errors import InventoryError
from twin.records import LinkAnnotation, LinkAnnotations

AuthProtocol = Literal["MD5", "SHA", "SHA224", "SHA256", "SHA384", "SHA512"]
PrivacyProtocol = Literal["DES", "AES", "AES192", "AES256"]
Engine = Literal["gufo", "pysnmp"]
_SECRET_KINDS = ("env:", "file:")


class Secret:
    """A reference to a secret. ``reveal`` reads it at the moment of use; nothing keeps the value."""

    __slots__ = ("_base", "reference")

    def __init__(self, reference: str, base: Path = Path()) -> None:
        if not reference.startswith(_SECRET_KINDS) or not reference.partition(":")[2]:
            raise ValueError("a secret is never written here: use env:NAME or file:PATH")
        self.reference = reference
        self._base = base

    def reveal(self) -> str:
        """The secret itself; InventoryError says which variable or file is missing."""
        kind, _, where = self.reference.partition(":")
        if kind == "env":
            value = os.environ.get(where)
            if value is None:
                raise InventoryError(f"environment variable {where} is not set: export it before you start")
            return _not_empty(value, f"environment variable {where}")
        try:
            return _not_empty((self._base / where).read_text().strip(), f"secret file {where}")
        except (OSError, UnicodeDecodeError) as error:
            raise InventoryError(
                f"secret file {where} cannot be read ({_reason(error)}): create it or change the path"
            ) from error

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"


def _not_empty(value: str, what: str) -> str:
    """An empty key makes no key, and an empty community is a mistake rather than a community."""
    if not value:
        raise InventoryError(f"{what} is empty: write the secret into it")
    return value


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table in the file."""


class Credentials(_Table, frozen=True):
    """One credential set, for SNMP (version, community or user and keys) or NETCONF (username, …)."""

    version: Literal["1", "2c", "3"] = "2c"
    community: Secret | None = None
    user: str = ""
    auth_protocol: AuthProtocol | None = None
    auth_key: Secret | None = None
    privacy_protocol: PrivacyProtocol | None = None
    privacy_key: Secret | None = None
    username: str = ""
    password: Secret | None = None
    key_file: str = ""  # SSH private key
    host_key_file: str = ""  # known_hosts; empty: ~/.ssh/known_hosts

    def secrets(self) -> tuple[Secret, ...]:
        """Every secret this set refers to."""
        found = (self.community, self.auth_key, self.privacy_key, self.password)
        return tuple(secret for secret in found if secret is not None)


class SnmpAccess(_Table, frozen=True):
    """How a device is reached by SNMP."""

    credentials: str
    port: int = 161
    engine: Engine | None = None  # None: the inventory's ``engine``
    traps: str = ""  # the credential set of its traps and informs; empty: the same
    sys_name: str = ""  # who is to answer; empty: who did at first, unless its name is another device's

    @property
    def sets(self) -> dict[str, str]:
        """Key → credential set."""
        return {"credentials": self.credentials} | ({"traps": self.traps} if self.traps else {})


class NetconfAccess(_Table, frozen=True):
    """How a device is reached by NETCONF over SSH (RFC 6242)."""

    credentials: str
    port: int = 830
    notifications: bool = True  # RFC 5277, where the device has them: its configuration changes are events

    @property
    def sets(self) -> dict[str, str]:
        """Key → credential set."""
        return {"credentials": self.credentials}


class Device(_Table, frozen=True):
    """One device. At least one of snmp, netconf, ipfix and stamp, or it tells us nothing."""

    name: str
    address: str
    snmp: SnmpAccess | None = None
    netconf: NetconfAccess | None = None
    ipfix: bool = False  # it exports IPFIX or NetFlow from ``address``
    flow_direction: FlowDirection | None = None  # "ignore": all its records are traffic that enters
    stamp: StampAccess | None = None  # it reflects STAMP probes


class InventoryLink(_Table, frozen=True):
    """What no device tells about one directed link."""

    source: str
    target: str
    source_interface: str = ""
    propagation_delay_s: float | None = None
    buffer_packets: int | None = None
    capacity_bps: float | None = None
    line_rate_bps: float | None = None


class Inventory(_Table, frozen=True):
    """The whole file."""

    network: str
    devices: tuple[Device, ...]
    credentials: dict[str, Credentials] = {}
    engine: Engine = "gufo"
    ipfix: FlowTable | None = None
    traps: TrapTable | None = None
    links: tuple[InventoryLink, ...] = ()
    probes: tuple[ProbeTable, ...] = ()
    base: Path = Path()  # where relative paths start: the directory of the file

    def engine_of(self, device: Device) -> Engine:
        """The SNMP engine a device is polled with."""
        return (device.snmp and device.snmp.engine) or self.engine

    def path(self, name: str) -> Path:
        """A path as the file means it: relative to the file, ``~`` expanded."""
        return self.base / Path(name).expanduser()


def load_inventory(path: Path) -> Inventory:
    """Read and check an inventory, secrets included; InventoryError is one line that says what to do."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InventoryError(
            f"{path}: cannot be read ({_reason(error)}): give the path of an inventory"
        ) from error
    inventory = parse_inventory(text, origin=str(path), base=path.parent)
    check_secrets(inventory, origin=str(path))
    return inventory


def parse_inventory(text: str, *, origin: str = "inventory", base: Path = Path()) -> Inventory:
    """Text → checked inventory. Secrets stay unresolved."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InventoryError(f"{origin}: not TOML: {error}") from error
    read = TableReader(origin, _hook_in(base))
    if "base" in raw:
        raise read.error("", "Object contains unknown field `base`")
    sections: dict[str, Any] = {
        **raw,
        "credentials": {
            name: read.table(table, Credentials, f"credentials.{name}")
            for name, table in read.mapping(raw.get("credentials", {}), "credentials").items()
        },
        "devices": read.rows(raw.get("devices", []), Device, "devices", _device_label),
        "links": read.rows(raw.get("links", []), InventoryLink, "links", _link_label),
        "probes": read.rows(raw.get("probes", []), ProbeTable, "probes", _link_label),
    }
    inventory = msgspec.structs.replace(read.table(sections, Inventory, ""), base=base)
    inventory = msgspec.structs.replace(inventory, devices=tuple(map(_plainly_addressed, inventory.devices)))
    for check in _CHECKS:
        for place, problem in check(inventory):
            raise InventoryError(f"{origin}: {place}: {problem}")
    return inventory


def _plainly_addressed(device: Device) -> Device:
    """IPv6 has many ways to write an address: the one in which senders of datagrams are told."""
    if not _is_address(device.address):
        return device  # the checks say so
    address = ipaddress.ip_address(device.address)
    plain = (address.version == 6 and address.ipv4_mapped) or address
    return msgspec.structs.replace(device, address=str(plain))


def check_secrets(inventory: Inventory, *, origin: str = "inventory") -> None:
    """Every secret that a device needs can be read now; the values are not kept."""
    accesses = [access for device in inventory.devices for access in _accesses(device)]
    needed = {name for access in accesses for name in access.sets.values()}
    for name in sorted(needed | {probe.credentials for probe in probes_of(inventory) if probe.credentials}):
        credentials = inventory.credentials[name]
        try:
            for secret in credentials.secrets():
                secret.reveal()
            _check_key_file(inventory, credentials)
        except InventoryError as error:
            raise InventoryError(f"{origin}: credentials.{name}: {error}") from error


def _check_key_file(inventory: Inventory, credentials: Credentials) -> None:
    if credentials.key_file:
        try:
            inventory.path(credentials.key_file).open("rb").close()
        except OSError as error:
            raise InventoryError(
                f"key_file {credentials.key_file} cannot be read ({_reason(error)}): "
                "create it or change the path"
            ) from error


def annotations(inventory: Inventory, observed_at_ns: int) -> LinkAnnotations:
    """The inventory's links as the record that the stream reads."""
    return LinkAnnotations(
        network=inventory.network,
        observed_at_ns=observed_at_ns,
        links=tuple(LinkAnnotation(**msgspec.structs.asdict(link)) for link in inventory.links),
    )


# ------------------------------------------------------------------------------------- reading the tables


def _hook_in(base: Path) -> Callable[[type, object], object]:
    """Paths, and references to secrets, as they stand in a file of this directory."""

    def hook(kind: type, value: object) -> object:
        if kind is Path:
            return Path(str(value))
        if kind is not Secret:
            raise NotImplementedError(kind)
        if not isinstance(value, str):
            raise ValueError("a secret is a reference: use env:NAME or file:PATH")
        return Secret(value, base)

    return hook


def _device_label(raw: object) -> str:
    name = raw.get("name") if isinstance(raw, dict) else None
    return f" ({name})" if isinstance(name, str) else ""


def _link_label(raw: object) -> str:
    if not isinstance(raw, dict):
        return ""
    return f" ({raw.get('source', '?')}->{raw.get('target', '?')})"


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "not UTF-8 text"


# ------------------------------------------------------------------------------------------- the checks

Problems = Iterable[tuple[str, str]]  # (place, what is wrong and what to do)


def _accesses(device: Device) -> tuple[SnmpAccess | NetconfAccess, ...]:
    return tuple(access for access in (device.snmp, device.netconf) if access is not None)


def _check_network(inventory: Inventory) -> Problems:
    if not inventory.network.strip():
        yield "network", "is empty: give the network a name"
    if not inventory.devices:
        yield "devices", "is empty: add at least one [[devices]] table"


def _check_devices(inventory: Inventory) -> Problems:
    names: dict[str, int] = {}
    addresses: dict[str, str] = {}
    for i, device in enumerate(inventory.devices):
        place = f"devices[{i}] ({device.name})"
        if not device.name.strip():
            yield f"devices[{i}].name", "is empty: give the device its host name"
        if device.name in names:
            yield f"{place}.name", f"is taken by devices[{names[device.name]}]: names are unique, rename one"
        if not _is_address(device.address):
            yield f"{place}.address", f"{device.address!r} is not an IP address: write one such as 192.0.2.1"
        if device.address in addresses:
            yield (
                f"{place}.address",
                f"{device.address} is {addresses[device.address]}'s already: change one",
            )
        if not (_accesses(device) or device.ipfix or device.stamp):
            yield place, "has neither snmp, netconf, ipfix nor stamp: give it at least one"
        if device.flow_direction and not device.ipfix:
            yield f"{place}.flow_direction", "says how to read flow export: add ipfix = true, or remove it"
        names[device.name] = i
        addresses[device.address] = device.name


def _check_access(inventory: Inventory) -> Problems:
    for i, device in enumerate(inventory.devices):
        for access in _accesses(device):
            protocol = "snmp" if isinstance(access, SnmpAccess) else "netconf"
            place = f"devices[{i}] ({device.name}).{protocol}"
            if not 1 <= access.port <= 65535:
                yield f"{place}.port", f"{access.port} is no port: use 1 to 65535"
            for key, name in access.sets.items():
                yield from _check_set(inventory, place, key, name, needed_by=f"{device.name}.{protocol}")


def _check_set(inventory: Inventory, place: str, key: str, name: str, needed_by: str) -> Problems:
    credentials = inventory.credentials.get(name)
    if credentials is None:
        known = ", ".join(sorted(inventory.credentials)) or "none"
        yield f"{place}.{key}", f"no set {name!r} (known: {known}): add it"
    elif problem := _LACKS[needed_by.rpartition(".")[2]](credentials):
        yield f"credentials.{name}", f"{problem} (needed by {needed_by})"


def _snmp_lacks(credentials: Credentials) -> str:
    if credentials.version != "3":
        return "" if credentials.community else f'version {credentials.version} needs community = "env:NAME"'
    if not credentials.user:
        return "version 3 needs user"
    for what in ("auth", "privacy"):
        protocol = getattr(credentials, f"{what}_protocol")
        if (protocol is None) != (getattr(credentials, f"{what}_key") is None):
            return f"{what}_protocol and {what}_key go together: give both or neither"
    if credentials.privacy_protocol and not credentials.auth_protocol:
        return "privacy needs authentication (RFC 3414): give auth_protocol and auth_key"
    return ""


def _netconf_lacks(credentials: Credentials) -> str:
    if not credentials.username:
        return "NETCONF needs username"
    return "" if credentials.password or credentials.key_file else "NETCONF needs password or key_file"


_LACKS: dict[str, Callable[[Credentials], str]] = {"snmp": _snmp_lacks, "netconf": _netconf_lacks}


def _check_listener(inventory: Inventory) -> Problems:
    return check_flow_table(inventory.ipfix, [device.name for device in inventory.devices if device.ipfix])


_LEAST_OF_LINK = {
    "propagation_delay_s": 0.0,
    "buffer_packets": 1,
    "capacity_bps": 1.0,
    "line_rate_bps": 1.0,
}


def _check_links(inventory: Inventory) -> Problems:
    names = {device.name for device in inventory.devices}
    seen: set[tuple[str, str, str]] = set()
    for i, link in enumerate(inventory.links):
        place = f"links[{i}] ({link.source}->{link.target})"
        for end in ("source", "target"):
            if getattr(link, end) not in names:
                yield f"{place}.{end}", f"no device {getattr(link, end)!r}: correct it or add the device"
        if link.source == link.target:
            yield place, "joins a device to itself: correct source or target"
        key = (link.source, link.target, link.source_interface)
        if key in seen:
            yield place, "is written twice: remove one, or tell parallel links apart by source_interface"
        seen.add(key)
        for name, lowest in _LEAST_OF_LINK.items():
            value = getattr(link, name)
            if value is not None and not lowest <= value < float("inf"):
                yield f"{place}.{name}", f"{value} is out of range: use at least {lowest:g}"
        if link.line_rate_bps is not None and link.line_rate_bps < (link.capacity_bps or 0.0):
            yield f"{place}.line_rate_bps", "is below capacity_bps: give the port's speed, or remove it"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_CHECKS: tuple[Callable[[Inventory], Problems], ...] = (
    _check_network,
    _check_devices,
    _check_access,
    _check_listener,
    lambda inventory: check_trap_table(inventory.traps),
    _check_links,
    check_reflectors,
    check_probes,
    check_rates,
)
