"""The page without a mouse, without eyes, on a phone, in the dark."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from page.fake_endpoint import FakeEndpoint, a_photo

pytestmark = pytest.mark.page

CONTROLS = {"button", "link", "textbox", "searchbox", "slider", "radio", "spinbutton", "checkbox", "combobox", "ColorWell"}
NAMED = {*CONTROLS, "image", "progressbar", "table", "region", "group"}

# What has the focus, and whether one sees that; the file input is not seen itself, its label is.
FOCUS = """() => {
    const element = document.activeElement;
    const seen = element.type === "file" ? element.nextElementSibling : element;
    const { outlineStyle, outlineWidth } = getComputedStyle(seen);
    const { width, height } = seen.getBoundingClientRect();
    const radio = element.type === "radio" && `${element.name}=${element.value}`;
    const name = radio || element.id || element.innerText.trim();
    return { name, visible: outlineStyle === "solid" && parseFloat(outlineWidth) >= 2 && width > 8 && height > 8 };
}"""

# The lowest contrast of each element that has text of its own, to whatever lies behind it; of stripes the worst stripe.
CONTRASTS = """() => {
    const parse = (text) => [...text.matchAll(/rgba?\\(([^)]+)\\)/g)].map((match) => match[1].split(/[ ,/]+/).map(Number));
    const linear = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = ([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
    const ratio = (one, two) => (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    const behind = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const { backgroundColor, backgroundImage } = getComputedStyle(each);
            const stripes = parse(backgroundImage);
            if (stripes.length) return stripes;
            const [colour] = parse(backgroundColor);
            if (colour && (colour.length < 4 || colour[3] === 1)) return [colour];
        }
        return [[255, 255, 255]];
    };
    const rows = [];
    for (const element of document.querySelectorAll("body *")) {
        const texts = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
        const own = texts.map((node) => node.textContent).join("").trim();
        const style = getComputedStyle(element);
        if (!own || !element.checkVisibility() || element.closest(".unseen") || parseFloat(style.fontSize) === 0) continue;
        const [colour] = parse(style.color);
        rows.push({ own, contrast: Math.min(...behind(element).map((other) => ratio(light(colour), light(other)))) });
    }
    for (const element of document.querySelectorAll("button, .button:not(.primary), input[type=url], input[type=number]")) {
        if (!element.checkVisibility()) continue;
        const [edge] = parse(getComputedStyle(element).borderTopColor);
        const [card] = behind(element.parentElement);
        rows.push({ own: `edge of ${element.id || element.innerText}`, contrast: 1.5 * ratio(light(edge), light(card)) });
    }
    return rows;
}"""


def nodes_of(page: Page) -> list[tuple[str, str]]:
    """Role and name of all that a screen reader meets."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")
    heard = [node for node in tree["nodes"] if not node["ignored"]]
    return [(node["role"]["value"], node.get("name", {}).get("value", "").strip()) for node in heard]


def answer_and_live_view(page: Page) -> None:
    """Everything that can be on the page at a time, but for an error."""
    page.get_by_role("button", name="Chick").click()
    expect(page.locator("#answer")).to_be_visible()
    page.get_by_role("button", name="Send it 20 times").click()
    expect(page.locator("#status")).to_contain_text("20 of 20 answered")
    expect(page.locator("#live-devices .bar > span")).to_have_count(6)


def tab(page: Page) -> dict[str, Any]:
    page.keyboard.press("Tab")
    focus: dict[str, Any] = page.evaluate(FOCUS)
    return focus


def tab_to(page: Page, control: Locator) -> None:
    for _ in range(40):
        if control.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {control}")


def test_everything_that_can_be_operated_or_seen_has_a_name(page: Page) -> None:
    answer_and_live_view(page)
    nodes = nodes_of(page)
    assert [node for node in nodes if node[0] in NAMED and not node[1]] == []
    names = {role: sorted(name for other, name in nodes if other == role) for role in CONTROLS}
    assert names["slider"] == ["Before and after: photo to the left, cut-out to the right"]
    assert names["textbox"] == ["Or the address of a photo"]
    assert names["spinbutton"] == ["Longest side of the result, in pixels"]
    assert names["ColorWell"] == ["Which colour of your own"]
    assert names["radio"] == sorted(["Trimap", "Alpha", "Cut-out", "Checks", "White", "Black", "Green", "Blue", "Own colour"])
    samples = ["Portrait", "Chick", "Dandelion", "Feather"]
    assert names["button"] == sorted(["Choose a photo", *samples, "Ask", "Send it 20 times", "Pause"])
    assert names["link"] == ["Download the cut-out"]


