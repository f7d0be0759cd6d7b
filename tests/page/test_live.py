"""The live view: replicas, queue, and where the devices' time went."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from page.fake_endpoint import FakeEndpoint

pytestmark = pytest.mark.page


def figure(page: Page, name: str) -> str:
    return page.locator("#live-figures div").filter(has=page.get_by_text(name, exact=True)).locator("dd").inner_text()


@pytest.fixture
def live(page: Page) -> Page:
    expect(page.locator("#live-status")).to_have_text("The endpoint is healthy; 2 replicas.")
    return page


def test_it_shows_what_the_endpoint_says(live: Page) -> None:
    rows = live.locator("#live-replicas tr")
    assert rows.locator("th").all_inner_texts() == ["replica 0\ncpu:0, then cpu:1", "replica 1\ncpu:1, then cpu:0"]
    assert (figure(live, "Half took at most"), figure(live, "99 of 100 at most")) == ("240 ms", "1.50 s")
    device = live.locator("#live-devices > li").first
    shares = device.locator("ul li").all_inner_texts()
    assert shares == ["50 % busy", "33 % no request was there", "17 % the other stage had it"]
    widths = device.locator(".bar > span").evaluate_all("(all) => all.map((one) => one.offsetWidth)")
    assert widths[0] == pytest.approx(widths[1] * 1.5, rel=0.05) == pytest.approx(widths[2] * 3, rel=0.05)
    expect(live.locator("#live-advice")).to_contain_text("The average device was busy for 50 % of the time")


def test_it_follows_what_happens(live: Page, endpoint: FakeEndpoint) -> None:
    live.get_by_role("button", name="Chick").click()
    expect(live.locator("#live-replicas tr").nth(1).locator("td").nth(1)).to_have_text("1")
    endpoint.figures |= {"in_flight": 12, "waiting": 5, "health": "below_minimum", "advice": "cpu:0 wants more."}
    endpoint.figures["replicas"]["replica-0"] |= {"restarts": 1, "pid": None}
    endpoint.figures["devices"]["cpu:0"]["recent_s"] |= {"busy": 0.0, "replacing": 30.0}
    expect(live.locator("#live-status")).to_have_text("The endpoint has fewer healthy replicas than it needs; 2 replicas.")
    assert (figure(live, "In flight"), figure(live, "Waiting")) == ("12", "5")
    expect(live.locator("#flow-text")).to_contain_text("at most 12 in flight (line), of which 5 waiting")
    first = live.locator("#live-replicas tr").first
    expect(first).to_contain_text("(being replaced)")
    assert first.locator("td").all_inner_texts()[-1] == "1"
    expect(live.locator("#live-devices > li").first).to_contain_text("50 % a replica was being replaced")
    expect(live.locator("#live-advice")).to_have_text("Cpu:0 wants more.")


def test_it_says_when_the_endpoint_is_gone_and_when_it_is_back(live: Page, endpoint: FakeEndpoint) -> None:
    endpoint.stop()
    expect(live.locator("#live-status")).to_contain_text("No figures: the endpoint at http://127.0.0.1:")
    endpoint.restart()
    expect(live.locator("#live-status")).to_have_text("The endpoint is healthy; 2 replicas.")


def test_it_pauses(live: Page, endpoint: FakeEndpoint) -> None:
    button = live.get_by_role("button", name="Pause")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    asked: list[str] = []
    live.on("request", lambda request: asked.append(request.url))
    live.wait_for_timeout(1500)  # a poll would have come: nothing else shows that none does
    assert asked == []
    endpoint.figures["waiting"] = 7
    button.click()
    expect(live.locator("#flow-text")).to_contain_text("7 waiting")


def test_with_multi_model_server_it_says_why_there_is_nothing(page_url: str, page: Page, endpoint: FakeEndpoint) -> None:
    endpoint.has_metrics = False
    page.goto(page_url)
    expect(page.locator("#live-status")).to_contain_text("multi-model-server has no /metrics")
    expect(page.locator("#live-status")).to_contain_text("MULTIGPU_FRONT_END=http")
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    page.get_by_role("button", name="Chick").click()
    expect(page.locator("#status")).to_contain_text("chick.jpg: answered")
