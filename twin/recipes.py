"""What is trained, calibrated and tested on: slices of scenarios, and recipes that mix them.

Four disjoint ranges of seeds: *training*; *validation* chooses the epoch; *calibration* makes the conformal
intervals and, with the training set, the safe operating range; *test* is for evaluation alone. No recipe
trains on the maps of the literature or on networks of more than 110 nodes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import log

from twin.checkpoint import RouteNetConfig
from twin.errors import UsageError
from twin.intervals import WIDEST
from twin.scenarios import Conditions

TRAINING_SEED, VALIDATION_SEED, CALIBRATION_SEED, TEST_SEED = 0, 100_000, 200_000, 300_000

_LAB = Conditions(draw="lab", worst_load=(0.2, 1.1), buffers=(64,), arrivals=(("poisson", 1.0),), windows=2)
_BURSTY = (("modulated", 0.5), ("on-off", 0.5))
# Poisson, CBR and on-off in equal parts, as in the RouteNet-Fermi data; some on-off, and correlated gaps,
# with other parameters than theirs.
_KINDS = (
    ("poisson", 0.3),
    ("cbr", 0.3),
    ("steady-on-off", 0.2),
    ("slow-on-off", 0.15),
    ("autocorrelated", 0.05),
)
_MIXED = Conditions(
    draw="mixed", worst_load=(0.15, 0.95), buffers=(8, 16, 32, 64), arrivals=_KINDS, windows=0, nodes=(8, 25)
)
_POISSON = replace(_MIXED, scheduled=0.0, arrivals=(("poisson", 1.0),), buffers=(32,))
SLICES = {
    # Live windows.
    "random": Conditions(),
    "lab": _LAB,
    "large": Conditions(nodes=(30, 50), windows=2),
    "nsfnet-lab": replace(_LAB, topologies=("nsfnet",)),
    "nsfnet-bursty": replace(_LAB, topologies=("nsfnet",), arrivals=_BURSTY),
    "geant2": Conditions(topologies=("geant2",)),
    "gbn": Conditions(topologies=("gbn",)),
    # Steady states: all schedulers, arrivals and sizes; Poisson and FIFO with labels of little noise.
    "mixed": replace(_MIXED, packets=2000.0),
    "mixed-50": replace(_MIXED, nodes=(40, 60), packets=800.0),
    "mixed-100": replace(_MIXED, nodes=(90, 110), packets=300.0),
    "mixed-200": replace(_MIXED, nodes=(180, 220), packets=200.0),
    "mixed-300": replace(_MIXED, nodes=(300, 300), packets=200.0),
    "poisson": replace(_POISSON, nodes=(15, 35), packets=3000.0),
    "poisson-75": replace(_POISSON, nodes=(50, 100), packets=500.0),
    # Long ways and few flows: packets of one size behind each other, hop after hop.
    "long": replace(
        _POISSON, topologies=("sparse", "ring"), nodes=(12, 40), active=(0.03, 0.5), packets=3000.0
    ),
    "mixed-long": replace(
        _MIXED, topologies=("sparse", "ring"), nodes=(10, 30), active=(0.05, 0.7), packets=1500.0
    ),
    # Only far nodes exchange anything, along ways that wander: up to 20 hops, and few flows on a link.
    "far": replace(
        _POISSON,
        topologies=("power-law", "sparse"),
        nodes=(20, 80),
        farthest=(0.01, 0.3),
        active=(0.3, 1.0),
        ways=8,
        packets=2000.0,
    ),
    "far-few": replace(
        _POISSON,
        topologies=("power-law", "sparse"),
        nodes=(30, 110),
        farthest=(0.005, 0.05),
        ways=8,
        packets=3000.0,
    ),
    # The same, and hardly anything is lost: where a per cent of the delay is much.
    "far-calm": replace(
        _POISSON,
        topologies=("power-law", "sparse"),
        nodes=(30, 110),
        worst_load=(0.1, 0.5),
        farthest=(0.005, 0.1),
        ways=8,
        packets=4000.0,
    ),
    "far-thin": replace(
        _POISSON,
        topologies=("power-law", "sparse"),
        nodes=(40, 110),
        worst_load=(0.1, 0.5),
        farthest=(0.003, 0.03),
        ways=8,
        packets=6000.0,
    ),
    # About saturation and beyond.
    "busy": replace(_MIXED, worst_load=(0.7, 1.4), packets=2000.0),
    "busy-50": replace(_MIXED, worst_load=(0.7, 1.4), nodes=(40, 60), packets=800.0),
    "busy-100": replace(_MIXED, worst_load=(0.7, 1.4), nodes=(90, 110), packets=300.0),
    # Light loads and labels of little noise: where a live network is most of the time.
    "calm": replace(_MIXED, nodes=(25, 60), worst_load=(0.15, 0.7), packets=4000.0),
    "calm-large": replace(_MIXED, nodes=(60, 100), worst_load=(0.15, 0.7), packets=2000.0),
    # With labels a quarter as noisy as others of this size: what intervals of large networks are made of.
    "calm-still": replace(_MIXED, nodes=(51, 60), worst_load=(0.15, 0.6), packets=25_000.0),
    "still-200": replace(_MIXED, nodes=(120, 180), worst_load=(0.4, 0.9), packets=2000.0),
    # For tests of the training itself.
    "smoke": Conditions(windows=2, window_s=4.0, arrivals=(("on-off", 1.0),)),
    "smoke-mixed": replace(_MIXED, nodes=(6, 8), packets=300.0),
}
TEST_SLICES = ("random", "lab", "large", "nsfnet-lab", "nsfnet-bursty", "geant2", "gbn", "mixed", "mixed-50")


@dataclass(frozen=True)
class Measured:
    """Files of a measured data set instead of simulation: what to train on, and what to hold out.

    Every second sample held out chooses the epoch, the others make the intervals.
    """

    format: str  # key of twin.evaluation.READERS
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    held_every: int = 1  # of ``held_out``, so that the others are trained on


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out of a training run, but its seed."""

    name: str
    parts: dict[str, int]  # slice → scenarios of it in the training set
    calibration: dict[str, int]  # slice → scenarios that make the intervals
    epochs: int
    validation: int = 12  # scenarios of each part, at most
    batch: int = 8  # samples
    learning_rate: float = 4e-3
    huber: float = 0.03  # ln; up to this error the loss of a delay is square, beyond it absolute
    noise: float = 0.1  # ln; a label this uncertain counts half
    relative: bool = False  # minimise the relative error of the whole delay, for data that noise rules
    config: RouteNetConfig = field(default_factory=RouteNetConfig)
    measured: Measured | None = None
    start: str = ""  # name of the shipped checkpoint whose weights are tuned on


