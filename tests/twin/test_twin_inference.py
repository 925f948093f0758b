"""RouteNet's forward pass on a CPU: the arithmetic of the torch module, whatever the cores, and no torch."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numba import njit
from numba.core.errors import TypingError
from numpy.typing import NDArray
from routenet_examples import STATES, State, checkpoint_of, features_of, lab, mixed, routed
from torch_geometric.data import Batch

from twin.checkpoint import Checkpoint, RouteNetConfig, write_checkpoint
from twin.chunks import SMALL, beside, each_chunk
from twin.errors import CheckpointError
from twin.features import Features
from twin.inference import RouteNet, load, prior_of
from twin.inference_cpu import CpuForward, Said
from twin.inference_product import product, relu_product
from twin.intervals import WIDEST, group_of, sampling_noise
from twin.queueing import interval_width
from twin.routenet import TorchForward, to_graph
from twin.topologies import power_law
from twin.traffic import gravity

CONFIGS = {
    "default": RouteNetConfig(limit=1.0),
    "one head, one iteration": RouteNetConfig(iterations=1, heads=1, limit=1.0),
    "two heads, four iterations": RouteNetConfig(iterations=4, heads=2, limit=1.0),
}


def large() -> State:
    """More flows than one thread takes alone, of three classes, over FIFO links."""
    network = power_law(75, 2).network()
    traffic = gravity(75, 2e8, seed=2)
    assert len(traffic.pps) > SMALL
    classes = np.random.default_rng(1).integers(3, size=len(traffic.pps))
    return network, replace(traffic, service_class=classes)


def compare(ours: Said, torchs: Said, features: Features) -> None:
    """The same to 1e-5 of what is predicted: delay, deviation of the delay, survival, scale of the error."""
    seconds = np.where(features.routed, features.transmission_s, 1.0)
    for said in (ours, torchs):
        assert all(np.isfinite(getattr(said, field.name)).all() for field in fields(said))
    np.testing.assert_allclose(ours.waits_s + seconds[:, None], torchs.waits_s + seconds[:, None], rtol=1e-5)
    own = features.size_scv * seconds**2
    per_own = 1 / seconds**2  # the module keeps away from zero by 1e-12, where a square root has no slope
    ours_own, torchs_own = ((said.variance_s2 + own) * per_own for said in (ours, torchs))
    np.testing.assert_allclose(ours_own, torchs_own, rtol=2e-5, atol=2e-12)
    np.testing.assert_allclose(np.exp(ours.ln_survival), np.exp(torchs.ln_survival), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.ln_scale, torchs.ln_scale, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", STATES)
def test_the_fused_kernel_is_the_torch_module(name: str, config: str) -> None:
    """With random weights, and scales that clamp some features, both forward passes say the same."""
    features = features_of(STATES[name]())
    network, traffic = mixed(4)
    narrow = features_of((network, traffic.scaled(0.5)))  # so that the state goes beyond what was seen
    for seen in ((), (narrow,)):
        checkpoint = checkpoint_of(CONFIGS[config], seen=seen)
        compare(CpuForward(checkpoint, 1)(features), TorchForward(checkpoint, "cpu")(features), features)


def test_idle_flows_and_flows_without_a_route_pass_both_kernels() -> None:
    """Where nothing flows and nothing leads, both forward passes still say the same."""
    network, traffic = lab()
    cut = network.next_link.copy()
    cut[:, 3] = -1
    quiet = traffic.scaled(0.0)
    features = features_of((replace(network, next_link=cut), quiet))
    assert not features.routed.all()
    checkpoint = checkpoint_of()
    compare(CpuForward(checkpoint, 1)(features), TorchForward(checkpoint, "cpu")(features), features)


def test_a_batch_is_its_members() -> None:
    """Graphs of different sizes and schedulers give the same in one torch batch as alone."""
    states = (lab(), mixed(), (power_law(10, 2).network(), gravity(10, 2e7, seed=2)), routed(), lab())
    graphs = [to_graph(features_of(state)) for state in states]
    module = TorchForward(checkpoint_of(), "cpu").module
    with torch.inference_mode():
        alone = [module(graph) for graph in graphs]
        together = module(Batch.from_data_list(graphs))
    for name in ("delays", "jitter", "loss", "ln_scale"):
        members = torch.cat([getattr(said, name) for said in alone])
        torch.testing.assert_close(getattr(together, name), members, rtol=2e-5, atol=1e-7)


def test_the_number_of_threads_does_not_matter() -> None:
    """More than 5,000 flows give the same bytes on one thread, two and three."""
    features, checkpoint = features_of(large()), checkpoint_of()
    said = [CpuForward(checkpoint, threads)(features) for threads in (1, 2, 3)]
    for field in fields(Said):
        first, *others = (getattr(one, field.name).tobytes() for one in said)
        assert all(other == first for other in others), field.name


def test_the_number_of_threads_does_not_matter_to_what_is_predicted() -> None:
    """From network and traffic to delay and interval: the same bytes on one thread and two."""
    state, checkpoint = large(), checkpoint_of()
    one, two = (RouteNet(checkpoint, threads=threads).predict(*state) for threads in (1, 2))
    for name in ("mean_s", "jitter_s", "loss", "log_width"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes(), name


@njit
def _products(out, start, x, w, thin, row):  # type: ignore[no-untyped-def]
    product(out, start, x, w, 5, 24)
    product(thin, thin, x[:1], row, 1, 16)


def test_products_are_matrix_products() -> None:
    """Held in registers or not, in blocks of 24 and of 16 columns, and added to what is there."""
    rng = np.random.default_rng(1)
    start, x, w, thin, row = (
        rng.standard_normal(size).astype(np.float32) for size in (24, 5, (5, 24), 16, (1, 16))
    )
    out, expected = np.empty(24, np.float32), thin + x[0] * row[0]
    _products(out, start, x, w, thin, row)
    np.testing.assert_allclose(out, start + x @ w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(thin, expected, rtol=1e-5, atol=1e-6)


@njit
def _cut_off(out, start, x, w):  # type: ignore[no-untyped-def]
    return relu_product(out, start, x, w, 5, 32)


def test_products_tell_what_is_above_zero() -> None:
    """Bit by bit, up to the sign bit of the word, and nothing where all is cut off."""
    rng = np.random.default_rng(2)
    out = np.empty(32, np.float32)
    for _ in range(50):
        start, x, w = (rng.standard_normal(size).astype(np.float32) for size in (32, 5, (5, 32)))
        word = np.uint32(_cut_off(out, start, x, w) & 0xFFFFFFFF)
        np.testing.assert_allclose(out, np.maximum(start + x @ w, 0), rtol=1e-5, atol=1e-6)
        assert [bool(word >> bit & 1) for bit in range(32)] == list(out > 0)
    assert _cut_off(out, np.zeros(32, np.float32), x, np.zeros((5, 32), np.float32)) == 0


def test_products_fill_whole_vectors() -> None:
    """A table of 12 columns is refused when it is compiled, as is one of more than a word has bits."""

    @njit
    def odd(out, w):  # type: ignore[no-untyped-def]
        product(out, out, out, w, 1, 12)

    @njit
    def wide(out, w):  # type: ignore[no-untyped-def]
        return relu_product(out, out, out, w, 1, 40)

    with pytest.raises(TypingError, match="12 columns: give a multiple of 8"):
        odd(np.zeros(12, np.float32), np.zeros((1, 12), np.float32))
    with pytest.raises(TypingError, match="40 columns: give at most 32"):
        wide(np.zeros(40, np.float32), np.zeros((1, 40), np.float32))


@pytest.mark.parametrize("name", STATES)
def test_conclusions_are_those_of_their_formulae(name: str) -> None:
    """Delay, jitter, loss and interval from sums over hops, written out in numpy."""
    network, traffic = STATES[name]()
    model = RouteNet(checkpoint_of(RouteNetConfig(limit=1.0)), threads=1)
    for observed_s in (None, 3.0):
        features, told = features_of((network, traffic)), replace(traffic, observed_s=observed_s)
        said, predicted = model.forward(features), model.predict(network, told)
        each = said.waits_s + features.transmission_s[:, None]
        delay, scale = each.mean(axis=1), np.hypot(np.exp(said.ln_scale), np.log(each).std(axis=1))
        jitter = np.sqrt(said.variance_s2 + features.size_scv * features.transmission_s**2)
        group = group_of(len(network.nodes), features.bottleneck, features.worst_load)
        half = model.checkpoint.intervals.half_width(group, scale)
        if observed_s is not None:
            half = np.hypot(half, sampling_noise(jitter, delay, observed_s * traffic.pps))
        np.testing.assert_allclose(predicted.mean_s, delay + features.propagation_s, rtol=1e-9)
        np.testing.assert_allclose(predicted.jitter_s, jitter, rtol=1e-9)
        np.testing.assert_allclose(predicted.loss, -np.expm1(said.ln_survival), rtol=1e-9, atol=1e-15)
        width = interval_width(delay, features.propagation_s, np.minimum(half, WIDEST))
        np.testing.assert_allclose(predicted.log_width, width, rtol=1e-6)
        expected, error, deviation = model.expect(features)
        np.testing.assert_allclose(expected, delay, rtol=1e-9)
        np.testing.assert_allclose(error, scale, rtol=1e-6)
        np.testing.assert_allclose(deviation, jitter, rtol=1e-9)


def test_no_error_is_expected_beyond_the_most() -> None:
    """By the kernel and by the module, where what the network says of its error goes beyond."""
    config = RouteNetConfig(limit=1.0, ln_scale=0.5, most_ln_scale=0.4)
    checkpoint, features = checkpoint_of(config), features_of(lab())
    ours, torchs = CpuForward(checkpoint, 1)(features), TorchForward(checkpoint, "cpu")(features)
    compare(ours, torchs, features)
    free = CpuForward(checkpoint_of(replace(config, most_ln_scale=9.0)), 1)(features).ln_scale
    assert free.max() > 0.4
    np.testing.assert_allclose(ours.ln_scale, np.minimum(free, 0.4), atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("flows", [0, 1, 7, 8, SMALL - 1, SMALL + 1])
def test_chunks_hold_every_flow_once(flows: int, threads: int) -> None:
    """Whatever the number of flows and threads, every flow is worked on exactly once."""
    visits = np.zeros(flows, dtype=np.int64)

    def visit(_: int, low: int, high: int) -> None:
        visits[low:high] += 1

    each_chunk(flows, threads, visit)
    assert (visits == 1).all()


def test_an_error_on_a_thread_is_raised() -> None:
    """What goes wrong in a chunk is not lost on the thread that ran it."""

    def fail(number: int, _low: int, _high: int) -> None:
        if number == 3:
            raise FloatingPointError("chunk three")

    with pytest.raises(FloatingPointError, match="chunk three"):
        each_chunk(SMALL + 1, 2, fail)


def test_an_error_of_a_helping_thread_is_raised_too() -> None:
    """Chunks taken by another thread than the one that asked."""
    asking, helping = threading.get_ident(), threading.Event()

    def fail(_number: int, _low: int, _high: int) -> None:
        if threading.get_ident() != asking:
            helping.set()
            raise FloatingPointError("not here")
        assert helping.wait(10)  # leaves chunks to the other

    with pytest.raises(FloatingPointError, match="not here"):
        each_chunk(SMALL + 1, 2, fail)


@pytest.mark.parametrize("threads", [1, 2])
def test_work_beside_ends_with_its_result_or_its_error(threads: int) -> None:
    """Whoever asks for the result gets it, or what went wrong."""

    def fail() -> None:
        raise FloatingPointError("beside")

    assert beside(threads, lambda: 42)() == 42
    failed = beside(threads, fail)
    with pytest.raises(FloatingPointError, match="beside"):
        failed()


A_FRESH_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from twin.inference import load
from twin.inference_kernel import embed, last, sweep
from twin.network import Link, Network, Traffic
links = (Link("A", "B", 1e6), Link("B", "A", 1e6))
network = Network(("A", "B"), links, np.array([[-1, 0], [1, -1]], dtype=np.int16))
model = load(Path(sys.argv[1]))
said = model.predict(network, Traffic(bps=np.full(2, 5e5), pps=np.full(2, 500.0)))
assert (said.mean_s > 0).all()
print(sum(sum(kernel.stats.cache_misses.values()) for kernel in (embed, sweep, last)), "compiled")
print(*sorted(name for name in sys.modules if name.split(".")[0].startswith("torch")))
"""


