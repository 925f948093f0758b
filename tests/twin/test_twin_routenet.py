"""RouteNet: its prior, its symmetries, its limits, and the file it comes from."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from twin.checkpoint import Checkpoint, Intervals, Provenance, RouteNetConfig, SafeRange, write_checkpoint
from twin.errors import CheckpointError
from twin.features import Burstiness, Specification, build_features
from twin.models import PathPrediction
from twin.network import Network, Traffic
from twin.queueing import MG1K
from twin.routenet import RouteNet, RouteNetModule, load, to_graph
from twin.topologies import nsfnet, power_law
from twin.traffic import gravity, lab_scenario
from twin.training import evaluate


def checkpoint_of(module: RouteNetModule) -> Checkpoint:
    """A checkpoint around any weights."""
    return Checkpoint(
        weights=module.state_dict(),
        config=module.config,
        size_scv=0.45,
        intervals=Intervals(load_edges=(0.5,), half_width=(0.1, 0.3), bursty_half_width=(0.2, 0.6)),
        safe_range=SafeRange({"nodes": (10, 20), "load": (0.0, 1.2), "buffer packets": (32, 128)}),
        provenance=Provenance(recipe="test", seed=0, samples=0, date="2026-01-01", versions={}),
    )


@pytest.fixture(scope="module")
def scrambled() -> RouteNet:
    """A network with random weights everywhere, the last layer too: symmetries must hold for any weights."""
    torch.manual_seed(1)
    module = RouteNetModule(RouteNetConfig(limit=1.0))
    torch.nn.init.normal_(module.correct.weight, std=0.3)
    return RouteNet(checkpoint_of(module))


@pytest.fixture(scope="module")
def state() -> tuple[Network, Traffic]:
    """The lab's NSFNET at its mean load."""
    return lab_scenario(nsfnet(), seed=3)


def arrays(prediction: PathPrediction) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """What is predicted of paths."""
    return {name: getattr(prediction, name) for name in ("mean_s", "jitter_s", "loss", "log_width")}


def test_untrained_is_exactly_the_queueing_model(state: tuple[Network, Traffic]) -> None:
    """With a last layer of zeros the network says what M/G/1/K says, to the last digits."""
    model = RouteNet(checkpoint_of(RouteNetModule(RouteNetConfig())))
    said, prior = model.predict(*state), MG1K(size_scv=0.45).predict(*state)
    np.testing.assert_allclose(said.mean_s, prior.mean_s, rtol=1e-12)
    np.testing.assert_allclose(said.jitter_s, prior.jitter_s, rtol=1e-9)
    np.testing.assert_allclose(said.loss, prior.loss, atol=1e-12)
    assert (said.link_utilisation == prior.link_utilisation).all()


def test_names_of_nodes_do_not_matter(scrambled: RouteNet, state: tuple[Network, Traffic]) -> None:
    """Other names reorder nodes, links and paths, which permutes the prediction and changes nothing else."""
    network, traffic = state
    order = np.random.default_rng(5).permutation(len(network.nodes))  # new index → old index
    new = np.argsort(order)
    names = tuple(f"x{i:02d}" for i in range(len(order)))
    shuffled = np.random.default_rng(6).permutation(len(network.links))
    links = tuple(
        replace(
            link,
            source=names[new[network.node_index[link.source]]],
            target=names[new[network.node_index[link.target]]],
        )
        for link in (network.links[i] for i in shuffled)
    )
    place = np.append(np.argsort(shuffled), -1)  # old link → new link, −1 stays
    renamed = Network(names, links, place[network.next_link[np.ix_(order, order)]].astype(np.int16))
    back = [
        network.path_index(*(network.nodes[order[i]] for i in renamed.path_ends(path)))
        for path in range(renamed.path_count)
    ]
    said = scrambled.predict(renamed, Traffic(bps=traffic.bps[back], pps=traffic.pps[back]))
    for name, expected in arrays(scrambled.predict(network, traffic)).items():
        np.testing.assert_allclose(getattr(said, name), expected[back], rtol=2e-5, atol=1e-12, err_msg=name)


