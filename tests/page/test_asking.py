"""All the ways in which a photo comes to the page, and what it says where there is no result."""

from __future__ import annotations

import base64
import io
import threading
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from demo_model import PHOTOS
from page.fake_endpoint import FakeEndpoint, a_photo

pytestmark = pytest.mark.page


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "blue sky.jpg"
    file.write_bytes(a_photo())
    return file


def sent_photo(endpoint: FakeEndpoint) -> bytes:
    return base64.b64decode(endpoint.requests[-1]["image"])


def pixels(width: int, height: int) -> str:
    return f"{width} \N{MULTIPLICATION SIGN} {height} pixels"


def drop_file(page: Page, file: Path) -> None:
    """As from a file manager: the browser's own drag and drop, not an event made in the page."""
    box = page.locator("#drop").bounding_box()
    assert box is not None
    place = {"x": box["x"] + box["width"] - 20, "y": box["y"] + 20}
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})


def test_the_page_opens_quietly_and_asks_its_own_server_alone(context: BrowserContext, page_url: str) -> None:
    page = context.new_page()
    urls: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(page_url)
    expect(page.locator("#live-status")).to_have_text("The endpoint is healthy; 2 replicas.")
    page.get_by_role("button", name="Chick").click()
    expect(page.locator("#status")).to_contain_text("chick.jpg: answered")
    assert said == []
    assert [url for url in urls if not url.startswith((page_url, f"blob:{page_url}"))] == []


def test_a_chosen_file_is_asked_for_once(page: Page, endpoint: FakeEndpoint, photo: Path) -> None:
    page.get_by_label("Choose a photo").set_input_files(photo)
    expect(page.locator("#status")).to_contain_text("blue sky.jpg: answered by replica 1 in")
    expect(page.locator("#status")).to_contain_text(pixels(96, 64))
    assert sent_photo(endpoint) == a_photo()
    assert [request["output"] for request in endpoint.requests] == [["trimap", "alpha", "cutout"]]


def test_the_same_file_may_be_chosen_again(page: Page, endpoint: FakeEndpoint, photo: Path) -> None:
    for times in (1, 2):
        page.get_by_label("Choose a photo").set_input_files(photo)
        expect(page.locator("#last-rows tr")).to_have_count(times)
    assert len(endpoint.requests) == 2


def test_a_dropped_file_is_asked_for(page: Page, endpoint: FakeEndpoint, photo: Path) -> None:
    drop_file(page, photo)
    expect(page.locator("#status")).to_contain_text("blue sky.jpg: answered")
    assert sent_photo(endpoint) == a_photo()
    assert page.url.startswith("http://127.0.0.1")  # the browser has not opened the photo in the page's place


def test_a_pasted_picture_is_asked_for(page: Page, endpoint: FakeEndpoint) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (1, 2, 3)).save(file, "PNG")
    page.evaluate(
        """async (text) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
        }""",
        base64.b64encode(file.getvalue()).decode(),
    )
    page.keyboard.press("Control+v")
    expect(page.locator("#status")).to_contain_text(pixels(30, 20))
    with Image.open(io.BytesIO(sent_photo(endpoint))) as image:
        assert image.convert("RGB").getpixel((5, 5)) == (1, 2, 3)


def test_a_pasted_address_is_asked_for(page: Page, endpoint: FakeEndpoint) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('https://photos.example/cat.jpg')")
    page.keyboard.press("Control+v")
    expect(page.locator("#status")).to_contain_text("cat.jpg: answered")
    assert endpoint.requests[-1]["url"] == "https://photos.example/cat.jpg"


def test_each_sample_has_a_button(page: Page, endpoint: FakeEndpoint) -> None:
    photos = sorted(PHOTOS.glob("[!.]*"))
    for photo in photos:
        page.get_by_role("button", name=photo.stem.capitalize()).click()
        expect(page.locator("#status")).to_contain_text(f"{photo.name}: answered")
        assert sent_photo(endpoint) == photo.read_bytes()
    expect(page.locator("[data-photo]")).to_have_count(len(photos))


