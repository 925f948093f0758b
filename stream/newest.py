"""The newest messages of everything a log tells about: what one needs to go on from a point in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from stream.consumer import Message, decode_message
from twin.records import Prediction


class _Identity(msgspec.Struct):
    """What tells two records of one key apart: a network's topology records come from many devices."""

    type: str
    device: str = ""


_IDENTITIES = msgspec.json.Decoder(_Identity)


def newest_of_each(messages: Iterable[Message], counts: Mapping[str, int]) -> list[Message]:
    """The newest messages of every identity, as many as ``counts`` says for their topic, in the order given.

    Keeps no more than those in memory. What is not a record is left out.
    """
    newest: dict[object, deque[tuple[int, Message]]] = {}
    for serial, message in enumerate(messages):
        try:
            identity = _IDENTITIES.decode(message.payload)
        except msgspec.DecodeError:
            continue
        name = (message.place, message.key, identity.type, identity.device)
        newest.setdefault(name, deque(maxlen=counts[message.topic])).append((serial, message))
    return [message for _, message in sorted(pair for held in newest.values() for pair in held)]


def newest_predictions(messages: Iterable[Message]) -> list[Prediction]:
    """The prediction of the newest version of every network; what does not decode is skipped."""
    newest: dict[str, Prediction] = {}
    for message in messages:
        record = decode_message(message)
        if not isinstance(record, Prediction):
            continue
        if record.network not in newest or record.state_version >= newest[record.network].state_version:
            newest[record.network] = record
    return [newest[network] for network in sorted(newest)]
