"""The reference application's functions called directly, as in a notebook: over four devices of this machine's CPU."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import inference
import matting.pipeline
from make_weights import make_weights
from matting.options import Options
from matting.photo import Photo
from multigpu_inference import Bulk, ReplicaSet
from multigpu_inference.context import Context
from multigpu_inference.engine import codec
from multigpu_inference.errors import DeadlineExceeded, ServingError, SettingsError

PHOTO = Path(__file__).resolve().parents[3] / "demo" / "photos" / "chick.jpg"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    yield inference
    inference._pool.shutdown()


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_weights(folder)
    return folder


@pytest.fixture
def four_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_DEVICES", "cpu")
    monkeypatch.setenv("MULTIGPU_NUM_REPLICAS", "4")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Which stage ran on which device, in order."""
    calls: list[tuple[str, str]] = []
    lock = threading.Lock()

    def watch(stage: type) -> None:
        original: Any = stage.__call__

        def call(self: Any, items: Any) -> Any:
            with lock:
                calls.append((stage.__name__, str(self.device)))
            return original(self, items)

        monkeypatch.setattr(stage, "__call__", call)

    watch(matting.pipeline.TrimapStage)
    watch(matting.pipeline.MattingStage)
    return calls


@pytest.mark.usefixtures("four_devices")
def test_without_devices_there_is_a_replica_on_each_with_its_second_model_on_the_next(
    script: ModuleType, model_dir: Path
) -> None:
    model: ReplicaSet = script.model_fn(str(model_dir))
    assert [replica.devices for replica in model.replicas] == [
        ("cpu:0", "cpu:1"), ("cpu:1", "cpu:2"), ("cpu:2", "cpu:3"), ("cpu:3", "cpu:0"),
    ]  # fmt: skip


@pytest.mark.usefixtures("four_devices")
def test_requests_take_turns_and_both_stages_run_on_their_own_devices(
    script: ModuleType, model_dir: Path, ran: list[tuple[str, str]]
) -> None:
    model = script.model_fn(str(model_dir))
    data = script.input_fn(PHOTO.read_bytes(), "image/jpeg")
    mattes = [script.predict_fn(data, model) for _ in range(5)]
    assert ran == [
        ("TrimapStage", "cpu:0"), ("MattingStage", "cpu:1"),
        ("TrimapStage", "cpu:1"), ("MattingStage", "cpu:2"),
        ("TrimapStage", "cpu:2"), ("MattingStage", "cpu:3"),
        ("TrimapStage", "cpu:3"), ("MattingStage", "cpu:0"),
        ("TrimapStage", "cpu:0"), ("MattingStage", "cpu:1"),
    ]  # fmt: skip
    assert all(torch.equal(matte.alpha, mattes[0].alpha) for matte in mattes)
    assert mattes[0].alpha.unique().numel() > 2


@pytest.mark.usefixtures("four_devices")
def test_threads_share_the_replicas_evenly(script: ModuleType, model_dir: Path, ran: list[tuple[str, str]]) -> None:
    model = script.model_fn(str(model_dir))
    photo = Photo(torch.zeros(64, 48, 3, dtype=torch.uint8), Options(), (64, 48))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: script.predict_fn(photo, model), range(8)))
    first = [device for stage, device in ran if stage == "TrimapStage"]
    assert sorted(first) == sorted(["cpu:0", "cpu:1", "cpu:2", "cpu:3"] * 2)


def test_with_devices_there_is_one_replica_on_just_those(script: ModuleType, model_dir: Path) -> None:
    class Context:
        devices = ("cpu:2", "cpu:0")

    model = script.model_fn(str(model_dir), Context())
    assert [replica.devices for replica in model.replicas] == [("cpu:2", "cpu:0")]
    assert len(model.stages) == script.STAGES