def test_an_address_is_fetched_by_the_endpoint_and_not_by_the_browser(page: Page, endpoint: FakeEndpoint) -> None:
    page.get_by_label("Or the address of a photo").fill("https://photos.example/a/dog.jpg?size=1")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#status")).to_contain_text("dog.jpg: answered")
    assert endpoint.requests[-1]["url"] == "https://photos.example/a/dog.jpg?size=1"
    assert "image" not in endpoint.requests[-1]
    expect(page.locator("#panel-photo-figure")).to_be_hidden()
    expect(page.locator("#split-label")).to_contain_text("The endpoint alone has seen this photo")
    expect(page.get_by_alt_text("Left of the border: alpha of dog.jpg")).to_be_visible()


def test_what_is_no_address_is_not_sent(page: Page, endpoint: FakeEndpoint) -> None:
    page.get_by_label("Or the address of a photo").fill("dog")
    page.get_by_role("button", name="Ask").click()
    assert page.locator("#url").evaluate("(input) => input.validity.typeMismatch")
    assert endpoint.requests == []


def test_a_longest_side_is_passed_on_and_none_is_left_out(page: Page, endpoint: FakeEndpoint) -> None:
    side = page.get_by_label("Longest side of the result")
    for value, expected in [("48", 48), ("", None)]:
        side.fill(value)
        page.get_by_role("button", name="Portrait").click()
        expect(page.locator("#status")).to_contain_text(pixels(36, 48) if expected else pixels(480, 640))
        assert endpoint.requests[-1].get("max_side") == expected
    side.fill("0")
    page.get_by_role("button", name="Portrait").click()
    expect(page.get_by_role("alert")).to_have_text(
        "The longest side of the result must be a whole number from 1 to 20000, or empty."
    )
    assert len(endpoint.requests) == 2


def test_a_newer_photo_takes_the_place_of_one_under_way(page: Page, endpoint: FakeEndpoint) -> None:
    endpoint.hold = threading.Event()
    page.get_by_role("button", name="Chick").click()
    expect(page.locator("#status")).to_have_text("Asking for chick.jpg …")
    page.get_by_role("button", name="Feather").click()
    expect(page.locator("#status")).to_have_text("Asking for feather.webp …")
    endpoint.hold.set()
    expect(page.locator("#status")).to_contain_text("feather.webp: answered")
    expect(page.locator("#last-rows tr")).to_have_count(1)


def test_a_failure_is_said_in_words_and_the_next_photo_works(page: Page, endpoint: FakeEndpoint) -> None:
    for status, body, words in [
        (400, b'{"error": "bad_request", "message": "\'image\' is not base64"}', "Status 400: 'image' is not base64."),
        (500, b'{"error": "error", "message": "the request failed"}', "Status 500: the request failed."),
        (503, b'{"message": "the queue is full", "retry_after_s": 1}', "Status 503: the queue is full. Try again in 1 s."),
        (502, b"<html>bad</html>", "Status 502: it gave no reason."),
        (200, b'{"alpha": "AAAA"}', "The endpoint's answer has no trimap, no cutout."),
    ]:
        endpoint.failure = (status, body)
        page.get_by_role("button", name="Chick").click()
        expect(page.get_by_role("alert")).to_have_text(words)
        endpoint.failure = None
        page.get_by_role("button", name="Chick").click()
        expect(page.locator("#status")).to_contain_text("chick.jpg: answered")
        expect(page.locator("#error")).to_be_hidden()


def test_an_endpoint_that_is_down_is_said_in_words(page: Page, endpoint: FakeEndpoint) -> None:
    endpoint.stop()
    page.get_by_role("button", name="Chick").click()
    expect(page.get_by_role("alert")).to_contain_text(f"Status 502: the endpoint at http://127.0.0.1:{endpoint.port} cannot be")
    expect(page.locator("#answer")).to_be_hidden()


def test_what_is_no_picture_is_not_sent(page: Page, endpoint: FakeEndpoint, tmp_path: Path) -> None:
    text, large = tmp_path / "notes.txt", tmp_path / "large.jpg"
    text.write_text("no picture")
    with large.open("wb") as opened:
        opened.truncate(19_000_000)
    for file, words in [(text, "notes.txt is not a picture: its type is text/plain."), (large, "large.jpg has 19.0 MB")]:
        drop_file(page, file)
        expect(page.get_by_role("alert")).to_contain_text(words)
    assert endpoint.requests == []
