"""What the API answers and takes, as the OpenAPI document shows it. Units stand in the names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True)


class WindowOut(Answer):
    """Which window a figure is of. Times are nanoseconds since the Unix epoch."""

    version: int
    start_ns: int
    end_ns: int


class NetworkOut(Answer):
    """A network in one line."""

    name: str
    nodes: int
    links: int
    paths: int
    windows_seen: int
    window: WindowOut | None = Field(description="the newest window; null before the first")
    predicted: bool = Field(description="whether the newest window has its prediction yet")
    waiting_for: str = Field(description="why the newest state could not be read; empty when it could")


class NodeOut(Answer):
    """A node, with its place on the map between 0 and 1 where one is known."""

    name: str
    x: float
    y: float


class QueueOut(Answer):
    """A class queue at the sending end of a link, where its device tells of it."""

    name: str = Field(description="of the class, on the device")
    sent_bps: float
    drops_pps: float
    depth_octets: float = Field(description="waiting at the newest poll")


class LinkOut(Answer):
    """A directed link in one window."""

    name: str
    source: str
    target: str
    up: bool
    capacity_bps: float
    line_rate_bps: float = Field(
        description="at which bits leave: the capacity, or the port's speed where a shaper serves less"
    )
    propagation_delay_s: float
    load_bps: float = Field(description="measured on the source interface")
    utilisation: float = Field(description="load over capacity, 0 … 1")
    predicted_utilisation: float | None = Field(description="as the model sees it from the traffic matrix")
    drops_pps: float = Field(description="packets a second that the source interface or its queues dropped")
    queues: list[QueueOut] = Field(description="by class; empty where the device tells of none")


class StateOut(Answer):
    """One window of one network."""

    network: str
    window: WindowOut
    quality: list[str] = Field(
        description="what this window's figures suffer from: silent:NODE, flows-missing:NODE, …"
    )
    nodes: list[NodeOut]
    links: list[LinkOut]


class PathOut(Answer):
    """A path, measured beside predicted; ``expected_s`` is the prediction as the method would see it."""

    path: str
    source: str
    destination: str
    hops: int
    traffic_bps: float
    method: str | None = Field(description="what measured it; null when nothing did")
    measured_s: float | None
    predicted_s: float | None = Field(description="one-way mean delay of the traffic's packets")
    expected_s: float | None = Field(description="the prediction made comparable with the measurement")
    low_s: float | None
    high_s: float | None
    residual: float | None = Field(description="ln(measured / expected)")
    score: float | None = Field(
        description="residual over the interval's log-width: beyond ±1 is outside the interval"
    )


class PathsOut(Answer):
    """The paths of one window."""

    network: str
    window: WindowOut
    total: int = Field(description="paths that match, before the limit")
    paths: list[PathOut]


class PathPointOut(Answer):
    """A path in one window of its history."""

    version: int
    end_ns: int
    measured_s: dict[str, float] = Field(description="method → mean delay")
    expected_by_method_s: dict[str, float] = Field(description="method → what it should have measured")
    expected_s: float | None
    low_s: float | None
    high_s: float | None


class PathHistoryOut(Answer):
    """The history of one path, oldest window first."""

    network: str
    path: str
    links: list[str] = Field(description="the links the path takes now")
    points: list[PathPointOut]


class PredictionOut(Answer):
    """What the twin expects of one path."""

    path: str
    mean_s: float | None
    low_s: float | None
    high_s: float | None
    jitter_s: float
    loss: float


class PredictionsOut(Answer):
    """The newest prediction of a network."""

    network: str
    window: WindowOut
    model: str
    model_version: str
    coverage: float = Field(description="the share of measurements the interval is meant to hold")
    out_of_range: list[str] = Field(description="why this state lies outside what the model has seen")
    paths: list[PredictionOut]


class SuspectOut(Answer):
    """One hypothesis of what is wrong."""

    kind: str
    target: str
    hypothesis: str
    probability: float
    evidence: str


class TransitionOut(Answer):
    """When an alert entered a state."""

    state: str
    at_ns: int


class AlertOut(Answer):
    """An alert and its life."""

    fingerprint: str
    network: str
    state: Literal["pending", "firing", "acknowledged", "resolved"]
    kind: str
    severity: str
    summary: str
    starts_at_ns: int
    updated_at_ns: int
    ends_at_ns: int | None
    first_version: int
    last_version: int
    suspects: list[SuspectOut] = Field(description="most probable first")
    paths: list[str] = Field(description="worst first")
    labels: dict[str, str]
    annotations: dict[str, str]
    life: list[TransitionOut]


class ComponentOut(Answer):
    """A component of ndtwin."""

    name: str
    state: str = Field(description="running, starting, degraded, stopped or stale (no heartbeat for 10 s)")
    since_ns: int
    seen_ns: int
    workers: int
    restarts: int
    detail: str


class HealthOut(Answer):
    """How ndtwin itself is."""

    healthy: bool
    summary: str
    components: list[ComponentOut]


class WhatIfIn(BaseModel):
    """A question: what would every path look like if …?"""

    model_config = ConfigDict(extra="forbid")

    network: str | None = Field(default=None, description="may be left out where there is only one")
    links_down: list[str] = Field(default=[], examples=[["WA->CA1"]])
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default={}, examples=[{"WA->CA1": 3}])
    capacities: dict[str, Annotated[float, Field(gt=0)]] = Field(default={}, description="link → bit/s")
    traffic_scale: Annotated[float, Field(gt=0, le=1000)] = 1.0


class WhatIfPathOut(Answer):
    """One path before and after."""

    path: str
    before_s: float | None = Field(description="null = no route")
    after_s: float | None
    change: float | None = Field(description="after / before − 1")


class WhatIfLinkOut(Answer):
    """One link before and after."""

    link: str
    utilisation_before: float
    utilisation_after: float


class WorstLinkOut(Answer):
    """The link that is used most."""

    link: str
    utilisation: float


class WhatIfOut(Answer):
    """The answer: never touches the network or a topic."""

    network: str
    version: int = Field(description="the state it was asked of")
    model: str
    model_version: str
    out_of_range: list[str]
    mean_before_s: float = Field(
        description="mean over the paths that have a route before and after, weighed by traffic"
    )
    mean_after_s: float
    notes: list[str]
    rerouted: list[str] = Field(description="paths that take other links")
    unreachable: list[str] = Field(description="paths that lose their route")
    worst: list[WhatIfPathOut] = Field(description="the ten that lose most time, worst first")
    worst_link_before: WorstLinkOut
    worst_link_after: WorstLinkOut
    links: list[WhatIfLinkOut]
    paths: list[WhatIfPathOut]


class FreshPathOut(Answer):
    """A path as an optimiser needs it."""

    path: str
    traffic_bps: float
    measured_s: float | None
    predicted_s: float | None


class FreshStateOut(Answer):
    """One event of the stream of fresh state."""

    network: str
    window: WindowOut
    quality: list[str]
    links: list[LinkOut]
    paths: list[FreshPathOut]
    model: str | None


class ProblemOut(Answer):
    """What went wrong (RFC 9457 problem details)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="one sentence: what is wrong and what would be right")