def test_a_stock_containers_context_has_no_devices(
    script: ModuleType, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIGPU_DEVICES", "cpu")
    assert len(script.model_fn(str(model_dir), object()).replicas) == 1


def test_settings_of_the_application_reach_its_stages(
    script: ModuleType, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIGPU_MATTING_MAX_PIXELS", "5000")
    monkeypatch.setenv("MULTIGPU_MAX_BATCH_SIZE", "3")
    first, second = script.model_fn(str(model_dir), type("Context", (), {"devices": ("cpu", "cpu")})).stages
    assert (first.max_batch_size, second.max_batch_size, second.max_pixels) == (3, 3, 5000)


def test_preprocessing_runs_in_other_processes(script: ModuleType) -> None:
    assert script._pool.run(os.getpid) != os.getpid()
    picture = script.input_fn(PHOTO.read_bytes(), "image/jpeg")
    assert (picture.pixels.dtype, picture.pixels.shape) == (torch.uint8, (383, 511, 3))


def test_the_four_functions_in_a_row_make_a_matte_of_the_photos_size(script: ModuleType, model_dir: Path) -> None:
    body, content_type = script.sample_input()
    model = script.model_fn(str(model_dir), type("Context", (), {"devices": ("cpu", "cpu")}))
    answer, answer_type = script.output_fn(script.predict_fn(script.input_fn(body, content_type), model), "image/png")
    matte = Image.open(io.BytesIO(answer))
    assert (answer_type, matte.mode, matte.size) == ("image/png", "L", (320, 240))
    assert len(np.unique(np.asarray(matte))) > 1


@pytest.fixture(scope="module")
def model(script: ModuleType, model_dir: Path) -> Any:
    return script.model_fn(str(model_dir), Context(("cpu", "cpu")))


@pytest.fixture
def in_process(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pool worker of the container: `input_fn` decodes right there."""
    monkeypatch.setattr(script._pool, "run", lambda function, *arguments: function(*arguments))


def serve(script: ModuleType, model: Any, body: Any, content_type: str, accept: str = "", form: Any = None) -> Any:
    """A request's way through the functions, as the container calls them."""
    context = Context(headers={"accept": accept}, form=form or {})
    accept = accept or script.DEFAULT_ACCEPT
    if not form and content_type not in script.FETCH_TYPES:
        return script.output_fn(script.predict_fn(script.input_fn(body, content_type, context), model), accept)
    fetched = script.fetch_fn(body, content_type, context)

    def finish(item: Any, accept: str) -> Any:
        data = codec.decode(codec.encode(item.data))  # it comes from another process
        prediction = script.predict_fn(script.input_fn(data, content_type, context), model)
        answer = script.output_fn(codec.decode(codec.encode(prediction)), accept)
        return script.store_fn(*answer, item.store) if item.store is not None else answer

    if isinstance(fetched, Bulk):
        return [item if isinstance(item, ServingError) else finish(item, "application/json") for item in fetched.items]
    return finish(fetched, accept)


def record_of(**fields: Any) -> dict[str, Any]:
    return {"image": base64.b64encode(PHOTO.read_bytes()).decode(), "max_side": 48, **fields}


@pytest.mark.parametrize(
    ("accept", "format_", "mode"),
    [("", "PNG", "L"), ("image/webp;cutout", "WEBP", "RGBA"), ("text/plain, image/*;trimap", "PNG", "L")],
)
@pytest.mark.usefixtures("in_process")
def test_a_pictures_own_bytes(script: ModuleType, model: Any, accept: str, format_: str, mode: str) -> None:
    answer, content_type = serve(script, model, bytearray(PHOTO.read_bytes()), "image/jpeg", accept)
    picture = Image.open(io.BytesIO(answer))
    assert (content_type, picture.format, picture.mode) == (f"image/{format_.lower()}", format_, mode)
    assert picture.size == (511, 383)


@pytest.mark.usefixtures("in_process")
def test_what_a_client_leaves_open_is_the_operators(script: ModuleType, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "image/png;cutout")
    context = Context(headers={"accept": "*/*"})
    prediction = script.predict_fn(script.input_fn(PHOTO.read_bytes(), "image/jpeg", context), model)
    answer, _ = script.output_fn(prediction, "image/png;cutout")  # which the container fills in
    assert Image.open(io.BytesIO(answer)).mode == "RGBA"


@pytest.mark.usefixtures("in_process")
def test_a_json_object_with_options(script: ModuleType, model: Any) -> None:
    body = json.dumps(record_of(output=["cutout", "trimap"], background="#fff"))
    answer, content_type = serve(script, model, body, "application/json")
    record = json.loads(answer)
    assert (content_type, record["width"], record["height"]) == ("application/json", 48, 36)
    cutout, trimap = (Image.open(io.BytesIO(base64.b64decode(record[name]))) for name in ("cutout", "trimap"))
    assert (cutout.mode, trimap.mode, cutout.size, trimap.size) == ("RGB", "L", (48, 36), (48, 36))


@pytest.mark.usefixtures("in_process")
def test_a_form(script: ModuleType, model: Any) -> None:
    form = {"max_side": "40", "output": "cutout"}
    answer, _ = serve(script, model, bytearray(PHOTO.read_bytes()), "image/jpeg", form=form)
    assert (Image.open(io.BytesIO(answer)).mode, Image.open(io.BytesIO(answer)).size) == ("RGBA", (40, 30))


@pytest.mark.usefixtures("in_process")
def test_a_list_is_stored_item_by_item(script: ModuleType, model: Any, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_OUTPUT_S3", "s3://photos/out")
    s3.put_object(Bucket="photos", Key="in.jpg", Body=PHOTO.read_bytes())
    items = [record_of(save_name="a"), {"url": "s3://photos/in.jpg", "max_side": 32}, {"url": "s3://photos/missing"}]
    first, second, third = serve(script, model, json.dumps(items), "application/json", "image/webp")
    assert json.loads(first[0])["location"] == "s3://photos/out/a.png"
    stored = Image.open(io.BytesIO(s3.get_object(Bucket="photos", Key="out/a.png")["Body"].read()))
    assert (stored.format, stored.size) == ("PNG", (48, 36))
    assert (json.loads(second[0])["width"], second[1]) == (32, "application/json")
    assert (third.status, str(third)) == (400, "there is no object at the s3:// address in 'url'")


def test_in_a_notebook_input_fn_fetches_and_output_fn_stores(
    script: ModuleType, model: Any, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIGPU_OUTPUT_S3", "s3://photos")
    photo = script.input_fn(json.dumps(record_of(save_name="a")), "application/json")
    answer, content_type = script.output_fn(script.predict_fn(photo, model), "image/webp")
    assert (content_type, json.loads(answer)["location"]) == ("application/json", "s3://photos/a.webp")
    assert s3.get_object(Bucket="photos", Key="a.webp")["ContentType"] == "image/webp"


@pytest.mark.usefixtures("in_process")
def test_a_list_is_answered_in_json_whatever_its_request_accepts(script: ModuleType, model: Any) -> None:
    body = json.dumps([record_of(output=["alpha", "trimap"])])
    for accept in ("image/png", "video/mp4"):
        ((answer, content_type),) = serve(script, model, body, "application/json", accept)
        assert content_type == "application/json"
        assert {"alpha", "trimap"} <= set(json.loads(answer))


@pytest.mark.usefixtures("in_process")
def test_what_is_stored_needs_no_accept(script: ModuleType, model: Any, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_OUTPUT_S3", "s3://photos")
    answer, _ = serve(script, model, json.dumps(record_of(save_name="a")), "application/json", "video/mp4")
    assert json.loads(answer)["location"] == "s3://photos/a.png"
    assert s3.get_object(Bucket="photos", Key="a.png")["ContentType"] == "image/png"


def test_nothing_is_fetched_for_whom_there_is_no_time_left(script: ModuleType) -> None:
    context = Context(seconds_left=lambda: 0.0)
    with pytest.raises(DeadlineExceeded):
        script.fetch_fn('{"url": "http://127.0.0.1:1/"}', "application/json", context)
    bulk = script.fetch_fn('[{"url": "http://127.0.0.1:1/"}]', "application/json", context)
    assert [type(item) for item in bulk.items] == [DeadlineExceeded]


def test_in_a_notebook_a_list_is_refused(script: ModuleType) -> None:
    with pytest.raises(ServingError, match="a list of requests needs the container") as error:
        script.input_fn("[{}]", "application/json")
    assert error.value.status == 400


@pytest.mark.parametrize(
    "name",
    [
        *("MULTIGPU_OUTPUT_S3", "MULTIGPU_INPUT_S3", "MULTIGPU_MAX_PHOTO_PIXELS", "MULTIGPU_URL_HOSTS"),
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",
    ],
)
def test_a_bad_setting_stops_the_start(script: ModuleType, model_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "bucket/prefix")
    with pytest.raises(SettingsError, match=f"^{name}='bucket/prefix': allowed is "):
        script.model_fn(str(model_dir), Context(("cpu", "cpu")))


def test_the_stock_containers_context_has_the_accept_header(script: ModuleType) -> None:
    class StockContext:
        def get_request_header(self, idx: int, key: str) -> str | None:
            return {"Accept": "image/png;trimap"}.get(key)

    assert script.input_fn(PHOTO.read_bytes(), "image/jpeg", StockContext()).options.outputs == ("trimap",)


def test_the_code_folder_does_not_shadow_the_standard_module() -> None:
    import code

    assert "InteractiveConsole" in dir(code)
    assert "inference" in sys.modules