def test_units_do_not_matter(scrambled: RouteNet, state: tuple[Network, Traffic]) -> None:
    """A thousand times the speed and the packets has a thousandth of delay and jitter and the same loss."""
    network, traffic = state
    still = replace(network, links=tuple(replace(link, propagation_delay_s=0.0) for link in network.links))
    fast = replace(
        still, links=tuple(replace(link, capacity_bps=1e3 * link.capacity_bps) for link in still.links)
    )
    slow_said = scrambled.predict(still, traffic)
    fast_said = scrambled.predict(fast, Traffic(bps=1e3 * traffic.bps, pps=1e3 * traffic.pps))
    np.testing.assert_allclose(1e3 * fast_said.mean_s, slow_said.mean_s, rtol=1e-5)
    np.testing.assert_allclose(1e3 * fast_said.jitter_s, slow_said.jitter_s, rtol=1e-5)
    np.testing.assert_allclose(fast_said.loss, slow_said.loss, rtol=1e-4, atol=1e-12)


def test_a_batch_is_its_members(scrambled: RouteNet, state: tuple[Network, Traffic]) -> None:
    """Graphs of different sizes give the same in one batch as alone."""
    small = power_law(10, 2).network()
    states = [state, (small, gravity(10, 2e7, seed=2)), state]
    graphs = [to_graph(build_features(*s, scrambled.prior)) for s in states]
    with torch.inference_mode():
        alone = torch.cat([scrambled.module(graph).delay for graph in graphs])
        together = scrambled.module(Batch.from_data_list(graphs)).delay
    torch.testing.assert_close(together, alone, rtol=2e-5, atol=0.0)


def test_predictions_repeat_to_the_bit(scrambled: RouteNet, state: tuple[Network, Traffic]) -> None:
    """The same state gives the same bytes twice."""
    first, second = arrays(scrambled.predict(*state)), arrays(scrambled.predict(*state))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.parametrize("load", [0.0, 1e-9, 1.0, 50.0])
def test_never_nan(scrambled: RouteNet, state: tuple[Network, Traffic], load: float) -> None:
    """Idle, nearly idle, normal and drowned networks give finite, non-negative numbers, loss at most one."""
    network, traffic = state
    said = scrambled.predict(network, Traffic(bps=load * traffic.bps, pps=load * traffic.pps))
    for name, values in arrays(said).items():
        assert np.isfinite(values).all(), name
        assert (values >= 0).all(), name
    assert (said.loss <= 1).all()
    assert (said.mean_s > 0).all()


def test_no_route_is_zero(scrambled: RouteNet, state: tuple[Network, Traffic]) -> None:
    """Paths without a route hold zeros while the others are predicted; without any route all is zero."""
    network, traffic = state
    cut = network.next_link.copy()
    cut[:, 0] = -1
    said = scrambled.predict(replace(network, next_link=cut), traffic)
    to_first = np.array([network.path_ends(path)[1] == 0 for path in range(network.path_count)])
    assert not said.mean_s[to_first].any()
    assert (said.mean_s[~to_first] > 0).all()
    nothing = scrambled.predict(replace(network, next_link=np.full_like(cut, -1)), traffic)
    assert not any(values.any() for values in arrays(nothing).values())


def test_intervals_leave_propagation_alone(scrambled: RouteNet, state: tuple[Network, Traffic]) -> None:
    """The interval is that of the queueing part: propagation makes it narrower on the log scale."""
    network, traffic = state
    far = replace(network, links=tuple(replace(link, propagation_delay_s=1.0) for link in network.links))
    still = replace(network, links=tuple(replace(link, propagation_delay_s=0.0) for link in network.links))
    assert scrambled.predict(still, traffic).log_width == pytest.approx(np.full(network.path_count, 0.1))
    bursty = scrambled.predict(still, traffic, Burstiness(rate_scv=0.1, time_s=0.5))
    assert bursty.log_width == pytest.approx(np.full(network.path_count, 0.2))
    assert scrambled.predict(far, traffic).log_width.max() < 0.01


def test_out_of_range_is_said(scrambled: RouteNet, state: tuple[Network, Traffic]) -> None:
    """A state beyond the range the model was checked in says what is beyond, and by how much."""
    network, traffic = state
    assert scrambled.predict(network, traffic).out_of_range == ()
    hot = Traffic(bps=4 * traffic.bps, pps=4 * traffic.pps)
    deep = replace(network, links=tuple(replace(link, buffer_packets=500) for link in network.links))
    said = scrambled.predict(deep, hot).out_of_range
    assert [sentence.split()[0] for sentence in said] == ["load", "buffer"]
    assert said[1] == "buffer packets 500 above 128 seen"
    large = power_law(30, 1).network()
    assert scrambled.predict(large, gravity(30, 1e7, seed=1)).out_of_range[0] == "nodes 30 above 20 seen"


