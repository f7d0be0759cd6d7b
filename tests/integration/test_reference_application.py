"""The reference application behind either front end, with the demo's weights on two replicas."""

from __future__ import annotations

import base64
import http.server
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from demo_model import WEIGHTS
from integration.endpoint import ROOT, Endpoint
from integration.kinds import once_is_enough
from support import free_port

URL_PORT = free_port()
PHOTOS = sorted((ROOT / "demo" / "photos").iterdir())


@pytest.fixture(scope="module")
def matting(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    # A server of this machine is asked for photos, which no endpoint would do by itself.
    allowed = {"MULTIGPU_URL_NETWORKS": "127.0.0.0/8", "MULTIGPU_URL_PORTS": str(URL_PORT)}
    server = Endpoint(tmp_path_factory.mktemp("matting"), MULTIGPU_FRONT_END=kind, **allowed)
    shutil.copytree(WEIGHTS, server.model_dir)
    shutil.copytree(ROOT / "code", server.model_dir / "code", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        yield server.start().ready()
    finally:
        server.clean_up()


@pytest.fixture
def photo() -> bytes:
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((97, 61)).convert("RGB").save(picture, "JPEG")
    return picture.getvalue()


def opened(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body))


@once_is_enough
@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_each_sample_photo_becomes_a_matte_of_its_upright_size(matting: Endpoint, path: Path) -> None:
    answer = matting.invoke(path.read_bytes(), f"image/{path.suffix[1:]}", Accept="*/*")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "image/png"
    matte = opened(answer.content)
    assert (matte.mode, matte.size) == ("L", ImageOps.exif_transpose(Image.open(path)).size)


@once_is_enough
def test_both_replicas_answer_in_turn_and_every_hop_is_timed(matting: Endpoint, photo: bytes) -> None:
    values = [matting.invoke(photo, "image/jpeg").headers["X-Amzn-SageMaker-Custom-Attributes"].strip() for _ in range(4)]
    found = [dict(pair.split("=", 1) for pair in value.split(";")) for value in values]
    replicas = [attributes["replica"] for attributes in found]
    assert replicas in (["0", "1", "0", "1"], ["1", "0", "1", "0"])
    hops = ["queue_ms", "preprocess_ms", "copy_ms", "stage_1_ms", "stage_2_ms", "postprocess_ms"]
    assert [list(attributes) for attributes in found] == [["request_id", "replica", *hops]] * 4
    hops.remove("copy_ms")  # nothing, on the CPU
    assert all(float(attributes[hop]) > 0 for attributes in found for hop in hops)


def test_input_and_output_run_in_the_pool(matting: Endpoint) -> None:
    assert {e["function"]: e["runs_in"] for e in matting.events("function_placed")} == {
        "input_fn": "pool",
        "output_fn": "pool",
    }


def test_cut_out(matting: Endpoint, photo: bytes) -> None:
    answer = matting.invoke(photo, "image/jpeg", Accept="image/png;cutout")
    cut_out, matte = opened(answer.content), opened(matting.invoke(photo, "image/jpeg").content)
    assert (cut_out.mode, cut_out.size) == ("RGBA", (97, 61))
    assert np.array_equal(np.asarray(cut_out)[..., 3], np.asarray(matte))


@once_is_enough
def test_json_and_npy_hold_the_same_alpha_as_the_png(matting: Endpoint, photo: bytes) -> None:
    as_png = np.asarray(opened(matting.invoke(photo, "image/jpeg", Accept="image/png").content))
    as_npy = np.load(io.BytesIO(matting.invoke(photo, "image/jpeg", Accept="application/x-npy").content))
    as_json = matting.invoke(photo, "image/jpeg", Accept="application/json").json()
    assert np.array_equal(as_npy, as_png)
    assert np.array_equal(np.asarray(opened(base64.b64decode(as_json["alpha"]))), as_png)
    assert (as_json["width"], as_json["height"]) == (97, 61)


def test_a_photo_in_json(matting: Endpoint, photo: bytes) -> None:
    answer = matting.invoke({"image": base64.b64encode(photo).decode()}, Accept="image/png")
    assert answer.content == matting.invoke(photo, "image/jpeg", Accept="image/png").content


@once_is_enough
def test_what_has_a_name_and_no_place_comes_back_in_json(matting: Endpoint, photo: bytes) -> None:
    """Whatever Accept says, which chooses what is in it."""
    request = {"image": base64.b64encode(photo).decode(), "save_name": "dir/a"}
    for accept, ending in (("image/png", "png"), ("application/json", "png"), ("image/webp", "webp"), ("*/*", "png")):
        answer = matting.invoke(request, Accept=accept)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        record = answer.json()
        picture = base64.b64decode(record.pop("alpha"))
        sizes = {"width": 97, "height": 61, "content_type": f"image/{ending}"}
        assert record == {**sizes, "save_name": f"dir/a.{ending}", "saved": False}
        assert picture == matting.invoke(photo, "image/jpeg", Accept=f"image/{ending}").content


def test_a_photo_by_url(matting: Endpoint, photo: bytes) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(photo)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", URL_PORT), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        answer = matting.invoke({"url": f"http://127.0.0.1:{server.server_port}/a.jpg"})
        server.shutdown()
        thread.join()
    assert opened(answer.content).size == (97, 61)


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "status"),
    [
        (b"no picture", "image/jpeg", "*/*", 400),
        (b"", "image/png", "*/*", 400),
        (json.dumps({"url": "file:///etc/passwd"}).encode(), "application/json", "*/*", 400),
        (json.dumps({}).encode(), "application/json", "*/*", 400),
        (b"a,b", "text/csv", "*/*", 415),
    ],
)
def test_what_the_client_got_wrong_is_said_in_one_line(
    matting: Endpoint, body: bytes, content_type: str, accept: str, status: int
) -> None:
    answer = matting.invoke(body, content_type, Accept=accept)
    assert answer.status_code == status
    assert answer.json()["message"]
    assert len(answer.text.strip().splitlines()) == 1


def test_a_type_that_cannot_be_made_is_not_acceptable(matting: Endpoint, photo: bytes) -> None:
    assert matting.invoke(photo, "image/jpeg", Accept="video/mp4").status_code == 406
