from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from matting.encode import answer
from matting.options import Options
from matting.prediction import Prediction
from matting.s3_location import S3Location
from matting.save import Save
from multigpu_inference.errors import NotAcceptable

HEIGHT, WIDTH = 30, 42


ALPHA = (np.arange(HEIGHT * WIDTH) % 256).astype(np.uint8).reshape(HEIGHT, WIDTH)
FOREGROUND = np.dstack((ALPHA, 255 - ALPHA, ALPHA // 2))
TRIMAP = np.tile(np.repeat(np.array([0, 128, 255], np.uint8), WIDTH // 3), (HEIGHT, 1))
GREY = {"alpha": ALPHA, "trimap": TRIMAP}


@pytest.fixture
def prediction() -> Prediction:
    alpha, foreground, trimap = (torch.from_numpy(array.copy()) for array in (ALPHA, FOREGROUND, TRIMAP))
    return Prediction(alpha, foreground, trimap, Options(), (HEIGHT, WIDTH))


def opened(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body))


def array(body: bytes) -> Any:
    return np.asarray(opened(body))


@pytest.mark.parametrize("output", ["alpha", "trimap"])
def test_grey_as_png(prediction: Prediction, output: str) -> None:
    body, content_type = answer(prediction, f"image/png;{output}")
    image = opened(body)
    assert (content_type, image.format, image.mode) == ("image/png", "PNG", "L")
    assert np.array_equal(np.asarray(image), GREY[output])


@pytest.mark.parametrize("output", ["alpha", "trimap"])
def test_grey_as_webp_loses_nothing(prediction: Prediction, output: str) -> None:
    body, content_type = answer(prediction, f"image/webp;{output}")
    image = opened(body)
    assert (content_type, image.format) == ("image/webp", "WEBP")
    assert np.array_equal(np.asarray(image.convert("RGB")), np.dstack([GREY[output]] * 3))


def test_cutout_as_png(prediction: Prediction) -> None:
    body, content_type = answer(prediction, "image/png;cutout")
    assert (content_type, opened(body).mode) == ("image/png", "RGBA")
    assert np.array_equal(array(body)[..., 3], ALPHA)
    assert np.array_equal(array(body)[..., :3], FOREGROUND)


def test_cutout_as_webp_keeps_its_alpha(prediction: Prediction) -> None:
    smooth = replace(prediction, foreground=torch.full((HEIGHT, WIDTH, 3), 90, dtype=torch.uint8))
    body, content_type = answer(smooth, "image/webp;cutout")
    assert (content_type, opened(body).mode) == ("image/webp", "RGBA")
    assert np.array_equal(array(body)[..., 3], ALPHA)
    visible = array(body)[..., 3] > 0
    assert np.abs(array(body)[visible][:, :3].astype(int) - 90).max() < 6


def test_background(prediction: Prediction) -> None:
    body, _ = answer(replace(prediction, options=Options(("cutout",), (250, 0, 100))), "image/png")
    share = ALPHA[..., None] / 255
    expected = FOREGROUND * share + np.array([250, 0, 100]) * (1 - share)
    assert opened(body).mode == "RGB"
    assert np.abs(array(body) - expected).max() <= 1


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (Options(("alpha",)), (HEIGHT, WIDTH)),
        (Options(("trimap",)), (HEIGHT, WIDTH)),
        (Options(("cutout",)), (HEIGHT, WIDTH, 4)),
        (Options(("cutout",), (1, 2, 3)), (HEIGHT, WIDTH, 3)),
    ],
)
def test_npy(prediction: Prediction, options: Options, shape: tuple[int, ...]) -> None:
    body, content_type = answer(replace(prediction, options=options), "application/x-npy")
    found = np.load(io.BytesIO(body))
    assert (content_type, found.dtype, found.shape) == ("application/x-npy", np.uint8, shape)
    if options.outputs == ("alpha",):
        assert np.array_equal(found, ALPHA)


def test_json(prediction: Prediction) -> None:
    body, content_type = answer(prediction, "application/json")
    record = json.loads(body)
    assert content_type == "application/json"
    assert list(record) == ["width", "height", "content_type", "alpha"]
    assert (record["width"], record["height"], record["content_type"]) == (WIDTH, HEIGHT, "image/png")
    assert np.array_equal(array(base64.b64decode(record["alpha"])), ALPHA)


def test_several_outputs(prediction: Prediction) -> None:
    body, content_type = answer(replace(prediction, options=Options(("trimap", "cutout", "alpha"))), "*/*")
    record = json.loads(body)
    assert content_type == "application/json"
    assert list(record) == ["width", "height", "content_type", "trimap", "cutout", "alpha"]
    assert np.array_equal(array(base64.b64decode(record["trimap"])), TRIMAP)
    assert np.array_equal(array(base64.b64decode(record["cutout"]))[..., 3], ALPHA)


def test_several_outputs_are_no_picture(prediction: Prediction) -> None:
    with pytest.raises(NotAcceptable, match="several outputs are answered together as application/json only"):
        answer(replace(prediction, options=Options(("alpha", "cutout"))), "image/png")


def test_the_body_wins_over_accept(prediction: Prediction) -> None:
    body, _ = answer(replace(prediction, options=Options(("trimap",))), "image/png;cutout")
    assert np.array_equal(array(body), TRIMAP)


def test_nothing_acceptable(prediction: Prediction) -> None:
    with pytest.raises(NotAcceptable):
        answer(prediction, "video/mp4")


@pytest.mark.parametrize("media_type", ["image/png", "application/x-npy", "application/json"])
def test_what_was_decoded_coarser_has_the_answers_size(prediction: Prediction, media_type: str) -> None:
    larger = replace(prediction, size=(2 * HEIGHT, 2 * WIDTH + 1), options=Options(("trimap",)))
    body, _ = answer(larger, media_type)
    if media_type == "application/json":
        record = json.loads(body)
        assert (record["width"], record["height"]) == (2 * WIDTH + 1, 2 * HEIGHT)
        body = base64.b64decode(record["trimap"])
    found = np.load(io.BytesIO(body)) if media_type == "application/x-npy" else array(body)
    assert found.shape == (2 * HEIGHT, 2 * WIDTH + 1)
    assert set(np.unique(found)) == {0, 128, 255}


def test_an_enlarged_alpha_is_smooth(prediction: Prediction) -> None:
    alpha = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    alpha[:, WIDTH // 2 :] = 255
    body, _ = answer(replace(prediction, alpha=alpha, size=(2 * HEIGHT, 2 * WIDTH)), "image/png")
    row = array(body)[5].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert 0 < row[WIDTH - 1] < row[WIDTH] < 255


def test_a_picture_too_large_for_webp(prediction: Prediction) -> None:
    long = replace(prediction, alpha=torch.zeros(1, 16_384, dtype=torch.uint8), size=(1, 16_384))
    assert answer(long, "image/png")[1] == "image/png"
    with pytest.raises(NotAcceptable, match="a WebP picture has at most 16383 pixels a side"):
        answer(long, "image/webp")


@pytest.mark.parametrize(
    ("name", "accept", "saved_as", "content_type"),
    [
        ("a", "*/*", "a.png", "image/png"),
        ("a", "image/webp", "a.webp", "image/webp"),
        ("a.npy", "application/json", "a.npy", "application/x-npy"),
        ("a", "video/mp4", "a.png", "image/png"),
    ],
)
def test_a_name_without_a_place_is_answered_with_the_file(
    prediction: Prediction, name: str, accept: str, saved_as: str, content_type: str
) -> None:
    body, answered_as = answer(replace(prediction, save=Save.of_name(name)), accept)
    record = json.loads(body)
    assert answered_as == "application/json"
    assert (record["save_name"], record["saved"], record["content_type"]) == (saved_as, False, content_type)
    data = base64.b64decode(record["alpha"])
    assert (np.load(io.BytesIO(data)) if content_type.endswith("npy") else array(data)).shape[:2] == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("name", "accept", "media_type"),
    [
        ("a", "application/json", "image/png"),
        ("a.webp", "image/png", "image/webp"),
        ("a", "application/x-npy", "application/x-npy"),
        ("a", "video/mp4", "image/png"),
    ],
)
def test_what_store_fn_will_store_is_the_file(prediction: Prediction, name: str, accept: str, media_type: str) -> None:
    save = replace(Save.of_name(name), place=S3Location("photos"))
    body, content_type = answer(replace(prediction, save=save), accept)
    assert content_type == media_type
    assert body == answer(prediction, media_type)[0]


def test_where_nobody_calls_store_fn_the_answer_is_stored_here(prediction: Prediction, s3: Any) -> None:
    save = replace(Save.of_name("a/b"), place=S3Location("photos", "out"), in_output_fn=True)
    body, content_type = answer(replace(prediction, save=save), "image/png")
    assert (content_type, json.loads(body)["location"]) == ("application/json", "s3://photos/out/a/b.png")
    stored = s3.get_object(Bucket="photos", Key="out/a/b.png")["Body"].read()
    assert np.array_equal(array(stored), ALPHA)