def test_checkpoint_comes_back_as_it_went(
    scrambled: RouteNet, state: tuple[Network, Traffic], tmp_path: Path
) -> None:
    """A model written and read again predicts the same bytes under the same version."""
    write_checkpoint(tmp_path / "m.pt", scrambled.checkpoint)
    again = load(tmp_path / "m.pt")
    assert again.version == scrambled.version
    assert again.predict(*state).mean_s.tobytes() == scrambled.predict(*state).mean_s.tobytes()


def test_unfit_checkpoints_are_refused(scrambled: RouteNet, tmp_path: Path) -> None:
    """Missing, damaged, foreign, of another format or of other features: CheckpointError in one line each."""
    path = tmp_path / "m.pt"
    with pytest.raises(CheckpointError, match="cannot read"):
        load(path)
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds a list"):
        load(path)
    torch.save({"format": 99}, path)
    with pytest.raises(CheckpointError, match="has format 99"):
        load(path)
    torch.save({"format": 1}, path)
    with pytest.raises(CheckpointError, match="lacks a part"):
        load(path)
    other = replace(scrambled.checkpoint, specification=Specification(link=("load", "colour")))
    write_checkpoint(path, other)
    with pytest.raises(CheckpointError, match="other features"):
        load(path)


def test_a_truncated_checkpoint_is_refused(scrambled: RouteNet, tmp_path: Path) -> None:
    """Half a file is no model."""
    path = tmp_path / "m.pt"
    write_checkpoint(path, scrambled.checkpoint)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match=r"cannot read|is not a checkpoint"):
        load(path)


# ------------------------------------------------------------------------------- the shipped model


def test_shipped_model_is_small_and_says_where_it_is_from() -> None:
    """The package holds a checkpoint of at most 2 MB with its recipe, samples, versions and error."""
    model = load()
    provenance = model.checkpoint.provenance
    shipped = Path(__file__).parents[2] / "twin" / "weights" / "routenet.pt"
    assert shipped.stat().st_size <= 2_000_000
    assert model.version.startswith(provenance.recipe)
    assert provenance.samples > 100
    assert provenance.versions["torch"]
    assert 0 < provenance.validation["mape"] < 0.1


def test_shipped_model_answers_for_nsfnet_within_50_ms(state: tuple[Network, Traffic]) -> None:
    """All 182 paths of NSFNET take less than 50 ms of processor time once warm."""
    model = load()
    model.predict(*state)
    spent = []
    for _ in range(5):
        start = time.thread_time()
        model.predict(*state)
        spent.append(time.thread_time() - start)
    assert min(spent) < 0.05


def test_shipped_model_knows_the_lab(state: tuple[Network, Traffic]) -> None:
    """The lab's NSFNET lies within the range the shipped model was checked in, and GEANT2's size does."""
    model = load()
    assert model.predict(*state).out_of_range == ()
    assert model.checkpoint.safe_range.limits["nodes"][1] >= 24


def test_shipped_model_rises_with_load(state: tuple[Network, Traffic]) -> None:
    """Averaged over paths, more traffic means more delay, from a tenth to the full range."""
    network, traffic = state
    model = load()
    means = [
        model.predict(network, Traffic(bps=scale * traffic.bps, pps=scale * traffic.pps)).mean_s.mean()
        for scale in (0.1, 0.5, 1.0, 1.5, 2.0)
    ]
    assert (np.diff(means) > 0).all()


def test_shipped_model_beats_both_queueing_models_on_unseen_networks(tmp_path: Path) -> None:
    """On NSFNET with the lab's traffic and on mixed traffic, none of it trained on, RouteNet errs least."""
    report = evaluate(data=tmp_path, scenarios=3, slices=("nsfnet-lab", "random"))
    for name, models in report.items():
        assert models["routenet"]["mape"] < min(models["mg1k"]["mape"], models["mm1b"]["mape"]), name
        assert models["routenet"]["coverage"] > 0.8, name
    assert report["nsfnet-lab"]["routenet"]["ape_median"] < 0.04
