from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from matting.s3_location import S3Location
from matting.save import Save
from multigpu_inference.errors import BadRequest


@pytest.mark.parametrize(
    ("name", "accept", "saved_as", "media_type"),
    [
        ("cat", "", "cat.png", "image/png"),
        ("cat", "image/webp", "cat.webp", "image/webp"),
        ("cat", "application/x-npy", "cat.npy", "application/x-npy"),
        ("cat", "application/json", "cat.png", "image/png"),
        ("cat", "video/mp4", "cat.png", "image/png"),
        ("cat.webp", "video/mp4", "cat.webp", "image/webp"),
        ("b-c_d/cat.png", "image/webp", "b-c_d/cat.png", "image/png"),
        ("cat.WEBP", "", "cat.WEBP", "image/webp"),
        ("cat.npy", "image/png", "cat.npy", "application/x-npy"),
        ("photo.v2", "", "photo.v2.png", "image/png"),
        ("a.jpg/cat", "", "a.jpg/cat.png", "image/png"),
        ("x" * 200, "", "x" * 200 + ".png", "image/png"),
    ],
)
def test_the_ending_says_what_is_stored_or_else_accept(name: str, accept: str, saved_as: str, media_type: str) -> None:
    save = Save.of_name(name).with_accept(accept)
    assert (save.name, save.media_type) == (saved_as, media_type)
    assert save.with_accept("image/webp") == save


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "/cat",
            "cat/",
            "a//b",
            ".",
            "..",
            "../cat",
            "a/../b",
            "a/./b",
            "a/..",
            "a b",
            "ä",
            "a\\b",
            "cat\n",
            "a%2e",
            "a/b/c",
            ".hidden",
            "a/.hidden",
            "..a",
            "x" * 201,
        ),
        *(None, 3, ["cat"]),
    ],
)
def test_names_that_are_not_allowed(name: Any) -> None:
    with pytest.raises(BadRequest, match=r"^'save_name' is .*: allowed are 1 to 200 of the characters"):
        Save.of_name(name)


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".gif", ".tiff"])
def test_other_formats_are_refused(ending: str) -> None:
    with pytest.raises(BadRequest, match=rf"'save_name' ends in {ending.lower()}: possible are .png, .webp and .npy"):
        Save.of_name(f"cat{ending}")


@pytest.mark.parametrize(("prefix", "key"), [("", "a/cat.png"), ("out/mattes", "out/mattes/a/cat.png")])
def test_the_key_lies_under_the_prefix(prefix: str, key: str) -> None:
    save = replace(Save.of_name("a/cat.png"), place=S3Location("bucket", prefix))
    assert save.location == S3Location("bucket", key)
