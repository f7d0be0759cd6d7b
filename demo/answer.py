"""One photo sent to `/invocations` and what came back."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from PIL import Image, ImageOps

from demo_error import DemoError

ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
_CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
# SageMaker waits no longer for an answer.
_ANSWER_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the endpoint.

    Attributes:
        photo: The photo's file name.
        kind: What was asked for, such as `matte`.
        status: HTTP status.
        attributes: From the custom attributes: `request_id`, `replica`, and milliseconds per hop.
        total_ms: From the first byte sent to the last one read.
        body: A PNG.
    """

    photo: str
    kind: str
    status: int
    attributes: dict[str, str]
    total_ms: float
    body: bytes


def post_photo(session: requests.Session, url: str, photo: Path, kind: str, accept: str) -> Answer:
    """Send a photo and check the answer: status 200 and a picture of the photo's size."""
    data = photo.read_bytes()
    headers = {"Content-Type": _CONTENT_TYPES[photo.suffix.lower()], "Accept": accept}
    started = time.monotonic()
    try:
        response = session.post(f"{url}/invocations", data=data, headers=headers, timeout=_ANSWER_LIMIT_S)
    except requests.RequestException as error:
        raise DemoError(f"{photo.name}: no answer ({type(error).__name__})") from error
    total_ms = (time.monotonic() - started) * 1000
    if response.status_code != 200:
        raise DemoError(f"{photo.name}: status {response.status_code}: {response.text[:300].strip()}")
    expected, actual = upright_size(data), upright_size(response.content)
    if actual != expected:
        raise DemoError(f"{photo.name}: the {kind} is {_by(actual)}, the photo {_by(expected)}")
    return Answer(
        photo=photo.name,
        kind=kind,
        status=response.status_code,
        attributes=parse_attributes(response.headers.get(ATTRIBUTES_HEADER, "")),
        total_ms=total_ms,
        body=response.content,
    )


def parse_attributes(text: str) -> dict[str, str]:
    """Read `name=value;name=value`, padded with spaces."""
    pairs = (pair.partition("=") for pair in text.strip().split(";") if pair)
    return {name: value for name, _, value in pairs}


def upright_size(data: bytes) -> tuple[int, int]:
    """Width and height of a picture as a viewer shows it, so after turning it as its EXIF says."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return ImageOps.exif_transpose(image).size
    except OSError as error:
        raise DemoError(f"not a picture: {error}") from error


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} by {size[1]}"
