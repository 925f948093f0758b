"""SNMPv3 against Debian's snmpd: every pair of protocols on both engines, and what goes wrong, told once."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
import structlog
from collector_peers import SECRETS, free_udp_port

from collectors.inventory import AuthProtocol, Engine, PrivacyProtocol, parse_inventory
from collectors.snmp import tables
from collectors.snmp.engine import SnmpEngine
from collectors.snmp.open import Shared, open_engine
from twin.errors import DeviceError

pytestmark = pytest.mark.live
ENGINES: tuple[Engine, ...] = ("gufo", "pysnmp")
AUTH: dict[AuthProtocol, str] = {
    "SHA": "SHA",
    "SHA224": "SHA-224",
    "SHA256": "SHA-256",
    "SHA384": "SHA-384",
    "SHA512": "SHA-512",
}
PRIVACY: dict[PrivacyProtocol, str] = {"AES": "AES", "AES192": "AES-192", "AES256": "AES-256"}
PAIRS = list(product(AUTH, PRIVACY))
SYS_NAME = "1.3.6.1.2.1.1.5.0"


def _user(auth: str, privacy: str) -> str:
    return f"u-{auth}-{privacy}"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]) -> Iterator[int]:
    """An snmpd with a user for every pair; gives the port."""
    directory, port = tmp_path_factory.mktemp("snmpd3"), free_udp_port()
    users = [(_user(auth, privacy), AUTH[auth], PRIVACY[privacy]) for auth, privacy in PAIRS]
    secrets = SECRETS["T_AUTH"], SECRETS["T_PRIVACY"]
    lines = [f"agentaddress udp:127.0.0.1:{port}"]
    for user, auth, privacy in users:
        lines += [f"createUser {user} {auth} {secrets[0]} {privacy} {secrets[1]}", f"rouser {user} authpriv"]
    lines += [f"createUser plain SHA-256 {secrets[0]}", "rouser plain auth", "sysName v3"]
    (directory / "snmpd.conf").write_text("\n".join(lines) + "\n")
    command = [need_tool("snmpd"), "-C", "-c", "snmpd.conf", "-f", "-Lf", "log", "-I", "-smux"]
    environment = {**os.environ, "SNMP_PERSISTENT_DIR": str(directory), "MIBS": ""}
    process = subprocess.Popen(command, env=environment, cwd=directory)
    try:
        _wait_until_up(directory / "log", process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_up(log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while not log.exists() or "NET-SNMP version" not in log.read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline, "snmpd did not start within 20 s"
        time.sleep(0.05)


Open = Callable[..., SnmpEngine]


@pytest.fixture
def open_as(agent: int, shared: Shared) -> Open:
    """An engine for a user of the agent."""

    def open_to(engine: Engine, user: str, keys: str) -> SnmpEngine:
        inventory = parse_inventory(
            f'network = "net"\n[credentials.c]\nversion = "3"\nuser = "{user}"\n{keys}\n'
            '[[devices]]\nname = "a"\naddress = "127.0.0.1"\n'
            f'snmp = {{ port = {agent}, credentials = "c", engine = "{engine}" }}\n'
        )
        return open_engine(inventory, inventory.devices[0], shared, timeout_s=2.0, retries=1)

    return open_to


def _keys(auth: str, privacy: str, auth_key: str = "T_AUTH", privacy_key: str = "T_PRIVACY") -> str:
    return (
        f'auth_protocol = "{auth}"\nauth_key = "env:{auth_key}"\n'
        f'privacy_protocol = "{privacy}"\nprivacy_key = "env:{privacy_key}"'
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("auth", "privacy"), PAIRS)
async def test_every_pair_of_protocols_is_spoken(
    open_as: Open, engine: Engine, auth: AuthProtocol, privacy: PrivacyProtocol
) -> None:
    """SHA-1 and the SHA-2 family, each with AES of 128, 192 and 256 bits: read and walked, authPriv."""
    opened = open_as(engine, _user(auth, privacy), _keys(auth, privacy))
    assert (await opened.get([SYS_NAME]))[SYS_NAME] == b"v3"
    assert len(await opened.walk("1.3.6.1.2.1.1")) > 5
    opened.close()


@pytest.mark.parametrize("engine", ENGINES)
async def test_authentication_without_privacy_is_spoken(open_as: Open, engine: Engine) -> None:
    """authNoPriv works where the device wants no more."""
    opened = open_as(engine, "plain", 'auth_protocol = "SHA256"\nauth_key = "env:T_AUTH"')
    assert (await opened.get([SYS_NAME]))[SYS_NAME] == b"v3"
    opened.close()


WRONG = {
    "user": ("nobody", _keys("SHA256", "AES")),
    "authentication key": (_user("SHA256", "AES"), _keys("SHA256", "AES", auth_key="T_WRONG")),
    "authentication protocol": (_user("SHA256", "AES"), _keys("SHA512", "AES")),
    "no privacy": (_user("SHA256", "AES"), 'auth_protocol = "SHA256"\nauth_key = "env:T_AUTH"'),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_refused_is_told_in_one_line_without_secrets(
    open_as: Open, engine: Engine, wrong: str
) -> None:
    """A wrong user, key, protocol or level is a DeviceError, not silence, and shows no secret."""
    opened = open_as(engine, *WRONG[wrong])
    with structlog.testing.capture_logs() as logs, pytest.raises(DeviceError) as refusal:
        await opened.get([tables.UPTIME])
    told = str(refusal.value)
    assert "\n" not in told
    assert not any(secret in told + str(logs) for secret in SECRETS.values())


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_wrong_privacy_key_is_no_success(open_as: Open, engine: Engine) -> None:
    """What the agent cannot decrypt it drops or reports: a DeviceError or silence, never a value."""
    opened = open_as(engine, _user("SHA256", "AES"), _keys("SHA256", "AES", privacy_key="T_WRONG"))
    with pytest.raises((DeviceError, TimeoutError)):
        await opened.get([tables.UPTIME])
