"""Hostile bytes by the million: good messages, mutated, into whatever takes messages from outside.

A *target* says what good messages look like and makes a taker: a function that takes one message's bytes and
says whether it could make something of them. A taker may refuse, by its own rules; whatever it raises is a
crash. Its state lives for the whole run, so that what one message leaves behind meets the next.

Mutations are those that find faults in decoders of binary and text formats: single bits and octets, the
numbers at which lengths and counts go wrong, what is cut short, repeated, appended or crossed with another
message. One in twenty is left whole, so that state is built up. The same seed gives the same messages.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

Take = Callable[[bytes], bool]
MAX_OCTETS = 65_535  # a datagram's most; longer streams have limits of their own
_KEPT_CRASHES = 3
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True)
class Target:
    """One thing that takes bytes from outside."""

    name: str
    seeds: Sequence[bytes]  # good messages
    make: Callable[[], Take]  # a taker with nothing behind it


@dataclass
class Counts:
    """What became of a target's messages."""

    datagrams: int = 0
    taken: int = 0  # by chance still good
    crashes: int = 0
    first_crashes: list[str] = field(default_factory=list)  # the last line of each, and the message in hex


def fuzz(
    target: Target, datagrams: int, seed: int, *, each: Callable[[int], None] = lambda done: None
) -> Counts:
    """Mutated messages into a fresh taker."""
    random, counts, take = Random(f"{seed}/{target.name}"), Counts(), target.make()
    for done in range(datagrams):
        message = mutated(random, target.seeds)
        counts.datagrams += 1
        try:
            counts.taken += take(message)
        except Exception as error:
            counts.crashes += 1
            if len(counts.first_crashes) < _KEPT_CRASHES:
                where = traceback.extract_tb(error.__traceback__)[-1]
                counts.first_crashes.append(
                    f"{error!r} at {where.filename}:{where.lineno} by {message.hex()}"
                )
        each(done)
    return counts


def mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One message, changed in one to four ways, or in one case of twenty not at all."""
    message = bytearray(random.choice(seeds))
    if random.random() < 0.05:
        return bytes(message)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        random.choice(_MUTATIONS)(random, message, seeds)
    return bytes(message[:MAX_OCTETS])


Mutation = Callable[[Random, bytearray, Sequence[bytes]], None]


def _bit(random: Random, message: bytearray, seeds: Sequence[bytes]) -> None:
    if message:
        message[random.randrange(len(message))] ^= 1 << random.randrange(8)


def _octet(random: Random, message: bytearray, seeds: Sequence[bytes]) -> None:
    if message:
        message[random.randrange(len(message))] = random.randrange(256)


def _edge(random: Random, message: bytearray, seeds: Sequence[bytes]) -> None:
    """A number at which something may go wrong, of one, two or four octets, near the head or anywhere."""
    size = random.choice((1, 2, 4))
    last = len(message) - size
    if last >= 0:
        at = random.randrange(min(last, 40) + 1 if random.random() < 0.5 else last + 1)
        message[at : at + size] = (random.choice(_EDGES) % (1 << 8 * size)).to_bytes(size, "big")


def _cut(random: Random, message: bytearray, seeds: Sequence[bytes]) -> None:
    del message[random.randrange(len(message) + 1) :]


def _append(random: Random, message: bytearray, seeds: Sequence[bytes]) -> None:
    message += random.randbytes(random.choice((1, 2, 3, 4, 17, 64, 1400)))


def _repeat(random: Random, message: bytearray, seeds: Sequence[bytes]) -> None:
    start, end = sorted(random.randrange(len(message) + 1) for _ in range(2))
    message[start:start] = message[start:end] * random.choice((1, 1, 2, 7))


def _remove(random: Random, message: bytearray, seeds: Sequence[bytes]) -> None:
    start, end = sorted(random.randrange(len(message) + 1) for _ in range(2))
    del message[start:end]


def _cross(random: Random, message: bytearray, seeds: Sequence[bytes]) -> None:
    """The beginning of this one and the end of another."""
    other = random.choice(seeds)
    at = random.randrange(min(len(message), len(other)) + 1)
    message[at:] = other[at:]


_MUTATIONS: tuple[Mutation, ...] = (
    _bit,
    _bit,
    _octet,
    _octet,
    _edge,
    _edge,
    _edge,
    _cut,
    _append,
    _repeat,
    _remove,
    _cross,
)
