from __future__ import annotations

import pytest

from matting.accept import choose, or_any
from multigpu_inference.errors import NotAcceptable


@pytest.mark.parametrize(
    ("accept", "media_type", "output"),
    [
        ("", "image/png", ""),
        ("*/*", "image/png", ""),
        ("image/*", "image/png", ""),
        ("IMAGE/PNG", "image/png", ""),
        ("image/webp", "image/webp", ""),
        ("image/png;cutout", "image/png", "cutout"),
        ("image/webp; Trimap", "image/webp", "trimap"),
        ("image/*;alpha", "image/png", "alpha"),
        ("image/png; cutout; q=0.5", "image/png", "cutout"),
        ("image/png; cutout; q=0.5, image/webp;q=0.7", "image/webp", ""),
        ("application/json", "application/json", ""),
        ("application/*", "application/json", ""),
        ("application/x-npy", "application/x-npy", ""),
        ("application/x-npy;trimap", "application/x-npy", "trimap"),
        ("text/html, application/x-npy", "application/x-npy", ""),
        ("application/json, image/png", "application/json", ""),
        ("application/json;q=0.3, image/png;q=0.8", "image/png", ""),
        ("image/png;q=0, application/json;q=0.1", "application/json", ""),
        ("image/png;q=high, application/json;q=0.1", "application/json", ""),
        ("application/json;q=7, */*;q=0.1", "image/png", ""),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "image/png", ""),
    ],
)
def test_chooses(accept: str, media_type: str, output: str) -> None:
    assert choose(accept) == (media_type, output)


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "image/png;q=0", ",", "image/png;q=nan", "\u2603"])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match=r"image/png.*image/webp.*application/json"):
        choose(accept)


@pytest.mark.parametrize(("accept", "instead"), [("image/webp;cutout", "image/webp;cutout"), ("video/mp4", "*/*"), ("", "")])
def test_what_can_be_made_of_nothing_that_is_accepted(accept: str, instead: str) -> None:
    assert or_any(accept) == instead


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "image/png, application/*;q=0.1"])
def test_several_outputs_are_json(accept: str) -> None:
    assert choose(accept, only_json=True).media_type == "application/json"


@pytest.mark.parametrize("accept", ["image/png", "image/*", "application/x-npy", "application/json;q=0"])
def test_several_outputs_are_nothing_else(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="several outputs are answered together as application/json only"):
        choose(accept, only_json=True)
