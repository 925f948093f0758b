"""The inventory file: what it gives, and that every mistake in it is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
from ipfix_bytes import EXAMPLE_TEMPLATE, message

from collectors.inventory import Inventory, annotations, load_inventory, parse_inventory
from collectors.listener import Share
from collectors.receive import plain_address
from collectors.service import flow_listener
from collectors.stats import CollectorStats
from twin.errors import InventoryError
from twin.records import LinkAnnotation, Record

GOOD = """
network = "nsfnet"
[credentials.lab]
version = "2c"
community = "env:T_COMMUNITY"
[credentials.lab-netconf]
username = "ndtwin"
password = "file:secrets/password"
[ipfix]
listen = "127.0.0.1:4739"
[[devices]]
name = "WA"
address = "127.20.0.1"
snmp = { port = 1161, credentials = "lab" }
netconf = { port = 8830, credentials = "lab-netconf" }
ipfix = true
[[devices]]
name = "CA1"
address = "127.20.0.2"
snmp = { credentials = "lab", engine = "pysnmp" }
[[links]]
source = "WA"
target = "CA1"
propagation_delay_s = 0.004
buffer_packets = 64
"""
THIRD = '[[devices]]\nname = "X"\naddress = "192.0.2.9"\nsnmp = { credentials = "other" }\n'
V3 = '[credentials.other]\nversion = "3"\nuser = "u"\n'

# (what is replaced in GOOD, by what, what the error must say)
MISTAKES = [
    ('network = "nsfnet"', "", "missing key `network`"),
    ('network = "nsfnet"', 'network = " "', "network: is empty"),
    ('network = "nsfnet"', 'network = "n"\nbase = "/"', "unknown key `base`"),
    ("[ipfix]", "[ipfx]", "unknown key `ipfx`"),
    ("community =", "comunity =", "credentials.lab: unknown key `comunity`"),
    ("env:T_COMMUNITY", "public", "credentials.lab.community: a secret is never written here"),
    ("env:T_COMMUNITY", "env:", "credentials.lab.community: a secret is never written here"),
    ('"env:T_COMMUNITY"', "7", "credentials.lab.community: a secret is a reference"),
    (
        'version = "2c"',
        'version = "4"',
        "credentials.lab.version: Invalid enum value '4': use '1', '2c', '3'",
    ),
    (
        "[[links]]",
        V3 + 'auth_protocol = "SHA1"\nauth_key = "env:T_AUTH"\n' + THIRD + "[[links]]",
        "credentials.other.auth_protocol: Invalid enum value 'SHA1': use 'MD5', 'SHA', 'SHA224'",
    ),
    ('community = "env:T_COMMUNITY"', "", "credentials.lab: version 2c needs community"),
    ('username = "ndtwin"', "", "credentials.lab-netconf: NETCONF needs username"),
    ('password = "file:secrets/password"', "", "NETCONF needs password or key_file"),
    ('address = "127.20.0.1"', 'addres = "127.20.0.1"', "devices[0] (WA): unknown key `addres`"),
    ('address = "127.20.0.1"', "", "devices[0] (WA): missing key `address`"),
    ("127.20.0.1", "127.20.0.300", "devices[0] (WA).address: '127.20.0.300' is not an IP address"),
    ("127.20.0.2", "127.20.0.1", "devices[1] (CA1).address: 127.20.0.1 is WA's already"),
    ("127.20.0.2", "::ffff:127.20.0.1", "devices[1] (CA1).address: 127.20.0.1 is WA's already"),
    ('name = "CA1"', 'name = "WA"', "devices[1] (WA).name: is taken by devices[0]"),
    ('name = "CA1"', 'name = ""', "devices[1].name: is empty"),
    ("port = 1161", "port = 0", "devices[0] (WA).snmp.port: 0 is no port"),
    ("port = 1161", "port = 65536", "devices[0] (WA).snmp.port: 65536 is no port"),
    ("port = 1161", 'port = "1161"', "devices[0] (WA).snmp.port: Expected `int`"),
    (
        '1161, credentials = "lab"',
        '1161, credentials = "x"',
        "credentials: no set 'x' (known: lab, lab-net",
    ),
    (
        'engine = "pysnmp"',
        'engine = "netsnmp"',
        "devices[1] (CA1).snmp.engine: Invalid enum value 'netsnmp': use 'gufo', 'pysnmp'",
    ),
    ('snmp = { port = 1161, credentials = "lab" }', "snmp = true", "(WA).snmp: expected a table, got `bool`"),
    ('snmp = { credentials = "lab", engine = "pysnmp" }', "", "has neither snmp, netconf, ipfix nor stamp"),
    ("127.0.0.1:4739", "localhost:4739", "ipfix.listen: 'localhost:4739' is not ADDRESS:PORT"),
    ("127.0.0.1:4739", "127.0.0.1", "ipfix.listen: '127.0.0.1' is not ADDRESS:PORT"),
    ("127.0.0.1:4739", "127.0.0.1:99999", "is not ADDRESS:PORT"),
    ('[ipfix]\nlisten = "127.0.0.1:4739"', "", "ipfix: WA exports, nothing listens"),
    ('target = "CA1"', 'target = "CA9"', "links[0] (WA->CA9).target: no device 'CA9'"),
    ('target = "CA1"', 'target = "WA"', "links[0] (WA->WA): joins a device to itself"),
    ("0.004", "-0.004", "links[0] (WA->CA1).propagation_delay_s: -0.004 is out of range"),
    ("0.004", "inf", "propagation_delay_s: inf is out of range"),
    ("buffer_packets = 64", "buffer_packets = 0", "buffer_packets: 0 is out of range"),
    ("buffer_packets = 64", "line_rate_bps = 0.5", "line_rate_bps: 0.5 is out of range"),
    (
        "buffer_packets = 64",
        "capacity_bps = 2e6\nline_rate_bps = 1e6",
        "line_rate_bps: is below capacity_bps: give the port's speed",
    ),
    ("[[links]]", '[[links]]\nsource="WA"\ntarget="CA1"\n[[links]]', "links[1] (WA->CA1): is written twice"),
    (
        "[[links]]",
        V3 + 'auth_key = "env:T_AUTH"\n' + THIRD + "[[links]]",
        "auth_protocol and auth_key go together",
    ),
    (
        "[[links]]",
        V3.replace('user = "u"', "") + THIRD + "[[links]]",
        "credentials.other: version 3 needs user",
    ),
    (
        "[[links]]",
        V3 + 'privacy_protocol = "AES"\nprivacy_key = "env:T_PRIVACY"\n' + THIRD + "[[links]]",
        "privacy needs authentication",
    ),
    ("[[devices]]", "[devices]", "not TOML"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_every_mistake_is_one_line_that_names_the_place(old: str, new: str, message: str) -> None:
    """A wrong inventory is refused with one line that says where and what."""
    assert old in GOOD
    with pytest.raises(InventoryError) as caught:
        parse_inventory(GOOD.replace(old, new, 1), origin="inv.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("inv.toml: ")
    assert "\n" not in str(caught.value)


def test_a_good_inventory_is_read() -> None:
    """Defaults are filled in, and a device's engine is its own or the file's."""
    inventory = parse_inventory('engine = "gufo"' + GOOD)
    wa, ca1 = inventory.devices
    assert (inventory.engine_of(wa), inventory.engine_of(ca1)) == ("gufo", "pysnmp")
    assert ca1.snmp is not None
    assert ca1.snmp.port == 161
    assert inventory.ipfix is not None
    assert inventory.ipfix.endpoint == ("127.0.0.1", 4739)


def test_annotations_are_the_links_of_the_file() -> None:
    """The links become the record that the stream reads, with the time that was given."""
    record = annotations(parse_inventory(GOOD), 7)
    assert (record.network, record.observed_at_ns) == ("nsfnet", 7)
    assert record.links == (
        LinkAnnotation(source="WA", target="CA1", propagation_delay_s=0.004, buffer_packets=64),
    )


def _load(tmp_path: Path) -> Inventory:
    path = tmp_path / "inventory.toml"
    path.write_text(GOOD)
    return load_inventory(path)


def test_secrets_are_read_late_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is what its source says at the moment of use, and no repr contains it."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/password").write_text("hunter-2\n")
    monkeypatch.setenv("T_COMMUNITY", "first-value")
    inventory = _load(tmp_path)
    monkeypatch.setenv("T_COMMUNITY", "second-value")
    community, password = (
        inventory.credentials["lab"].community,
        inventory.credentials["lab-netconf"].password,
    )
    assert community is not None
    assert password is not None
    assert (community.reveal(), password.reveal()) == ("second-value", "hunter-2")
    shown = repr(inventory) + repr(community) + str(password)
    assert not any(secret in shown for secret in ("first-value", "second-value", "hunter-2"))


def test_a_missing_secret_is_told_when_the_file_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts the collectors learns of a missing secret before the first poll."""
    with pytest.raises(InventoryError, match=r"lab-netconf: secret file secrets/password cannot be read"):
        _load(tmp_path)
    monkeypatch.delenv("T_COMMUNITY")
    with pytest.raises(InventoryError, match=r"lab: environment variable T_COMMUNITY is not set"):
        _load(tmp_path)


