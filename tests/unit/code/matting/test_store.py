from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from matting.s3_location import S3Location
from matting.save import Save
from matting.store import store
from unit.code.matting.pictures import file_of

PLACE = S3Location("photos", "out")


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 5, 4), np.uint8))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "media_type", "name"),
    [
        (file_of(Image.new("L", (5, 3))), "image/png", "a/cat.png"),
        (file_of(Image.new("RGB", (5, 3)), "WEBP"), "image/webp", "cat.webp"),
        (npy(), "application/x-npy", "cat.npy"),
    ],
)
def test_stores_and_says_where(s3: Any, body: bytes, media_type: str, name: str) -> None:
    answer, content_type = store(memoryview(body), media_type, Save(name, media_type, PLACE))
    assert content_type == "application/json"
    assert json.loads(answer) == {
        "width": 5,
        "height": 3,
        "content_type": media_type,
        "save_name": name,
        "saved": True,
        "location": f"s3://photos/out/{name}",
    }
    found = s3.get_object(Bucket="photos", Key=f"out/{name}")
    assert (found["Body"].read(), found["ContentType"]) == (body, media_type)
