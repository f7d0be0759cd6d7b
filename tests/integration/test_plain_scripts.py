"""Scripts written for one GPU, unchanged, on two replicas; where their functions run is found out by the first request."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from integration.endpoint import Endpoint


@pytest.fixture
def photo_url() -> Iterator[str]:
    """A web server on this machine with one photo."""
    photo = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((64, 48)).save(photo, "PNG")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(photo.getvalue())

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/photo.png"
    server.shutdown()
    thread.join()
    server.server_close()


def places(endpoint: Endpoint) -> dict[str, str]:
    return {event["function"]: event["runs_in"] for event in endpoint.events("function_placed")}


def test_two_models_in_a_dict_with_a_picture_by_url(new_endpoint: Callable[..., Endpoint], photo_url: str) -> None:
    endpoint = new_endpoint().with_script("two_models").start().ready()
    answers = [endpoint.invoke({"url": photo_url, "save_name": f"a/{i}"}) for i in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert [answer.json()["saved"] for answer in answers] == [f"a/{i}" for i in range(6)]
    assert {(tuple(answer.json()["size"]), answer.json()["mode"]) for answer in answers} == {((64, 48), "RGBA")}
    pids = [answer.json()["pid"] for answer in answers]
    assert set(pids) == set(endpoint.worker_pids("replica-").values())
    assert pids[1::2] != pids[::2]  # in turn
    assert places(endpoint) == {"input_fn": "pool", "output_fn": "pool"}


def test_a_script_whose_functions_read_what_model_fn_set_keeps_them_in_the_replica(
    new_endpoint: Callable[..., Endpoint],
) -> None:
    endpoint = new_endpoint().with_script("needs_globals").start().ready()
    answers = [endpoint.invoke({"value": value}).json() for value in (1, 20, 3, 40)]
    assert [(answer["value"], answer["label"]) for answer in answers] == [
        (100, "small"), (2000, "large"), (300, "small"), (4000, "large"),
    ]  # fmt: skip
    assert places(endpoint) == {"input_fn": "replica", "output_fn": "replica"}
    for answer in answers:
        assert len(set(answer["pids"])) == 1
    reasons = {event["function"]: event["because"] for event in endpoint.events("function_placed")}
    assert reasons == {
        "input_fn": "it reads the global SCALE, which model_fn sets",
        "output_fn": "it reads the global LABELS, which model_fn sets",
    }
    assert not endpoint.events("function_failed")  # that it would fail in the pool is no failure of the request
    assert all("waits" in event["costs"] for event in endpoint.events("function_placed"))


def test_preprocessing_on_the_replica_on_request(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_PREPROCESS="replica").with_script("commands").start().ready()
    answer = endpoint.invoke({}).json()
    assert answer["input_fn"]["pid"] == answer["predict_fn"]["pid"] == answer["output_fn"]["pid"]
    assert endpoint.worker_pids("pool-") == {}


def test_a_first_request_that_fails_leaves_the_question_to_the_next(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("needs_globals").start().ready()
    assert endpoint.invoke("{}").status_code == 500
    assert places(endpoint) == {}
    assert endpoint.invoke({"value": 1}).json()["value"] == 100
    assert places(endpoint) == {"input_fn": "replica", "output_fn": "replica"}


def test_transform_fn_answers_alone(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("whole_transform").start().ready()
    answers = [endpoint.invoke(b"abc", "application/x-thing", Accept="text/html") for _ in range(4)]
    texts = [answer.text.rsplit(" ", 1) for answer in answers]
    assert {text for text, _ in texts} == {"model 3 application/x-thing text/html"}
    assert {int(pid) for _, pid in texts} == set(endpoint.worker_pids("replica-").values())
    assert answers[0].headers["Content-Type"] == "text/plain"
