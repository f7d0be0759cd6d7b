from __future__ import annotations

import asyncio
import json
from typing import Any

from multigpu_inference.errors import BadRequest, Overloaded
from multigpu_inference.frontend.http.answer import HttpAnswer
from multigpu_inference.messages import Answer


def test_an_answer_of_the_engine_has_its_headers() -> None:
    answer = HttpAnswer.of_engine(Answer("id", 200, "image/png", {"replica": "1", "queue_ms": "0.5"}), b"body")
    assert (answer.status, bytes(answer.body)) == (200, b"body")
    assert dict(answer.headers()) == {
        b"content-type": b"image/png",
        b"content-length": b"4",
        b"X-Amzn-SageMaker-Custom-Attributes": b"request_id=id;replica=1;queue_ms=0.5",
    }


def test_nothing_that_a_script_says_breaks_a_header() -> None:
    answer = HttpAnswer.of_engine(Answer("id", 200, "a/b\r\nX: y", {"a\r\nb": "c\r\nX: y;d=e"}), b"")
    for _, value in answer.headers():
        assert b"\r" not in value
        assert b"\n" not in value
    assert dict(answer.headers())[b"content-type"] == b"application/octet-stream"


def test_an_error_is_a_line_of_json_and_says_when_to_come_again() -> None:
    answer = HttpAnswer.of_error(Overloaded(), "id")
    assert json.loads(bytes(answer.body)) == {
        "error": "overloaded",
        "message": "the queue is full",
        "request_id": "id",
        "retry_after_s": 1,
    }
    assert dict(answer.headers())[b"Retry-After"] == b"1"


def test_an_error_that_no_repetition_mends_does_not_ask_for_one() -> None:
    assert b"Retry-After" not in dict(HttpAnswer.of_error(BadRequest(), "id").headers())


def test_what_was_refused_before_it_was_a_request_has_no_attributes() -> None:
    names = [name for name, _ in HttpAnswer.of_error(BadRequest(), "").headers()]
    assert names == [b"content-type", b"content-length"]


def test_it_is_sent_as_two_messages() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(HttpAnswer.of_json(503, {"status": "starting"})({}, None, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[0]["status"], json.loads(sent[1]["body"])) == (503, {"status": "starting"})