def test_the_page_is_in_sections_under_headings(page: Page) -> None:
    answer_and_live_view(page)
    expect(page.get_by_role("main")).to_have_count(1)
    expect(page.get_by_role("banner")).to_have_count(1)
    assert page.locator("html").get_attribute("lang") == "en"
    for name in ("Photo", "Result", "The way of the request", "Live"):
        expect(page.get_by_role("region", name=name, exact=True)).to_have_count(1)
    levels = page.locator("h1, h2, h3, h4").evaluate_all("(all) => all.map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_what_changes_is_told_without_being_looked_at(page: Page, endpoint: FakeEndpoint) -> None:
    expect(page.get_by_role("status")).to_have_count(2)  # of the result, and of the live view
    expect(page.locator("#live-figures")).not_to_have_attribute("aria-live", "polite")  # not each second
    endpoint.hold = threading.Event()
    page.get_by_role("button", name="Chick").click()
    expect(page.locator("#result")).to_have_attribute("aria-busy", "true")
    endpoint.hold.set()
    expect(page.get_by_role("status").first).to_contain_text("chick.jpg: answered")
    expect(page.locator("#result")).not_to_have_attribute("aria-busy", "true")
    endpoint.failure = (500, b'{"message": "broken"}')
    page.get_by_role("button", name="Chick").click()
    expect(page.get_by_role("alert")).to_have_text("Status 500: broken.")


def test_tab_goes_through_all_controls_in_order_and_is_seen(page: Page) -> None:
    answer_and_live_view(page)
    page.locator("h1").evaluate("(heading) => { document.activeElement.blur(); heading.tabIndex = -1; heading.focus(); }")
    visited = []
    for _ in range(40):
        focus = tab(page)
        if focus["name"] in visited or not focus["name"] or focus["name"].startswith("Try the endpoint"):
            break
        assert focus["visible"], focus["name"]
        visited.append(focus["name"])
    assert visited == [
        *("file", "Portrait", "Chick", "Dandelion", "Feather", "url", "Ask", "max-side"),
        *("split", "shown=cutout", "background=checks", "own-colour", "download", "many", "pause"),
    ]


def test_all_of_it_works_by_keyboard_alone(page: Page, endpoint: FakeEndpoint, tmp_path: Path) -> None:
    tab_to(page, page.get_by_label("Choose a photo"))
    (tmp_path / "sky.jpg").write_bytes(a_photo())
    with page.expect_file_chooser() as chooser:
        page.evaluate("0")  # the browser has by then been told that the chooser is ours
        page.keyboard.press("Space")
    chooser.value.set_files(tmp_path / "sky.jpg")
    expect(page.locator("#status")).to_contain_text("sky.jpg: answered")
    tab_to(page, page.get_by_role("button", name="Dandelion"))
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("dandelion.jpg: answered")
    tab_to(page, page.locator("#url"))
    page.keyboard.type("https://photos.example/cat.jpg")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("cat.jpg: answered")
    tab_to(page, page.locator("#max-side"))
    page.keyboard.press("Control+a")
    page.keyboard.type("320")
    tab_to(page, page.get_by_role("slider"))
    page.keyboard.press("PageUp")
    expect(page.get_by_role("slider")).to_have_js_property("value", "60")
    tab_to(page, page.get_by_role("radio", name="Cut-out"))
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("radio", name="Alpha")).to_be_checked()
    tab_to(page, page.get_by_role("radio", name="Checks"))
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="White")).to_be_checked()
    tab_to(page, page.get_by_role("link", name="Download"))
    with page.expect_download():
        page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("button", name="Send it 20 times"))
    page.keyboard.press("Space")
    expect(page.locator("#status")).to_contain_text("20 of 20 answered")
    expect(page.locator("#many")).to_be_focused()
    tab_to(page, page.get_by_role("button", name="Pause"))
    page.keyboard.press("Enter")
    expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("width", [360, 600, 1024])
def test_nothing_is_wider_than_the_screen(page: Page, endpoint: FakeEndpoint, tmp_path: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})

    def too_wide() -> list[str]:
        told: list[str] = page.evaluate(
            """() => [...document.querySelectorAll("body *:not(.unseen):not([type=file])")]
                .filter((one) => one.checkVisibility() && !one.closest(".bar, .stage, .name"))
                .filter((one) => one.getBoundingClientRect().right > innerWidth ||
                    one.clientWidth && one.scrollWidth > one.clientWidth + 1)
                .map((one) => `${one.tagName} ${one.id} ${one.className} ${one.innerText}`)"""
        )
        return told

    assert too_wide() == []
    answer_and_live_view(page)
    name = "a_very_long_name_without_any_place_to_break_it_" * 4
    (tmp_path / f"{name}.jpg").write_bytes(a_photo())
    page.get_by_label("Choose a photo").set_input_files(tmp_path / f"{name}.jpg")
    expect(page.locator("#status")).to_contain_text(f"{name}.jpg: answered")
    assert too_wide() == []
    endpoint.failure = (400, b'{"message": "' + b"x" * 300 + b'"}')
    page.get_by_role("button", name="Chick").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert too_wide() == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page: Page, endpoint: FakeEndpoint, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    answer_and_live_view(page)
    endpoint.failure = (400, b'{"message": "no"}')
    page.get_by_role("button", name="Chick").click()
    expect(page.get_by_role("alert")).to_be_visible()
    endpoint.stop()
    expect(page.locator("#live-status")).to_contain_text("No figures")
    rows = page.evaluate(CONTRASTS)
    assert len(rows) > 80
    assert [row for row in rows if row["contrast"] < 4.5] == []
    brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
    assert max(brightness) < 40 if scheme == "dark" else min(brightness) > 220


def test_nothing_moves_for_those_who_asked_for_that(page: Page, endpoint: FakeEndpoint) -> None:
    running = "document.getAnimations().length"
    endpoint.hold = threading.Event()
    page.get_by_role("button", name="Chick").click()
    expect(page.locator("#result")).to_have_attribute("aria-busy", "true")
    assert page.evaluate(running) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(running) == 1  # the one that says that something is under way
    endpoint.hold.set()
    expect(page.locator("#answer")).to_be_visible()
