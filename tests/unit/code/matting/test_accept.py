from __future__ import annotations

import pytest

from matting.accept import choose_type
from multigpu_inference.errors import NotAcceptable


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/png;cutout", "image/png;cutout"),
        ("image/png; cutout; q=0.5", "image/png;cutout"),
        ("application/json", "application/json"),
        ("application/*", "application/json"),
        ("application/x-npy", "application/x-npy"),
        ("text/html, application/x-npy", "application/x-npy"),
        ("application/json, image/png", "application/json"),
        ("application/json;q=0.3, image/png;q=0.8", "image/png"),
        ("image/png;q=0, application/json;q=0.1", "application/json"),
        ("image/png;q=high, application/json;q=0.1", "application/json"),
        ("application/json;q=7, */*;q=0.1", "image/png"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "image/png"),
    ],
)
def test_chooses(accept: str, chosen: str) -> None:
    assert choose_type(accept) == chosen


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "image/png;q=0", ",", "image/png;q=nan", "\u2603"])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match=r"image/png.*application/json"):
        choose_type(accept)
