"""The HTTP API over a store fed by a rehearsal: what every address answers, and how it refuses."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from rehearsal import Rehearsal, feed, heartbeats, link_alert

from ndtwin.api.app import create_app
from ndtwin.api.live import event
from ndtwin.api.schema import FreshStateOut
from ndtwin.api.store import Store
from ndtwin.api.whatif import WhatIfDesk
from twin.queueing import MG1K
from twin.topologies import nsfnet

V1 = "/api/v1"


class Client:
    """Asks an application, in its own process, one request after the other."""

    def __init__(self, app: FastAPI) -> None:
        self._transport = httpx.ASGITransport(app)

    def get(self, path: str) -> httpx.Response:
        """GET."""
        return asyncio.run(self._ask("GET", path))

    def post(self, path: str, json: dict[str, Any]) -> httpx.Response:
        """POST a JSON body."""
        return asyncio.run(self._ask("POST", path, json=json))

    async def _ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=self._transport, base_url="http://ndtwin") as client:
            return await client.request(method, path, **body)


@pytest.fixture
def store() -> Store:
    """Five windows of NSFNET with a fault on CA1->UT, its alert, and all components alive."""
    store, rehearsal = Store(), Rehearsal(extra_delay_s={"CA1->UT": 0.003})
    for window in rehearsal.windows(5):
        feed(store, window)
    now_ns = time.time_ns()
    feed(store, [link_alert("firing", now_ns, starts_at_ns=now_ns), *heartbeats(now_ns)])
    return store


@pytest.fixture
def client(store: Store) -> Iterator[Client]:
    """A client of the API, with the queueing model at the what-if desk."""
    desk = WhatIfDesk(MG1K)
    yield Client(create_app(store, desk=desk))
    desk.close()


def test_networks(client: Client) -> None:
    """Every network in one line."""
    (network,) = client.get(f"{V1}/networks").json()
    assert (network["name"], network["nodes"], network["links"], network["paths"]) == ("nsfnet", 14, 42, 182)
    assert network["windows_seen"] == 5
    assert network["predicted"] is True


def test_state(client: Client) -> None:
    """Nodes have a place, links their load, and utilisation is load over capacity."""
    state = client.get(f"{V1}/networks/nsfnet/state").json()
    assert len(state["nodes"]) == 14
    assert all(0 <= node[axis] <= 1 for node in state["nodes"] for axis in "xy")
    for link in state["links"]:
        assert link["utilisation"] == pytest.approx(link["load_bps"] / link["capacity_bps"])
        assert link["up"] is True


def test_a_shaped_link_tells_its_capacity_and_the_rate_at_which_bits_leave() -> None:
    """Where nothing is shaped the two are the same figure."""
    network = nsfnet().network()
    shaped = replace(network.links[3], line_rate_bps=1e10)
    store = Store()
    feed(
        store,
        Rehearsal(network=replace(network, links=(*network.links[:3], shaped, *network.links[4:]))).window(),
    )
    links = Client(create_app(store)).get(f"{V1}/networks/nsfnet/state").json()["links"]
    assert (links[3]["capacity_bps"], links[3]["line_rate_bps"]) == (shaped.capacity_bps, 1e10)
    assert all(link["line_rate_bps"] == link["capacity_bps"] for link in (*links[:3], *links[4:]))


def test_paths_stand_worst_first_and_measured_beside_predicted(client: Client) -> None:
    """Sorted by the distance from the interval; residual and interval follow from the figures beside them."""
    answer = client.get(f"{V1}/networks/nsfnet/paths").json()
    assert answer["total"] == len(answer["paths"]) == 182
    scores = [abs(path["score"]) for path in answer["paths"]]
    assert scores == sorted(scores, reverse=True)
    for path in answer["paths"]:
        assert path["low_s"] < path["expected_s"] < path["high_s"]
        assert path["residual"] == pytest.approx(math.log(path["measured_s"] / path["expected_s"]))
    assert answer["paths"][0]["path"].startswith(("CA1->", "CA2->", "WA->"))


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("source=WA", 13),
        ("destination=NY", 13),
        ("source=WA&destination=NY", 1),
        ("limit=7", 7),
        ("sort=name", 182),
    ],
)
def test_paths_can_be_chosen(client: Client, query: str, count: int) -> None:
    """By their ends, and by number."""
    paths = client.get(f"{V1}/networks/nsfnet/paths?{query}").json()["paths"]
    assert len(paths) == count
    if "source=WA" in query:
        assert {path["source"] for path in paths} == {"WA"}
    if "sort=name" in query:
        assert [p["path"] for p in paths] == sorted(p["path"] for p in paths)


def test_history_of_a_path(client: Client) -> None:
    """Every window, every method, the interval, and the links that the path takes."""
    history = client.get(f"{V1}/networks/nsfnet/paths/WA/NY/history").json()
    assert history["links"][0].startswith("WA->")
    assert history["links"][-1].endswith("->NY")
    assert len(history["points"]) == 5
    assert history["points"][0]["measured_s"].keys() == {"ipfix-on-path", "rttmon"}


def test_predictions(client: Client) -> None:
    """The newest prediction names its model and holds every path with its interval."""
    answer = client.get(f"{V1}/networks/nsfnet/predictions").json()
    assert answer["model"] == "mg1k"
    assert len(answer["paths"]) == 182
    assert all(path["low_s"] < path["mean_s"] < path["high_s"] for path in answer["paths"])


def test_alerts(client: Client) -> None:
    """With ranked suspects; by state; by fingerprint."""
    (alert,) = client.get(f"{V1}/alerts").json()
    assert alert["suspects"][0]["target"] == "CA1->UT"
    assert alert["life"][0]["state"] == "firing"
    assert client.get(f"{V1}/alerts?state=resolved").json() == []
    assert client.get(f"{V1}/alerts/{alert['fingerprint']}").json() == alert


def test_health_is_503_when_a_component_falls_silent(client: Client, store: Store) -> None:
    """200 while all run; 503 names the one that does not."""
    assert client.get(f"{V1}/health").status_code == 200
    feed(store, heartbeats(time.time_ns(), state="degraded", names=("twin",), pid=900))
    answer = client.get(f"{V1}/health")
    assert answer.status_code == 503
    assert answer.json()["summary"] == "twin degraded"


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/networks/foo/state", 404, "unknown network 'foo': known are nsfnet"),
        ("/networks/nsfnet/paths?source=XX", 404, "unknown node 'XX': nsfnet has CA1, CA2,"),
        ("/networks/nsfnet/paths/WA/WA/history", 404, "no path from WA to itself"),
        ("/networks/nsfnet/paths?limit=0", 422, "limit: input should be greater than or equal to 1, not '0'"),
        ("/networks/nsfnet/paths?sort=age", 422, "sort: input should be 'residual'"),
        ("/alerts/none", 404, "unknown alert 'none': known are a1b2c3d4"),
        ("/nothing", 404, "no such address: see /api/v1/docs"),
        ("/stream/state?network=foo", 404, "unknown network 'foo'"),
    ],
)
def test_refusals_are_problems_of_one_sentence(client: Client, path: str, status: int, says: str) -> None:
    """RFC 9457, with what is known in the detail."""
    answer = client.get(V1 + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_whatif_takes_a_link_down(client: Client) -> None:
    """Paths over the link take others, the mean gets worse, and nothing of the state changes."""
    before = client.get(f"{V1}/networks/nsfnet/state").json()
    question = {"links_down": ["CA1->UT"]}
    answer = client.post(f"{V1}/whatif", json=question).json()
    assert "CA1->UT" in answer["rerouted"]
    assert answer["unreachable"] == []
    assert answer["mean_after_s"] > answer["mean_before_s"]
    assert len(answer["worst"]) == 10
    used = {link["link"]: link["utilisation_after"] for link in answer["links"]}
    assert used["CA1->UT"] == 0
    assert client.get(f"{V1}/networks/nsfnet/state").json() == before


def test_whatif_says_what_becomes_unreachable(client: Client) -> None:
    """With every link into a node down, no path reaches it."""
    question = {"network": "nsfnet", "links_down": ["UT->CO", "TX->CO", "NE->CO"]}
    answer = client.post(f"{V1}/whatif", json=question).json()
    assert len(answer["unreachable"]) == 13
    assert all(path.endswith("->CO") for path in answer["unreachable"])
    assert next(p for p in answer["paths"] if p["path"] == "UT->CO")["after_s"] is None


def test_whatif_follows_weights_capacity_and_traffic(client: Client) -> None:
    """A dear link is avoided; more capacity is faster; more traffic is slower."""
    dear = client.post(f"{V1}/whatif", json={"weights": {"NE->CO": 50}}).json()
    wide = client.post(f"{V1}/whatif", json={"capacities": {"NE->CO": 1e9}}).json()
    more = client.post(f"{V1}/whatif", json={"traffic_scale": 1.2}).json()
    used = {link["link"]: link for link in dear["links"]}["NE->CO"]
    assert used["utilisation_after"] < used["utilisation_before"]
    assert wide["mean_after_s"] < wide["mean_before_s"] < more["mean_after_s"]


@pytest.mark.parametrize(
    ("question", "status", "says"),
    [
        ({"links_down": ["WA->XX"]}, 422, "no link 'WA->XX' in this network"),
        ({"link_down": ["WA->CA1"]}, 422, "link_down: extra inputs are not permitted"),
        ({"weights": {"WA->CA1": -1}}, 422, "weights.WA->CA1: input should be greater than 0, not -1"),
        ({"network": "foo"}, 404, "unknown network 'foo': known are nsfnet"),
    ],
)
def test_whatif_refuses_what_cannot_be(
    client: Client, question: dict[str, object], status: int, says: str
) -> None:
    """Unknown names and impossible figures, in one sentence."""
    answer = client.post(f"{V1}/whatif", json=question)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_before_the_first_window_everything_says_so() -> None:
    """An API without data answers politely, not with an error of its own."""
    client = Client(create_app(Store()))
    assert client.get(f"{V1}/networks").json() == []
    assert client.get(f"{V1}/health").status_code == 503
    answer = client.post(f"{V1}/whatif", json={})
    assert answer.status_code == 404
    assert answer.json()["detail"] == "say which network: known are none yet"
    assert client.get("/metrics").status_code == 200


def test_metrics_are_what_prometheus_reads(client: Client, store: Store) -> None:
    """Parsed by Prometheus' own parser: paths, alerts, components with their own figures, requests."""
    (beat,) = heartbeats(time.time_ns(), names=("collect",))
    feed(store, [msgspec.structs.replace(beat, metrics={"probes_sent": 7.0})])
    client.get(f"{V1}/networks/nsfnet/paths?limit=1")
    client.get(f"{V1}/networks/foo/state")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    assert samples["ndtwin_paths", ("network", "nsfnet"), ("what", "measured")] == 182
    assert samples["ndtwin_alerts", ("state", "firing")] == 1
    assert samples["ndtwin_component_up", ("component", "twin")] == 1
    assert samples["ndtwin_component_figure", ("component", "collect"), ("figure", "probes_sent")] == 7
    assert samples["ndtwin_windows_total", ("network", "nsfnet")] == 5
    route = ("route", f"{V1}/networks/{{network}}/paths")
    assert samples["ndtwin_api_requests_total", ("method", "GET"), route, ("status", "200")] == 1
    unknown = ("route", f"{V1}/networks/{{network}}/state")
    assert samples["ndtwin_api_requests_total", ("method", "GET"), unknown, ("status", "404")] == 1


def test_openapi_describes_every_address_with_its_answer(client: Client) -> None:
    """Each operation has a sentence and a schema, and the plain page shows each."""
    document = client.get(f"{V1}/openapi.json").json()
    page = client.get(f"{V1}/docs").text
    assert len(document["paths"]) >= 9
    for path, operations in document["paths"].items():
        assert path in page
        for operation in operations.values():
            assert operation["description"].rstrip().endswith(".") or "`" in operation["description"]
            assert operation["responses"]["200"]["content"]
    assert "http://" not in page
    assert "https://" not in page


def test_fresh_state_is_json_an_optimiser_can_validate(store: Store) -> None:
    """What the stream sends fits its published schema."""
    frame = store.network("nsfnet").shown
    assert frame is not None
    head, _, data = event(frame).partition("data: ")
    assert f"id: {frame.version}\n" in head
    fresh = FreshStateOut.model_validate(json.loads(data))
    assert len(fresh.paths) == 182
    assert all(path.predicted_s and path.traffic_bps > 0 for path in fresh.paths)
