from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import multigpu_inference
from multigpu_inference.arena import INLINE_BYTES
from multigpu_inference.errors import DeadlineExceeded, Overloaded, ServingError
from multigpu_inference.frontend import handler_service
from multigpu_inference.frontend.client import EngineClient
from multigpu_inference.frontend.handler_service import FrontEndWorker, Response, refusal
from multigpu_inference.messages import Answer, Invocation


class Engine(EngineClient):
    """Keeps what it was asked, answers as told."""

    def __init__(self, outcome: Exception | None = None, answer: bytes = b"answer") -> None:
        self.outcome, self.answer = outcome, answer
        self.invocation: Invocation | None = None
        self.body: Any = None

    def invoke(self, invocation: Invocation, body: Any) -> tuple[Answer, bytes | bytearray]:
        self.invocation, self.body = invocation, body
        if self.outcome:
            raise self.outcome
        return Answer(invocation.request_id, 200, "a/b", {"replica": "3"}), self.answer


def _serve(engine: Engine, parts: dict[str, bytes], headers: dict[str, Any]) -> Response:
    return FrontEndWorker(engine, request_timeout_s=55.0, max_response_bytes=100).serve(parts, headers)


def _error(response: Response) -> tuple[int, str]:
    return response.head.status, json.loads(response.body)["error"]


def test_what_the_engine_is_asked() -> None:
    engine = Engine()
    before = time.monotonic()
    headers = {"CONTENT-TYPE": "image/png", "aCcept": "image/*", "X-Amzn-SageMaker-Custom-Attributes": "a=1"}
    response = _serve(engine, {"body": b"png"}, {**headers, "body": {"content-type": "image/png"}})
    asked = engine.invocation
    assert asked is not None
    assert (asked.content_type, asked.accept, engine.body) == ("image/png", "image/*", b"png")
    assert asked.headers == {name.lower(): value for name, value in headers.items()}
    assert before <= asked.arrived <= time.monotonic()
    assert asked.deadline - asked.arrived == pytest.approx(55.0)
    assert response.head.attributes.startswith(f"request_id={asked.request_id};replica=3")
    assert (response.head.status, response.head.content_type, response.body) == (200, "a/b", b"answer")


def test_request_ids_differ() -> None:
    engine = Engine()
    seen = {_serve(engine, {}, {}) and engine.invocation and engine.invocation.request_id for _ in range(50)}
    assert len(seen) == 50


@pytest.mark.parametrize("error", [DeadlineExceeded(), Overloaded(), ServingError("why")])
def test_an_error_is_one_line_of_json(error: ServingError, capfd: pytest.CaptureFixture[str]) -> None:
    response = _serve(Engine(error), {"body": b"x"}, {})
    assert response.body.count(b"\n") == 1
    assert response.head.content_type == "application/json"
    content = json.loads(response.body)
    request_id = content.pop("request_id")
    expected: dict[str, Any] = {"error": error.code, "message": error.message}
    assert content == expected | ({"retry_after_s": error.retry_after_s} if error.retry_after_s else {})
    assert response.head.attributes.rstrip() == f"request_id={request_id}"
    assert json.loads(capfd.readouterr().out)["request_id"] == request_id


