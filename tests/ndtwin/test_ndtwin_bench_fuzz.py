"""The fuzzing bench: what is hostile is made again from the same seed, and whatever listens survives it."""

from __future__ import annotations

from random import Random

import pytest

from collectors.inventory import parse_inventory
from collectors.snmp.trap_receiver import MAX_ENGINES, TrapReceiver
from ndtwin import fuzz_snmp
from ndtwin.bench_fuzz import bench_fuzz
from ndtwin.fuzz_flows import flow_targets
from ndtwin.fuzz_netconf import netconf_targets
from ndtwin.fuzz_snmp import snmp_targets
from ndtwin.fuzz_stamp import stamp_targets
from ndtwin.fuzzing import MAX_OCTETS, Take, Target, fuzz, mutated


def test_the_same_seed_makes_the_same_messages() -> None:
    """A crash can be found again; and messages differ, in content and length."""
    seeds = [bytes(range(100)), b"short", b""]
    first, second = _some(7, seeds), _some(7, seeds)
    assert first == second != _some(8, seeds)
    assert len(set(first)) > 200
    assert len({len(message) for message in first}) > 50
    assert max(map(len, first)) <= MAX_OCTETS


def _some(seed: int, seeds: list[bytes]) -> list[bytes]:
    random = Random(seed)
    return [mutated(random, seeds) for _ in range(500)]


def test_good_messages_are_taken() -> None:
    """The seeds are what they are meant to be: a fresh listener takes each of them."""
    reflectors = [target for target in stamp_targets() if "reflector" in target.name]
    for target in [*flow_targets(), *netconf_targets(), *reflectors]:
        take = target.make()
        assert [take(seed) for seed in target.seeds] == [True] * len(target.seeds), target.name


def test_a_crash_is_counted_and_told_with_its_message() -> None:
    """What a taker raises is a crash; what it refuses is not."""

    def make() -> Take:
        def take(message: bytes) -> bool:
            if not message:
                raise ZeroDivisionError("nothing")
            return message[0] == 1

        return take

    counts = fuzz(Target("mine", [b"\x01"], make), 300, 1)
    assert counts.datagrams == 300
    assert 0 < counts.crashes < 100
    assert 0 < counts.taken < 300 - counts.crashes
    assert "ZeroDivisionError('nothing') at" in counts.first_crashes[0]


def test_everything_that_listens_survives_mutated_messages() -> None:
    """A few thousand for each target here, ten million where somebody waits for it: no crash, no growth."""
    figures = bench_fuzz(12_000, watch=lambda line: None)
    assert figures["crashes"] == 0, figures["targets"]
    assert figures["datagrams"] >= 11_000
    assert figures["peak_mb"] > 0
    assert figures["grown_mb"] < 40
    assert {"ipfix", "ipfix-tcp", "netflow9", "netflow5"} <= set(figures["targets"])
    assert all(row["taken"] > 0 for row in figures["targets"].values())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (  # a length of eight octets and more than 2^63
            "snmp-trap",
            "304602010004136b6e6f776e20746f207468652066757a7a6572a42c06082b0601040181fd594088c00002010201020201004301"
            "633011300f060a2b060102010202010107020107",
        ),
    ],
)
def test_what_was_found_once_stays_mended(target: str, message: str) -> None:
    """Messages that crashed a target in a long run are refused, and the next good one is taken."""
    (found,) = [t for t in snmp_targets() if t.name == target]
    take = found.make()
    assert [take(bytes.fromhex(message)), take(found.seeds[0])] == [False, True]


def test_ever_new_engine_ids_neither_grow_the_receiver_nor_silence_a_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keys are kept for a few engine ids of an address; whoever was driven out is heard again."""
    monkeypatch.setenv("NDTWIN_FUZZ_COMMUNITY", "any")
    receiver = TrapReceiver(parse_inventory(fuzz_snmp._INVENTORY).credentials.values())
    (target,) = snmp_targets()
    trap = target.seeds[3]
    assert trap.count(fuzz_snmp._ENGINE) == 2
    for i in [*range(40), 0, 1]:
        mine = trap.replace(fuzz_snmp._ENGINE, fuzz_snmp._ENGINE[:5] + b"%04d" % i)
        assert receiver.receive(mine, ("192.0.2.1", 162)).bindings
        assert receiver.receive(trap, ("192.0.2.2", 162)).bindings
    assert {address: len(known) for address, known in receiver._known.items()} == {
        "192.0.2.1": MAX_ENGINES,
        "192.0.2.2": 1,
    }
    (entry,) = receiver._engine.get_mib_builder().import_symbols("SNMP-USER-BASED-SM-MIB", "usmUserEntry")
    controller = receiver._engine.message_dispatcher.mib_instrum_controller
    rows, at = 0, ((*entry.name, 1), None)
    while True:
        (at,) = controller.read_next_variables(at, snmpEngine=receiver._engine)
        if at[0][: len(entry.name) + 1] != (*entry.name, 1):
            break
        rows += 1
    assert rows == MAX_ENGINES + 2  # and the user of our own engine id


def test_one_target_may_be_chosen() -> None:
    """For a closer look."""
    assert set(bench_fuzz(100, only=("netflow5",), watch=lambda line: None)["targets"]) == {"netflow5"}
