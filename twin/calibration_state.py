"""A calibration as bytes, and what of it is still true when the topology changes."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from twin.calibration_learnt import LINK_FIELDS, PATH_FIELDS, LinkRow
from twin.calibration_worth import Worth
from twin.equal_routes import crossings
from twin.errors import DecodeError
from twin.network import Floats, Ints, Network

_FORMAT = 1


class CalibrationState(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """All state; the network it belongs to is named by a digest, its links by their names."""

    format: int = _FORMAT
    digest: bytes
    link_names: tuple[str, ...]
    links: dict[str, bytes]
    paths: dict[str, bytes]
    widths: bytes
    reading_scale: float
    learnt: int
    lost: tuple[tuple[str, LinkRow], ...] = ()
    worth: Worth = Worth()

    def pack(self) -> bytes:
        """Deflated."""
        return zlib.compress(msgspec.msgpack.encode(self, order="deterministic"), 6)

    @classmethod
    def unpack(cls, blob: bytes) -> CalibrationState:
        """DecodeError when the bytes are damaged, or of another format."""
        try:
            state = msgspec.msgpack.decode(zlib.decompress(blob), type=cls)
        except (zlib.error, msgspec.DecodeError) as error:
            raise DecodeError(f"calibration is damaged ({error}): start without it") from error
        if state.format != _FORMAT:
            raise DecodeError(f"calibration of format {state.format}: this version reads {_FORMAT}")
        return state

    def link_arrays(self) -> dict[str, NDArray[np.generic]]:
        """State of the links."""
        return _arrays(self.links, LINK_FIELDS, len(self.link_names))

    def lost_links(self) -> dict[str, LinkRow]:
        """What was known of links that are gone, longest gone first."""
        if any(len(row) != len(LINK_FIELDS) for _, row in self.lost):
            raise DecodeError("calibration is damaged: what is known of a lost link: start without it")
        return dict(self.lost)

    def path_arrays(self, paths: int) -> dict[str, NDArray[np.generic]]:
        """State of the paths."""
        return _arrays(self.paths, PATH_FIELDS, paths)

    def width_factors(self, groups: int) -> Floats:
        """ln of the factor on every group's width."""
        factors = _arrays({"widths": self.widths}, {"widths": np.float32}, groups)["widths"]
        return factors.astype(np.float64)


def _arrays(
    blobs: dict[str, bytes], fields: dict[str, type[np.generic]], size: int
) -> dict[str, NDArray[np.generic]]:
    for name, kind in fields.items():
        if len(blobs.get(name, b"")) != size * np.dtype(kind).itemsize:
            raise DecodeError(f"calibration is damaged: {name} has not {size} values: start without it")
    return {name: np.frombuffer(blobs[name], dtype=kind).copy() for name, kind in fields.items()}


def network_digest(network: Network) -> bytes:
    """Tells networks of other nodes, links or ways apart; what links are like may differ."""
    digest = hashlib.blake2b(digest_size=16)
    for names in (network.nodes, network.link_names):
        digest.update("\n".join(names).encode() + b"\0")
    ways, _ = crossings(network)
    for array in (ways.links, ways.offsets):
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.digest()


def link_origin(before: Sequence[str], network: Network) -> Ints:
    """For every link of ``network`` its index in ``before``; −1 where it is new."""
    index = {name: k for k, name in enumerate(before)}
    return np.array([index.get(name, -1) for name in network.link_names], dtype=np.int64)


def told_otherwise(old: Network, new: Network) -> NDArray[np.bool_]:
    """The links of ``new`` whose propagation or capacity was told differently in ``old``."""
    origin = link_origin(old.link_names, new)
    known = origin >= 0
    differs = np.zeros(len(origin), dtype=np.bool_)
    for before, after in (
        (old.propagation_delay_s, new.propagation_delay_s),
        (old.capacity_bps, new.capacity_bps),
        (old.line_rate_bps, new.line_rate_bps),
    ):
        differs[known] |= before[origin[known]] != after[known]
    return differs


def path_origin(old: Network, new: Network) -> Ints:
    """For every path of ``new`` its index in ``old``; −1 where it did not exist or took other links.

    Paths of a network that brings its own routes have no names: all start afresh.
    """
    if old.routes is not None or new.routes is not None:
        return np.full(new.path_count, -1, dtype=np.int64)
    node = np.array([old.node_index.get(name, -1) for name in new.nodes], dtype=np.int64)
    source, destination = (node[end] for end in new.ends)
    known = (source >= 0) & (destination >= 0)
    before = source * (len(old.nodes) - 1) + destination - (destination > source)
    before = np.where(known, before, -1)
    (new_ways, _), (old_ways, _) = crossings(new), crossings(old)
    lengths = np.where(known, old_ways.lengths[before], -1) if len(old_ways.lengths) else before
    alike = known & (lengths == new_ways.lengths)
    rows = np.flatnonzero(alike)
    ours, theirs = new_ways.select(rows), old_ways.select(before[rows])
    link = link_origin(old.link_names, new)[ours.links]
    # in the order of the old numbers: links that equal routes cross have no other order
    link, known_as = (
        links[np.lexsort((links, hops.hop_path))] for links, hops in ((link, ours), (theirs.links, theirs))
    )
    differs = np.bincount(ours.hop_path, link != known_as, minlength=len(rows)) > 0
    origin = np.full(new.path_count, -1, dtype=np.int64)
    origin[rows[~differs]] = before[rows[~differs]]
    return origin