@pytest.mark.parametrize("surprise", [RuntimeError("secret"), MemoryError(), RecursionError(), KeyError("x")])
def test_no_exception_gets_out_and_its_text_goes_to_the_log_only(
    surprise: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    response = _serve(Engine(surprise), {"body": b"x"}, {})
    assert _error(response) == (500, "internal_error")
    assert b"secret" not in response.body
    assert json.loads(capfd.readouterr().out)["error"] == type(surprise).__name__


@pytest.mark.usefixtures("capfd")
def test_an_answer_over_the_limit_is_an_error_of_our_own() -> None:
    assert _serve(Engine(answer=bytes(100)), {"body": b"x"}, {}).head.status == 200
    assert _error(_serve(Engine(answer=bytes(101)), {"body": b"x"}, {})) == (500, "response_too_large")


def test_a_query_parameter_is_no_body() -> None:
    engine = Engine()
    _serve(engine, {"x": b"1"}, {"x": {"content-type": "text/plain"}})
    assert engine.body == b""


@pytest.mark.parametrize("parts", [{"body": b"b", "z": b"z"}, {"picture": b"b"}])
def test_the_body_of_a_form(parts: dict[str, bytes]) -> None:
    engine = Engine()
    headers: dict[str, Any] = {name: {"content-type": "image/png"} for name in parts}
    _serve(engine, parts, {**headers, "Content-Type": "multipart/form-data; boundary=x"})
    assert engine.invocation is not None
    assert (engine.body, engine.invocation.content_type) == (b"b", "image/png")


@pytest.mark.usefixtures("capfd")
@pytest.mark.parametrize("parts", [{}, {"a": b"", "b": b""}])
def test_a_form_without_a_clear_body_is_400(parts: dict[str, bytes]) -> None:
    headers: dict[str, Any] = {name: {"content-type": "image/png"} for name in parts}
    assert _error(_serve(Engine(), parts, {**headers, "Content-Type": "Multipart/form-data"})) == (400, "bad_request")


def test_a_forms_text_fields_go_with_the_invocation() -> None:
    engine = Engine()
    headers: dict[str, Any] = {"picture": {"content-type": "image/png"}, "a": {"content-type": ""}, "b": {}}
    parts = {"a": b"1", "picture": b"p", "b": b"2", "c": b"3"}
    _serve(engine, parts, {**headers, "Content-Type": "multipart/form-data; boundary=x"})
    assert engine.invocation is not None
    assert (engine.body, engine.invocation.form) == (b"p", {"a": "1", "b": "2", "c": "3"})


def test_a_refusal_says_when_to_come_again_only_where_that_helps() -> None:
    assert json.loads(refusal(Overloaded(), "id").body)["retry_after_s"] == 1
    assert "retry_after_s" not in json.loads(refusal(DeadlineExceeded(), "id").body)


SIZES = [0, 1, 4, 100, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 3 << 20, 0, 7, 200_000]


@contextmanager
def sending(data: bytes) -> Iterator[socket.socket]:
    """A connection whose other side sends these bytes, as they come, and then closes."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)

    with ours, theirs:
        sender = threading.Thread(target=send)
        sender.start()
        yield ours
        sender.join()


def a_receiver() -> tuple[handler_service.Receiver, EngineClient]:
    engine = EngineClient("nowhere", 0.0)
    return handler_service.Receiver(engine), engine


def framed(*pieces: bytes) -> bytes:
    return b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)


END = (-1).to_bytes(4, "big", signed=True)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_sent_is_received_whole_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    pieces = [os.urandom(size) for size in chance.sample(SIZES, len(SIZES))]
    receiver, _ = a_receiver()
    with sending(b"".join(pieces)) as connection:
        assert [receiver.receive(connection, len(piece)) for piece in pieces] == pieces


@pytest.mark.parametrize("seed", range(4))
def test_parts_come_whole_and_a_large_body_in_the_arena(seed: int) -> None:
    chance = random.Random(seed)
    bodies = [os.urandom(size) for size in chance.sample(SIZES, len(SIZES))]
    receiver, engine = a_receiver()
    with sending(b"".join(framed(b"body", b"image/png", body) for body in bodies) + END) as connection:
        for body in bodies:
            part = receiver.receive_part(connection)
            assert part is not None
            assert (part["name"], part["contentType"], bytes(part["value"])) == ("body", "image/png", body)
            assert isinstance(part["value"], memoryview) is (len(body) > INLINE_BYTES)
            engine.forget_body()
        assert receiver.receive_part(connection) is None


@pytest.mark.parametrize("name", [b"x" * 100_000, b"\xff\xfe", b""])
def test_what_a_client_calls_a_part_costs_no_worker(name: bytes) -> None:
    """A body sent as a URL-encoded form has everything before its first `=` for a name."""
    receiver, _ = a_receiver()
    with sending(framed(name, b"text/plain", b"value")) as connection:
        part = receiver.receive_part(connection)
    assert part == {"name": name.decode("utf-8", "replace"), "contentType": "text/plain", "value": b"value"}


@pytest.mark.parametrize("length", [3, 100_000])
def test_an_early_end_is_noticed(length: int) -> None:
    receiver, _ = a_receiver()
    with sending(b"ab") as connection, pytest.raises(ValueError, match="disconnected"):
        receiver.receive(connection, length)


def test_small_pieces_cost_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, _ = a_receiver()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"abc" * 100)
        receiver.receive(ours, 3)
        monkeypatch.setattr(handler_service, "_receive_into", None)  # any further call would fail
        assert [receiver.receive(ours, 3) for _ in range(99)] == [b"abc"] * 99


def test_loading_says_who_has_loaded_and_asks_no_engine(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "import os, multigpu_inference.frontend.handler_service as service\n"
        "assert service.handle(None, None) is None\n"
        "print(os.getpid())"
    )
    environment = {"PYTHONPATH": _container(), "MULTIGPU_RUN_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert tmp_path.joinpath("front-end-parent.pid").read_bytes() == done.stdout


def test_loading_with_a_setting_that_is_not_allowed_raises(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="MULTIGPU_REQUEST_TIMEOUT_S"):
        handler_service.load({"MULTIGPU_RUN_DIR": str(tmp_path), "MULTIGPU_REQUEST_TIMEOUT_S": "soon"})


def test_a_worker_has_neither_torch_nor_the_engine_nor_other_heavy_modules() -> None:
    program = "import sys, multigpu_inference.frontend.handler_service; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": _container()}, capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "numpy", "PIL", "scipy", "boto3", "psutil", "sagemaker_inference", "requests"}
    assert not [name for name in done.stdout.split() if name.startswith("multigpu_inference.engine")]


def _container() -> str:
    return str(Path(multigpu_inference.__file__).parents[1])
