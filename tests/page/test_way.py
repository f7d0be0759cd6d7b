"""The time line of a request, the last requests, and twenty at a time."""

from __future__ import annotations

import re
import threading

import pytest
from playwright.sync_api import Page, expect

from page.fake_endpoint import HOPS, FakeEndpoint

pytestmark = pytest.mark.page


def ask(page: Page, times: int = 1) -> None:
    for _ in range(times):
        before = page.locator("#last-rows tr").first.text_content() if page.locator("#last-rows tr").count() else ""
        page.get_by_role("button", name="Chick").click()
        expect(page.locator("#last-rows tr").first).not_to_have_text(before or "none")


def test_the_segments_are_the_hops_of_the_answer_in_their_order(page: Page, endpoint: FakeEndpoint) -> None:
    endpoint.delay_s = sum(HOPS.values()) / 1000
    ask(page)
    names = [name.removesuffix("_ms") for name in HOPS]
    segments = page.locator("#way-bar > span")
    assert segments.evaluate_all("(all) => all.map((one) => one.dataset.hop)") == [*names, "outside"]
    shares = segments.evaluate_all("(all) => all.map((one) => Number(getComputedStyle(one).flexGrow))")
    assert shares[:-1] == list(HOPS.values())
    widths = dict(zip(names, segments.evaluate_all("(all) => all.map((one) => one.offsetWidth)"), strict=False))
    assert widths["stage_1"] > 1.8 * widths["stage_2"] > 0
    told = re.fullmatch(r"([\d,]+) ms as your browser saw it, replica 1", page.inner_text("#way-summary"))
    assert told is not None
    assert abs(sum(shares) - int(told[1].replace(",", ""))) <= 1


def test_the_same_stands_in_a_table(page: Page) -> None:
    ask(page)
    table = page.get_by_role("table", name="Milliseconds of each hop, in the order of the way")
    rows = table.locator("tbody tr").evaluate_all("(rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText))")
    assert [(name.split("\n")[-1].strip(), ms) for name, _, ms in rows[:-1]] == [
        (f"{i}{name.removesuffix('_ms').replace('_', ' ')}", f"{ms:.1f}") for i, (name, ms) in enumerate(HOPS.items(), 1)
    ]
    assert all(words for _, words, _ in rows)
    expect(table.get_by_role("rowheader", name="stage 1", exact=True)).to_be_visible()  # the number is for the eyes


def test_a_request_that_failed_has_a_way_too(page: Page, endpoint: FakeEndpoint) -> None:
    endpoint.failure = (400, b'{"message": "no"}')
    ask(page)
    expect(page.locator("#way-summary")).to_contain_text("no replica took part, status 400")
    expect(page.locator("#way-bar > span")).to_have_count(2)
    expect(page.locator("#last-rows tr").first).to_contain_text("status 400")


def test_the_last_eight_requests_show_the_replicas_taking_turns(page: Page) -> None:
    ask(page, 10)
    rows = page.locator("#last-rows tr")
    expect(rows).to_have_count(8)
    assert rows.locator("th").all_inner_texts() == [str(number) for number in range(10, 2, -1)]
    assert rows.locator(".replica").all_inner_texts() == ["replica 0", "replica 1"] * 4


def test_twenty_times_shows_who_answered_how_often(page: Page, endpoint: FakeEndpoint) -> None:
    ask(page)
    page.get_by_role("button", name="Send it 20 times").click()
    expect(page.locator("#status")).to_have_text("20 of 20 answered; replica 0: 10, replica 1: 10.")
    assert len(endpoint.requests) == 21
    assert all(request == endpoint.requests[0] for request in endpoint.requests)
    assert endpoint.most_in_flight <= 4
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 20)
    expect(page.get_by_role("button", name="Send it 20 times")).to_be_visible()


def test_twenty_times_counts_failures_and_can_be_stopped(page: Page, endpoint: FakeEndpoint) -> None:
    ask(page)
    endpoint.failure = (503, b'{"message": "the queue is full"}')
    page.get_by_role("button", name="Send it 20 times").click()
    expect(page.locator("#status")).to_have_text("20 of 20 answered; status 503: 20.")
    endpoint.hold = threading.Event()
    page.get_by_role("button", name="Send it 20 times").click()
    page.get_by_role("button", name="Stop sending").click()
    expect(page.locator("#status")).to_have_text("Stopped: 0 of 20 answered.")
    endpoint.hold.set()
    endpoint.failure = None
    ask(page)
