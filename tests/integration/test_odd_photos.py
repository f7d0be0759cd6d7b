"""Photos of odd formats, broken and malicious ones: answered rightly, or refused in one line that says what is wrong."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import requests
from PIL import Image

from integration.endpoint import Endpoint
from integration.odd.photo import ANY, BROKEN, NO_PICTURE, TOO_MANY_PIXELS, OddPhoto
from integration.odd_photos import mutations, odd_photos
from integration.whole_photo import whole_photo_endpoint
from matting.decode import decode
from multigpu_inference.errors import BadRequest, PayloadTooLarge, ServingError
from unit.code.matting.pictures import corners, file_of

PHOTOS = odd_photos()
TYPES = ("image/jpeg", "image/png", "image/webp", "application/octet-stream", "application/x-image")  # its own or not
SLOWEST_S = 5.0  # tens of milliseconds, but for other work on these cores
WARM = 30  # requests after which nothing should be new to a process
GROWN_MB = 250  # what a worker keeps of its largest photo for the next one
LIST_OF = 50


@pytest.fixture(scope="module")
def matting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    server = whole_photo_endpoint(tmp_path_factory.mktemp("odd"))
    try:
        yield server.start().ready()
    finally:
        server.clean_up()


def judge_refusal(photo: OddPhoto, status: int, says: str) -> str:
    """What is wrong with it; "" where it is right."""
    right = photo.refusal and status in photo.status and re.search(photo.refusal, says) and "\n" not in says
    return "" if right else f"{photo}: {status} {says}"


def judge_pixels(photo: OddPhoto, pixels: npt.NDArray[np.uint8]) -> str:
    """The same of a picture that came back, uint8 [H, W, 3 or more]."""
    size = pixels.shape[1], pixels.shape[0]
    if photo.size not in (size, ANY):
        return f"{photo}: answered as {size}, expected {photo.size or photo.refusal}"
    for x, y, colour in photo.seen:
        if np.abs(pixels[y, x, :3].astype(int) - colour).max() > photo.apart:
            return f"{photo}: {pixels[y, x]} at {x}, {y}, expected {colour}"
    return ""


def test_there_are_enough_and_each_has_a_name() -> None:
    assert len({photo.name for photo in PHOTOS}) == len(PHOTOS) > 400


@pytest.mark.filterwarnings("ignore")  # Pillow's, on broken files
@pytest.mark.parametrize("photo", PHOTOS, ids=str)
def test_is_decoded_to_its_colours_or_refused(photo: OddPhoto) -> None:
    data = photo.make()
    started = time.monotonic()
    try:
        wrong = judge_pixels(photo, decode(data).pixels.numpy())
    except ServingError as error:
        wrong = judge_refusal(photo, error.status, error.message)
    assert wrong == ""
    assert time.monotonic() - started < SLOWEST_S


def test_two_thousand_mutations_are_pictures_or_refused() -> None:
    said: set[str] = set()
    answered = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in mutations(seed=1, count=2000):
            started = time.monotonic()
            try:
                decode(data)
                answered += 1
            except (BadRequest, PayloadTooLarge) as error:  # and nothing else
                said.add(str(error))
            assert time.monotonic() - started < 1, data.hex()
    assert answered > 100
    assert all(re.search(f"{BROKEN}|{NO_PICTURE}|{TOO_MANY_PIXELS}", each) for each in said)


def _raw(matting: Endpoint, number: int, data: bytes) -> requests.Response:
    return matting.invoke(data, TYPES[number % len(TYPES)], Accept="image/png;cutout")


def _in_json(matting: Endpoint, number: int, data: bytes) -> requests.Response:
    return matting.invoke({"image": base64.b64encode(data).decode(), "output": "cutout"}, Accept=ACCEPTED[number % 3])


def _in_a_form(matting: Endpoint, number: int, data: bytes) -> requests.Response:
    files = {"photo": ("photo.bin", data, TYPES[number % len(TYPES)])}
    fields = {"output": "cutout", "background": "white"}
    return requests.post(f"{matting.url}/invocations", files=files, data=fields, headers={"Accept": "*/*"}, timeout=30)


def _in_a_form_alone(matting: Endpoint, number: int, data: bytes) -> requests.Response:
    files = {"photo": ("photo.bin", data, TYPES[number % len(TYPES)])}
    return requests.post(f"{matting.url}/invocations", files=files, headers={"Accept": "image/webp;cutout"}, timeout=30)


WAYS = (_raw, _in_json, _in_a_form, _in_a_form_alone)
ACCEPTED = ("application/json", "application/x-npy", "image/png")


def _judged(photo: OddPhoto, answer: requests.Response) -> str:
    content_type = answer.headers["Content-Type"]
    if content_type == "application/json":
        assert len(answer.text.strip().splitlines()) == 1
        return _judged_record(photo, answer.json())
    if content_type == "application/x-npy":
        return judge_pixels(photo, np.load(io.BytesIO(answer.content)))
    apart = 40 if content_type == "image/webp" else 0  # its colours are not kept without loss
    return judge_pixels(replace(photo, apart=photo.apart + apart), _opened(answer.content))


def _judged_record(photo: OddPhoto, record: dict[str, Any]) -> str:
    if "error" in record:
        status = record.get("status", 400 if record["error"] == "bad_request" else 413)
        return judge_refusal(photo, status, record["message"])
    pixels = _opened(base64.b64decode(record["cutout"]))
    return judge_pixels(photo, pixels) if pixels.shape[1::-1] == (record["width"], record["height"]) else f"{photo}: {record}"


def _opened(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


def _rss_mb(matting: Endpoint) -> dict[int, float]:
    return {process.pid: process.memory_info().rss / 1e6 for process in matting.descendants()}


def test_all_through_the_endpoint(matting: Endpoint) -> None:
    """One after the other in four ways, in the same order each time; then the endpoint is as it was."""
    wrong, slow = [], []
    before: dict[int, float] = {}
    for number, photo in enumerate(PHOTOS):
        data = photo.make()
        started = time.monotonic()
        answer = WAYS[number % len(WAYS)](matting, number, data)
        took_s = time.monotonic() - started
        wrong += [found] if (found := _judged(photo, answer)) else []
        slow += [(photo.name, took_s)] if took_s > SLOWEST_S else []
        if number == WARM:
            before = _rss_mb(matting)
    assert wrong == []
    assert slow == []
    _is_as_it_was(matting, before)


def test_all_in_lists(matting: Endpoint) -> None:
    before: dict[int, float] = {}
    wrong = []
    for at in range(0, len(PHOTOS), LIST_OF):
        photos = PHOTOS[at : at + LIST_OF]
        items = [{"image": base64.b64encode(photo.make()).decode(), "output": "cutout"} for photo in photos]
        answer = matting.invoke(json.dumps(items))
        assert answer.status_code == 200, answer.text
        judged = [_judged_record(photo, record) for photo, record in zip(photos, answer.json(), strict=True)]
        wrong += [found for found in judged if found]
        before = before or _rss_mb(matting)
    assert wrong == []
    _is_as_it_was(matting, before)


def _is_as_it_was(matting: Endpoint, before_mb: dict[int, float]) -> None:
    assert matting.events("worker_died") == []
    after_mb = _rss_mb(matting)
    assert set(after_mb) == set(before_mb)
    assert {pid: grown for pid in after_mb if (grown := after_mb[pid] - before_mb[pid]) > GROWN_MB} == {}
    good = matting.invoke(file_of(corners(), "JPEG"), "image/jpeg")
    assert (good.status_code, Image.open(io.BytesIO(good.content)).size) == (200, (48, 32))


def test_the_log_is_json_throughout(matting: Endpoint) -> None:
    """Decoders like to warn."""
    for photo in PHOTOS:
        if "exif" in photo.name or "animation" in photo.name or "index" in photo.name:
            matting.invoke(photo.make(), "image/jpeg")
    assert [line for line in matting.log.read_text().splitlines() if not line.startswith('{"time"')] == []
