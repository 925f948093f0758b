"""The page in headless Chromium, served by a real server over a store that a rehearsal feeds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright
from rehearsal import WINDOW_NS, Rehearsal, event, feed, heartbeats, link_alert, with_queues

from ndtwin.api.app import create_app
from ndtwin.api.store import Store
from ndtwin.page.mount import mount_page
from ndtwin.serve import bind

pytestmark = [pytest.mark.browser, pytest.mark.alone]
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCROLL = """async (top) => {
  document.querySelector('.paths .body').scrollTop = top;
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 60)));
  return [...document.querySelectorAll('[data-path]')].map((row) => row.dataset.path);
}"""
CUT_ROWS = "[...document.querySelectorAll('.paths .row')].filter((e) => e.scrollWidth > e.clientWidth).length"
CHANGE_MS = 5_000  # a change reaches the browser within this


@dataclass
class Stage:
    """A served store and the rehearsal that feeds it."""

    url: str
    store: Store
    rehearsal: Rehearsal = field(
        default_factory=lambda: Rehearsal(start_ns=(time.time_ns() // WINDOW_NS - 30) * WINDOW_NS)
    )

    def play(self, windows: int = 1) -> int:
        """Feed the next windows; the version of the last."""
        version = 0
        for state, prediction in self.rehearsal.windows(windows):
            feed(self.store, [state, prediction])
            version = state.version
        feed(self.store, heartbeats(time.time_ns()))
        return version


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One server for all tests of this module: NiceGUI keeps its pages process-wide."""
    store, listener = Store(), bind("127.0.0.1", 0)
    app = create_app(store)
    mount_page(app, store)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield Stage(f"http://127.0.0.1:{listener.getsockname()[1]}/", store)
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser(need_tool: Callable[[str], str]) -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=need_tool("chromium"), args=list(FLAGS))
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """An open page and everything it asked for."""

    page: Page
    requests: list[str]
    errors: list[str]


@pytest.fixture
def visit(browser: Browser, stage: Stage) -> Iterator[Visit]:
    """The page, opened; afterwards: no script failed, and nothing was asked of anybody else."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(20_000)
    seen = Visit(page, [], [])
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("websocket", lambda socket: seen.requests.append(socket.url))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda said: seen.errors.append(said.text) if said.type == "error" else None)
    page.goto(stage.url)
    yield seen
    page.close()
    assert seen.errors == []
    host = stage.url.partition("://")[2]
    assert [url for url in seen.requests if not url.partition("://")[2].startswith(host)] == []


def test_the_page_waits_then_fills_itself(stage: Stage, visit: Visit) -> None:
    """Before the first window it says what it waits for; then map and 182 paths appear without a reload."""
    page = visit.page
    expect(page.locator(".waiting .said")).to_contain_text("waiting for the first")
    loads = sum(url == stage.url for url in visit.requests)
    version = stage.play(3)
    expect(page.locator('[data-role="version"]')).to_have_text(str(version), timeout=CHANGE_MS)
    expect(page.locator('[data-role="count"]')).to_have_text("182 of 182 paths")
    expect(page.locator("[data-link]")).to_have_count(42)
    expect(page.locator("[data-node]")).to_have_count(14)
    expect(page.locator('[data-component="twin"]')).to_have_attribute("data-state", "running")
    assert sum(url == stage.url for url in visit.requests) == loads


def test_every_path_can_be_reached_by_scrolling(stage: Stage, visit: Visit) -> None:
    """The rows in sight are a few; scrolling through the table shows each of the 182 paths once."""
    version, page = stage.play(), visit.page
    expect(page.locator('[data-role="version"]')).to_have_text(str(version), timeout=CHANGE_MS)
    page.locator(".paths .head .name").click()  # by name: the order does not move while we scroll
    assert page.locator(".paths .body [data-path]").count() < 60
    seen: set[str] = set()
    for top in range(0, 182 * 25, 200):
        seen |= set(page.evaluate(SCROLL, top))
    assert len(seen) == 182


def test_values_move_with_every_window_and_the_choice_stays(stage: Stage, visit: Visit) -> None:
    """A new window changes a row's figures and the clock, not what was chosen; nothing is loaded again."""
    stage.play()
    page = visit.page
    page.locator(".paths input").fill("WA->NY")
    row = page.locator('[data-path="WA->NY"]')
    row.click()
    expect(row).to_have_class("row chosen")
    before, requests = row.locator(".measured").inner_text(), len(visit.requests)
    version = stage.play()
    expect(page.locator('[data-role="version"]')).to_have_text(str(version), timeout=CHANGE_MS)
    expect(row.locator(".measured")).not_to_have_text(before)
    expect(row).to_have_class("row chosen")
    expect(page.locator(".path-panel .aside")).to_have_text("WA → NY")
    expect(page.locator(".paths input")).to_have_value("WA->NY")
    assert len(visit.requests) == requests  # all of it came through the open websocket


def test_a_click_on_a_link_filters_the_paths(stage: Stage, visit: Visit) -> None:
    """Only the paths over the link remain; the chip brings all back."""
    stage.play()
    page = visit.page
    count = page.locator('[data-role="count"]')
    expect(count).to_have_text("182 of 182 paths")
    page.locator('[data-link="CA1->UT"] .grip').dispatch_event("click")
    expect(count).not_to_have_text("182 of 182 paths", timeout=CHANGE_MS)
    expect(page.locator(".link-panel .aside")).to_have_text("CA1 → UT")
    page.locator(".chip").click()
    expect(count).to_have_text("182 of 182 paths", timeout=CHANGE_MS)