def test_an_empty_secret_is_told_when_the_file_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty key would panic the fast engine; whoever exports nothing is told before the first poll."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/password").write_text(" \n")
    monkeypatch.setenv("T_COMMUNITY", "public")
    with pytest.raises(InventoryError, match=r"lab-netconf: secret file secrets/password is empty: write"):
        _load(tmp_path)
    monkeypatch.setenv("T_COMMUNITY", "")
    with pytest.raises(InventoryError, match=r"lab: environment variable T_COMMUNITY is empty: write"):
        _load(tmp_path)


def test_a_missing_ssh_key_is_told_when_the_file_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at every poll, as trouble with the device's NETCONF server."""
    monkeypatch.setenv("T_COMMUNITY", "public")
    path = tmp_path / "inventory.toml"
    path.write_text(GOOD.replace('password = "file:secrets/password"', 'key_file = "id_ndtwin"'))
    with pytest.raises(InventoryError, match=r"lab-netconf: key_file id_ndtwin cannot be read \(No such"):
        load_inventory(path)
    (tmp_path / "id_ndtwin").write_text("a key")
    load_inventory(path)


def test_an_exporter_is_known_however_its_address_is_written() -> None:
    """The address is held in the form in which the kernel tells senders."""
    for written in ("2001:DB8::1", "2001:0db8:0::0001"):
        assert parse_inventory(GOOD.replace("127.20.0.1", written)).devices[0].address == "2001:db8::1"
    link_local = parse_inventory(GOOD.replace("127.20.0.1", "fe80::1%eth0"))
    assert link_local.devices[0].address == "fe80::1%eth0"  # without its zone nobody could poll it
    stats, told = CollectorStats(), list[Record]()
    listener = flow_listener(link_local, told.append, stats, Share(), bin_s=5.0)
    assert listener.receive(message(EXAMPLE_TEMPLATE), (plain_address("fe80::1%eth0"), 4739))
    assert (stats.unknown_datagrams, told) == (0, [])


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """A path that leads nowhere is told with its reason."""
    with pytest.raises(InventoryError, match=r"nowhere\.toml: cannot be read \(No such file"):
        load_inventory(tmp_path / "nowhere.toml")
