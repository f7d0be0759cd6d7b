"""The pictures of an answer: the border between before and after, the panels, the background, the download."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from page.fake_endpoint import SUBJECT, a_photo
from support import wait_until

pytestmark = pytest.mark.page

BLUE = (40, 80, 200)  # of a_photo()


@pytest.fixture
def answered(page: Page, tmp_path: Path) -> Page:
    """The page with the result for an all-blue photo: left of the border that, right of it a red box."""
    file = tmp_path / "sky at noon.jpg"
    file.write_bytes(a_photo())
    page.get_by_label("Choose a photo").set_input_files(file)
    expect(page.locator("#answer")).to_be_visible()
    return page


def stage_colour(page: Page, x: float, y: float) -> tuple[int, int, int]:
    """What is seen at a place of the stage, given as shares of its width and height."""
    with Image.open(io.BytesIO(page.locator("#stage").screenshot())) as image:
        red, green, blue = image.convert("RGB").getpixel((int(x * image.width), int(y * image.height)))  # type: ignore[misc]
    return red, green, blue


def sees(page: Page, x: float, y: float, colour: tuple[int, int, int]) -> None:
    """Wait for a colour: a picture is decoded a moment after it is set."""

    def alike() -> bool:
        return all(abs(one - two) <= 8 for one, two in zip(stage_colour(page, x, y), colour, strict=True))

    wait_until(alike, 5)


def test_the_photo_is_left_of_the_border_and_the_cut_out_right_of_it(answered: Page) -> None:
    sees(answered, 0.4, 0.4, BLUE)
    sees(answered, 0.6, 0.4, SUBJECT)


def test_the_border_moves_by_keyboard(answered: Page) -> None:
    slider = answered.get_by_role("slider", name="Before and after")
    slider.focus()
    answered.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "0 % photo, 100 % cut-out")
    sees(answered, 0.4, 0.4, SUBJECT)
    answered.keyboard.press("End")
    sees(answered, 0.6, 0.4, BLUE)
    answered.keyboard.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "99 % photo, 1 % cut-out")


def test_the_border_moves_by_dragging_the_picture(answered: Page) -> None:
    stage = answered.locator("#stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 3
    answered.mouse.move(box["x"] + box["width"] / 2, middle)
    answered.mouse.down()
    answered.mouse.move(box["x"] + box["width"] * 0.8, middle, steps=4)
    answered.mouse.up()
    expect(answered.get_by_role("slider")).to_have_js_property("value", "80")
    answered.mouse.move(box["x"], middle)
    expect(answered.get_by_role("slider")).to_have_js_property("value", "80")
    sees(answered, 0.7, 0.4, BLUE)


def test_a_background_is_put_behind_the_cut_out_without_asking_again(answered: Page) -> None:
    asked: list[str] = []
    answered.on("request", lambda request: asked.append(request.url) if "invocations" in request.url else None)
    colours = {"White": (255, 255, 255), "Black": (0, 0, 0), "Green": (31, 157, 85), "Blue": (47, 104, 224)}
    for name, colour in colours.items():
        answered.get_by_role("radio", name=name).check()
        sees(answered, 0.9, 0.1, colour)
        sees(answered, 0.6, 0.4, SUBJECT)
    assert asked == []


def test_a_background_of_ones_own_colour(answered: Page) -> None:
    answered.get_by_label("Which colour of your own").fill("#123456")
    expect(answered.get_by_role("radio", name="Own colour")).to_be_checked()
    sees(answered, 0.9, 0.1, (0x12, 0x34, 0x56))


def test_another_picture_stands_right_of_the_border(answered: Page) -> None:
    for name, inside in [("Trimap", (128, 128, 128)), ("Alpha", (255, 255, 255))]:
        answered.get_by_role("radio", name=name).check()
        sees(answered, 0.6, 0.4, inside)
        sees(answered, 0.9, 0.1, (0, 0, 0))
        sees(answered, 0.4, 0.4, BLUE)


def test_each_picture_has_a_panel_that_says_what_it_is(answered: Page) -> None:
    for name in ("trimap of sky at noon.jpg", "alpha of sky at noon.jpg", "cut-out of sky at noon.jpg", "The photo"):
        picture = answered.get_by_alt_text(name, exact=True)
        expect(picture).to_be_visible()
        assert picture.evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [96, 64]


def test_the_cut_out_can_be_downloaded(answered: Page) -> None:
    with answered.expect_download() as download:
        answered.get_by_role("link", name="Download the cut-out").click()
    assert download.value.suggested_filename == "sky_at_noon-cutout.png"
    with Image.open(download.value.path()) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (96, 64))
        assert image.getpixel((0, 0)) == (*SUBJECT, 0)


def test_a_photo_that_is_stored_on_its_side_stands_upright(page: Page) -> None:
    page.get_by_role("button", name="Portrait").click()
    expect(page.locator("#answer")).to_be_visible()
    box = page.locator("#stage").bounding_box()
    assert box is not None
    assert box["height"] / box["width"] == pytest.approx(640 / 480, rel=0.02)