_UNIVERSAL = Recipe(
    "universal-3",
    {
        "mixed": 1200, "mixed-50": 100, "mixed-100": 16, "mixed-long": 120, "busy": 240, "busy-50": 40,
        "busy-100": 16, "poisson": 160, "poisson-75": 12, "long": 160, "far": 160, "far-few": 160,
        "far-calm": 160, "random": 120, "lab": 80,
    },
    {
        "mixed": 120, "mixed-50": 24, "mixed-100": 10, "mixed-200": 6, "mixed-300": 4, "mixed-long": 24,
        "busy": 40, "busy-50": 16, "busy-100": 6, "poisson": 24, "poisson-75": 8, "long": 24, "far": 32,
        "far-few": 24, "far-calm": 24, "random": 24, "lab": 24, "large": 12, "nsfnet-bursty": 24,
        "geant2": 12, "gbn": 12,
    },
    epochs=32,
    validation=24,
)  # fmt: skip
# Many epochs more from there, with more large and calm networks, more in which few flows share a link, and a
# loss that half a per cent matters to.
_LARGER = replace(
    _UNIVERSAL,
    name="larger-2",
    parts=_UNIVERSAL.parts
    | {"mixed": 600, "mixed-50": 160, "mixed-100": 32, "poisson-75": 16, "far-thin": 120}
    | {"calm": 80, "calm-large": 10},
    calibration=_UNIVERSAL.calibration
    | {"far-thin": 12, "calm": 32, "calm-large": 16, "calm-still": 10, "still-200": 10},
    epochs=45,
    learning_rate=4e-3,
    huber=0.005,
    noise=0.03,
    start="routenet-base",
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "smoke",
            {"smoke": 6, "smoke-mixed": 6},
            {"smoke": 2, "smoke-mixed": 2},
            epochs=8,
            validation=2,
            batch=2,
        ),
        _UNIVERSAL,
        _LARGER,
        replace(
            _UNIVERSAL,
            name="rnn-3",
            epochs=12,
            config=RouteNetConfig(name="rnn", prior="unqueued", iterations=1),
        ),
        Recipe(
            "testbed-5", {}, {}, epochs=90, batch=16, learning_rate=2e-3, relative=True, start="routenet",
            # Where bursts meet or do not, delays are wrong by up to the widest interval there is.
            config=RouteNetConfig(limit=7.0, most_ln_scale=log(WIDEST)),
            measured=Measured(
                "testbed",
                tuple(f"{kind}-fold{fold}.jsonl.gz" for kind in ("mb", "cbr_mb") for fold in (0, 1)),
                ("mb-fold2.jsonl.gz", "cbr_mb-fold2.jsonl.gz"),
                held_every=4,
            ),
        ),
    )
}  # fmt: skip


def find_recipe(recipe: str | Recipe) -> Recipe:
    """A recipe by its name."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise UsageError(f"no recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[recipe]
