"""Files of samples: what is written is read, and what is no such file is refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twin.errors import DataError
from twin.network import Link, Network, Paths, Traffic, Variability
from twin.samples import Sample, check_sample, read_samples, write_samples
from twin.scheduling import Scheduling, by_class


def _network(routes: Paths | None = None) -> Network:
    """A triangle whose links differ in everything a link has."""
    links = (
        Link("a", "b", 1e6, 0.25, 32, "eth0", "eth9"),
        Link("b", "c", 3e5 + 1 / 3, buffer_bits=64_000.0, scheduling=by_class("WFQ", (60.0, 30.0, 10.0))),
        Link("c", "a", 2e6, up=False, scheduling=Scheduling("DRR", (0, 1, 1), (2.0, 1.0))),
    )
    next_link = np.array([[-1, 0, 0], [1, -1, 1], [2, 2, -1]], dtype=np.int16)
    return Network(("a", "b", "c"), links, next_link, routes)


def _sample(network: Network, name: str, flows: int) -> Sample:
    rng = np.random.default_rng(flows)
    traffic = Traffic(
        bps=rng.uniform(1e3, 1e6, flows),
        pps=rng.uniform(1, 100, flows),
        path=rng.integers(0, network.path_count, flows),
        service_class=rng.integers(0, 3, flows),
        size_scv=rng.uniform(0, 1, flows),
        variability=Variability(rng.uniform(size=flows), rng.uniform(size=flows), rng.uniform(size=flows)),
        observed_s=10.0 * flows,
    )
    labels = {label: rng.uniform(0.1, 1, flows) for label in ("mean_s", "std_s", "loss", "noise")}
    return Sample(name, network, traffic, count=np.arange(flows, dtype=np.float64), **labels)


def _one(network: Network) -> Sample:
    flows = network.path_count
    plain = Traffic(bps=np.full(flows, 1e5), pps=np.full(flows, 10.0))
    full = _sample(network, "plain", flows)
    return replace(full, traffic=plain)


@pytest.mark.parametrize("routes", [None, Paths(np.array([0, 1, 1]), np.array([0, 2, 3]))])
def test_written_samples_are_read_as_they_were(tmp_path: Path, routes: Paths | None) -> None:
    """Network, traffic and labels come back, rates and labels to float32."""
    network = _network(routes)
    written = [_sample(network, "first", 4), _sample(network, "second", 7)]
    write_samples(tmp_path / "s.npz", written)
    read = read_samples(tmp_path / "s.npz")
    assert [sample.name for sample in read] == ["first", "second"]
    for before, after in zip(written, read, strict=True):
        assert after.network.nodes == network.nodes
        assert after.network.links == network.links
        assert np.array_equal(after.network.next_link, network.next_link)
        assert np.array_equal(after.network.paths.links, network.paths.links)
        assert np.array_equal(after.network.paths.offsets, network.paths.offsets)
        assert np.array_equal(after.traffic.path, before.traffic.path)
        assert np.array_equal(after.traffic.service_class, before.traffic.service_class)
        for name in ("bps", "pps", "size_scv"):
            assert np.allclose(getattr(after.traffic, name), getattr(before.traffic, name), rtol=1e-7)
        assert after.traffic.observed_s == before.traffic.observed_s
        assert np.allclose(after.traffic.variability.rate_time_s, before.traffic.variability.rate_time_s)
        for name in ("mean_s", "std_s", "loss", "count", "noise"):
            assert np.allclose(getattr(after, name), getattr(before, name), rtol=1e-7)


def test_what_is_not_known_stays_unknown(tmp_path: Path) -> None:
    """Traffic that names only rates is read with nothing else in it."""
    write_samples(tmp_path / "s.npz", [_one(_network())])
    (sample,) = read_samples(tmp_path / "s.npz")
    traffic = sample.traffic
    assert (traffic.path, traffic.service_class, traffic.size_scv, traffic.variability) == (None,) * 4
    assert traffic.observed_s is None


def test_a_flow_without_packets_or_delay_has_no_label() -> None:
    """`labelled` needs both a count and a delay."""
    sample = _sample(_network(), "s", 3)
    sample = replace(sample, count=np.array([0.0, 5.0, 5.0]), mean_s=np.array([1.0, 0.0, 1.0]))
    assert sample.labelled.tolist() == [False, False, True]


def test_samples_of_different_networks_do_not_share_a_file(tmp_path: Path) -> None:
    """Writing them together is a mistake of the program, and nothing is written."""
    other = replace(_network(), links=(*_network().links[:2], replace(_network().links[2], capacity_bps=5.0)))
    with pytest.raises(ValueError, match="share their network"):
        write_samples(tmp_path / "s.npz", [_one(_network()), _one(other)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 10, 500, -30])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    """A file cut anywhere gives one line with its name, and no traceback of a library."""
    path = tmp_path / "cut.npz"
    write_samples(path, [_one(_network())])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cut\.npz is truncated or no file of samples") as caught:
        read_samples(path)
    assert "\n" not in str(caught.value)


def test_foreign_and_missing_files_are_named(tmp_path: Path) -> None:
    """Another archive, one array, plain text, a folder and nothing at all are told apart from samples."""
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "folder.npz").mkdir()
    for name in ("other.npz", "one.npy", "text.npz", "folder.npz", "absent.npz"):
        with pytest.raises(DataError, match=name):
            read_samples(tmp_path / name)


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        ("mean_s", np.nan, "mean_s of flow 1 is nan"),
        ("count", -1.0, "count of flow 1 is -1"),
        ("loss", 1.5, "flow 1 loses more than all"),
    ],
)
def test_labels_that_cannot_be_are_refused(label: str, value: float, says: str) -> None:
    """NaN, negative counts and losses above one name the sample and the flow."""
    sample = _sample(_network(), "odd", 3)
    getattr(sample, label)[1] = value
    with pytest.raises(DataError, match=says):
        check_sample(sample)