def test_class_queues_stand_beside_the_chart_of_their_link(stage: Stage, visit: Visit) -> None:
    """What each class sends, drops and holds, the dropping class first; nothing for a link without them."""
    page, queues = visit.page, visit.page.locator(".link-panel .queues")
    told = {"BE": (3e6, 41.5, 12_400.0), "EF": (1.25e6, 0.0, 180.0), "AF": (2e6, 0.0, 0.0)}
    state, prediction = stage.rehearsal.window()
    feed(stage.store, [with_queues(state, stage.rehearsal.network, {"CA1->UT": told}), prediction])
    page.locator('[data-link="CA1->UT"] .grip').dispatch_event("click")
    expect(queues).to_have_attribute("data-queues", "CA1->UT", timeout=CHANGE_MS)
    rows = queues.locator("tbody tr").all_inner_texts()
    assert [row.split() for row in rows] == [
        ["BE", "3.00", "41.5", "12.4"],
        ["AF", "2.00", "0", "0.0"],
        ["EF", "1.25", "0", "0.2"],
    ]
    expect(queues.locator("tr.drops")).to_have_count(1)
    chart = page.locator(".link-panel .nicegui-echart").bounding_box()
    table = queues.bounding_box()
    assert chart is not None
    assert table is not None
    assert chart["width"] > 150
    assert chart["x"] + chart["width"] <= table["x"] + 1
    page.locator('[data-link="UT->CO"] .grip').dispatch_event("click")
    expect(page.locator(".link-panel .aside")).to_have_text("UT → CO", timeout=CHANGE_MS)
    expect(queues).to_have_count(0)


def test_an_alert_appears_with_its_suspect_and_goes(stage: Stage, visit: Visit) -> None:
    """Firing: the alert, its prime suspect, and the link on the map; resolved: all calm again."""
    stage.play()
    page, now_ns = visit.page, time.time_ns()
    expect(page.locator(".alerts .calm")).to_be_visible()
    feed(stage.store, [link_alert("firing", now_ns, starts_at_ns=now_ns)])
    alert = page.locator('[data-alert="a1b2c3d4"]')
    expect(alert).to_have_attribute("data-state", "firing", timeout=CHANGE_MS)
    prime = alert.locator("[data-suspect]").first
    expect(prime).to_contain_text("CA1->UT")
    expect(prime).to_contain_text("86 %")
    expect(page.locator('[data-link="CA1->UT"]')).to_have_class("link suspect")
    expect(page.locator('[data-role="verdict"]')).to_have_text("1 alert firing")
    feed(stage.store, [link_alert("resolved", now_ns + 1, starts_at_ns=now_ns)])
    expect(alert).to_have_attribute("data-state", "resolved", timeout=CHANGE_MS)
    expect(page.locator(".link.suspect")).to_have_count(0)


@pytest.mark.parametrize("width", [1440, 1280, 390])
def test_the_journal_can_be_read_at_every_width(stage: Stage, visit: Visit, width: int) -> None:
    """What components did is told in letters that have a size, also where the top bar shows dots alone."""
    stage.play()
    feed(
        stage.store, heartbeats(time.time_ns(), pid=1000 + width, names=("twin",))
    )  # another process: it restarted
    page = visit.page
    page.set_viewport_size({"width": width, "height": 800})
    entry = page.locator(".journal .entry.component").first
    expect(entry).to_contain_text("twin", timeout=CHANGE_MS)
    box = entry.locator("span").bounding_box()
    assert box is not None
    assert box["height"] > 10


def test_names_from_devices_are_shown_as_text(stage: Stage, visit: Visit) -> None:
    """A device name or detail that looks like HTML is text: it can not run in the operator's browser."""
    stage.play()
    evil = "<img src=x onerror=\"document.title='owned'\">"
    feed(stage.store, [event(time.time_ns(), device=evil)])
    page = visit.page
    expect(page.locator(".journal")).to_contain_text("<img src=x", timeout=CHANGE_MS)
    assert page.locator(".journal img").count() == 0
    assert page.title() == "ndtwin"


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1440, 900), (1280, 800), (1024, 768)])
def test_the_page_fits_its_window(stage: Stage, visit: Visit, width: int, height: int) -> None:
    """No scroll bars around the page, no column of the table cut off, the verdict within the top bar."""
    stage.play()
    page = visit.page
    page.set_viewport_size({"width": width, "height": height})
    expect(page.locator("[data-path]").first).to_be_visible()
    size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size == [width, height]
    assert page.evaluate(CUT_ROWS) == 0
    assert page.evaluate("(e => [e.scrollWidth - e.clientWidth])(document.querySelector('.top'))") == [0]


def test_on_a_telephone_the_page_is_one_column(stage: Stage, visit: Visit) -> None:
    """390 pixels wide: nothing sideways, every panel as wide as the page, and alerts before all others."""
    stage.play()
    page = visit.page
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator("[data-path]").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(CUT_ROWS) == 0
    boxes = page.evaluate(
        "[...document.querySelectorAll('.panel')].map((e) => [e, e.getBoundingClientRect()])"
        ".map(([e, box]) => [e.className, box.x, box.y, box.width, box.height])"
    )
    assert len(boxes) == 6
    assert all(wide > 370 and high > 40 for _, _, _, wide, high in boxes)
    assert "alert-panel" in min(boxes, key=lambda box: box[2])[0]
    page.evaluate("window.scrollTo(0, 400)")
    assert page.evaluate("window.scrollY") > 100