@pytest.fixture(scope="module")
def second_process(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the second of two fresh processes says that load a file and predict."""
    path = tmp_path_factory.mktemp("model") / "m.npz"
    write_checkpoint(path, checkpoint_of())
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", A_FRESH_PROCESS, str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_predicting_imports_no_torch(second_process: list[str]) -> None:
    """Load a file and predict, in a fresh process: torch, which takes seconds to import, stays out."""
    assert second_process[1] == ""


def test_kernels_are_compiled_once_a_machine(second_process: list[str]) -> None:
    """The second process finds the kernels of the first on disk: a start takes no compiler."""
    assert second_process[0] == "0 compiled"


# -------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (RouteNetConfig(state=8), "not 8, 24 and 3"),
        (RouteNetConfig(hidden=16), "not 16, 16 and 3"),
        (RouteNetConfig(heads=4), "not 16, 24 and 4"),
    ],
)
def test_sizes_that_the_kernel_is_not_made_for_run_in_torch(config: RouteNetConfig, why: str) -> None:
    """The kernel refuses other sizes than its own and says which; the model runs them all the same."""
    checkpoint = checkpoint_of(config)
    with pytest.raises(CheckpointError, match=why):
        CpuForward(checkpoint, 1)
    said = RouteNet(checkpoint).predict(*mixed())
    assert (said.mean_s > 0).all()


def test_an_unknown_prior_is_refused() -> None:
    """A model that corrects what this version does not know says so."""
    with pytest.raises(CheckpointError, match="corrects 'oracle', which is unknown"):
        RouteNet(checkpoint_of(RouteNetConfig(prior="oracle")))


def with_weight(checkpoint: Checkpoint, name: str, array: NDArray[np.float32]) -> Checkpoint:
    """The same with one weight in place of another, or more."""
    return replace(checkpoint, weights={**checkpoint.weights, name: array})


def test_weights_that_do_not_fit_their_configuration_are_refused(tmp_path: Path) -> None:
    """A weight that is missing, unknown, of another shape, or no number: CheckpointError that names it."""
    whole = checkpoint_of()
    bias = whole.weights["correct.bias"]
    less = {name: array for name, array in whole.weights.items() if name != "correct.bias"}
    lost = bias.copy()
    lost[0] = np.nan
    for wrong in (
        replace(whole, weights=less),
        with_weight(whole, "correct.bias", bias[:-1]),
        with_weight(whole, "correct.bias", lost),
        with_weight(whole, "correct.colour", bias),
    ):
        write_checkpoint(tmp_path / "m.npz", wrong)
        with pytest.raises(CheckpointError, match=r"correct\.(bias|colour)"):
            load(tmp_path / "m.npz")


def test_the_prior_is_the_checkpoints() -> None:
    """The packet sizes that training assumed are those that the prior assumes."""
    checkpoint = replace(checkpoint_of(), size_scv=0.7)
    assert prior_of(checkpoint).size_scv == 0.7
    network, traffic = lab()
    told = replace(traffic, size_scv=np.full(len(traffic.pps), 0.7))
    model = RouteNet(checkpoint, threads=1)
    assert model.predict(network, traffic).mean_s.tobytes() == model.predict(network, told).mean_s.tobytes()


def test_a_model_keeps_no_state() -> None:
    """What was predicted before, of whatever network, changes nothing."""
    model = RouteNet(checkpoint_of(), threads=1)
    fresh = model.predict(*mixed())
    model.predict(*lab())
    model.predict(lab()[0], lab()[1].scaled(0.0))
    assert model.predict(*mixed()).mean_s.tobytes() == fresh.mean_s.tobytes()
