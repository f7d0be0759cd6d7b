from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest
import requests

from integration.frontend.front_end import FrontEnd
from integration.kinds import mms_only
from multigpu_inference.config import HTTP
from support import wait_until

MB = 1 << 20
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


@pytest.fixture(autouse=True)
def no_process_is_lost(front_end: FrontEnd) -> object:
    """Whatever a test sends, the same processes are there afterwards and serve."""
    before = front_end.serving()
    yield
    assert front_end.post("test/echo", b"still here").content == b"still here"
    assert front_end.serving() == before


@pytest.mark.parametrize("size", [0, 1, 64 << 10, 5 * MB, 24 * MB])
def test_bodies_of_all_sizes_come_back_byte_for_byte(front_end: FrontEnd, size: int) -> None:
    body = os.urandom(size)
    answer = front_end.post("test/echo", body)
    assert answer.status_code == 200
    assert answer.content == body


def test_an_answer_of_24_mb_to_a_small_request_is_whole(front_end: FrontEnd) -> None:
    answer = front_end.post("test/size", str(24 * MB))
    assert len(answer.content) == 24 * MB
    assert answer.content == answer.content[:1] * (24 * MB)


def test_no_body_at_all_is_an_empty_one(front_end: FrontEnd) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front_end.port, timeout=10)
    connection.request("POST", "/invocations?x=1", headers={"Content-Type": "test/describe"})
    assert json.loads(connection.getresponse().read())["body"] == ""
    connection.close()


def test_a_request_without_a_content_type_has_an_empty_one(front_end: FrontEnd) -> None:
    assert front_end.post(None, b"abc").json() | {"headers": {}} == {
        "content_type": "", "accept": "*/*", "headers": {}, "seconds": 3.0, "body": "abc",
    }  # fmt: skip


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "text/csv; charset=utf-8"])
def test_json_and_text_reach_the_engine_as_the_bytes_they_are(front_end: FrontEnd, content_type: str) -> None:
    seen = front_end.post(content_type, b"{ not JSON \xff").json()
    assert seen["content_type"] == content_type
    assert seen["body"].encode("latin-1") == b"{ not JSON \xff"


def test_headers_are_matched_without_case(front_end: FrontEnd) -> None:
    with socket.create_connection(("127.0.0.1", front_end.port), 10) as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nhost: x\r\ncONTENT-tYPE: test/describe\r\naCCept: image/png;cutout\r\n"
            b"x-aMZN-sagemaker-CUSTOM-attributes: a=1;caf\xe9\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
        )
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        seen = json.loads(answer.read())
    assert (seen["content_type"], seen["accept"]) == ("test/describe", "image/png;cutout")
    assert seen["headers"]["x-amzn-sagemaker-custom-attributes"].startswith("a=1;caf")


def test_an_offer_to_speak_http_2_is_answered_in_http_1(front_end: FrontEnd) -> None:
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    with requests.Session() as session:
        for headers in (offer, {}):
            headers = {"Content-Type": "test/echo", **headers}
            answer = session.post(f"{front_end.url}/invocations", data=b"body", headers=headers, timeout=5)
            assert (answer.status_code, answer.content) == (200, b"body")


def test_of_a_form_the_part_named_body_is_taken(front_end: FrontEnd) -> None:
    parts = {"other": ("o", b"no", "text/plain"), "body": ("b", b"\x00yes", "image/png")}
    seen = requests.post(f"{front_end.url}/invocations", files=parts, timeout=10).json()
    assert (seen["content_type"], seen["body"]) == ("image/png", "\x00yes")


def test_of_a_form_the_only_part_is_taken_whatever_its_name(front_end: FrontEnd) -> None:
    picture = os.urandom(4 * MB).hex()  # 8 MB: beyond what multi-model-server keeps in memory
    seen = requests.post(f"{front_end.url}/invocations", files={"picture": ("p", picture, "image/png")}, timeout=20)
    assert seen.json()["body"] == picture


def test_a_form_that_does_not_say_which_part_is_meant_is_400(front_end: FrontEnd) -> None:
    parts = {"one": ("1", b"1"), "two": ("2", b"2")}
    answer = requests.post(f"{front_end.url}/invocations", files=parts, timeout=10)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


def test_what_curl_sends_without_a_content_type_is_415_and_says_why(front_end: FrontEnd) -> None:
    answer = front_end.post("application/x-www-form-urlencoded", b"x")
    assert (answer.status_code, answer.json()["error"]) == (415, "unsupported_media_type")
    assert "Content-Type" in answer.json()["message"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "Bad Request"),
        (406, "Not Acceptable"),
        (413, HTTPStatus(413).phrase),
        (415, "Unsupported Media Type"),
        (422, HTTPStatus(422).phrase),
        (500, "Internal Server Error"),
        (503, "Service Unavailable"),
        (504, "Gateway Timeout"),
    ],
)
def test_the_engines_statuses_come_through(front_end: FrontEnd, status: int, reason: str) -> None:
    answer = front_end.post("test/status", str(status))
    assert (answer.status_code, answer.reason) == (status, reason)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers[ATTRIBUTES].startswith(f"request_id={answer.json()['request_id']};replica=0;queue_ms=0.1")


def test_a_request_over_the_limit_is_413(front_end: FrontEnd) -> None:
    try:
        status = front_end.post("test/echo", bytes(25 * MB + 1)).status_code
    except requests.ConnectionError:  # it answers without reading on, and the client was still writing
        status = _status_of_headers_alone(front_end, 25 * MB + 1)
    assert status == 413


def _status_of_headers_alone(front_end: FrontEnd, length: int) -> int:
    with socket.create_connection(("127.0.0.1", front_end.port), 10) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status


def test_an_answer_over_the_limit_is_500_and_says_so(front_end: FrontEnd) -> None:
    answer = front_end.post("test/size", str(25 * MB + 1))
    assert (answer.status_code, answer.json()["error"]) == (500, "response_too_large")
    assert front_end.post("test/size", str(25 * MB)).status_code == 200


def test_the_longest_attributes_after_many_small_answers_lose_no_worker(front_end: FrontEnd) -> None:
    for _ in range(60):  # thirty for each worker
        assert front_end.post("test/echo", b"").status_code == 200
    for length in (1, 100, 400, 700, 5000):
        for content_type in ("a/b", "application/" + "x" * 110):
            assert front_end.post("test/type", content_type).headers["content-type"] == content_type
            assert front_end.post("test/attributes", str(length)).status_code == 200
    longest = front_end.post("test/attributes", "700").headers[ATTRIBUTES]
    assert longest.rstrip().endswith(";longest=" + "x" * 700)
    assert len(longest) <= 1024


def test_a_content_type_that_no_header_can_hold_is_replaced(front_end: FrontEnd) -> None:
    for content_type in ("a/b\r\nx: y", "caf\u00e9/\u0100", "", "x" * 2000):
        answer = front_end.post("test/type", content_type.encode())
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"


def test_a_hung_engine_is_504_in_time_and_its_late_answer_reaches_nobody(front_end: FrontEnd) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:  # both front-end workers, where there are some
        hung = [pool.submit(front_end.post, "test/hold", b"late") for _ in range(2)]
        answers = [each.result() for each in hung]
    assert 3.0 <= time.monotonic() - started < 3.0 + 1.0 + 2.0
    assert [answer.status_code for answer in answers] == [504, 504]
    assert [answer.json()["error"] for answer in answers] == ["deadline_exceeded"] * 2
    front_end.engine.release()
    for number in range(10):
        assert front_end.post("test/echo", f"own {number}").text == f"own {number}"


@mms_only
def test_a_full_queue_of_its_own_is_503_at_once(front_end: FrontEnd) -> None:
    refused: list[float] = []
    statuses: list[int] = []

    def ask() -> None:
        status = front_end.post("test/hold", b"").status_code
        statuses.append(status)
        if status == 503:
            refused.append(time.monotonic() - started)

    threads = [threading.Thread(target=ask) for _ in range(2 + 16 + 6)]
    for thread in threads[:2]:
        thread.start()
    wait_until(lambda: len(front_end.engine.holding) == 2, 2.0)  # both workers are busy, the queue is empty
    started = time.monotonic()
    for thread in threads[2:]:
        thread.start()
    wait_until(lambda: len(refused) == 6, 2.0)
    while any(thread.is_alive() for thread in threads):
        front_end.engine.release()  # those that were queued are held now
        threads[0].join(0.02)
    assert sorted(statuses) == [200] * 18 + [503] * 6
    assert max(refused) < 2.0


def test_without_an_engine_503_comes_at_once_and_with_it_200_without_a_restart(front_end: FrontEnd) -> None:
    front_end.engine.stop()
    started = time.monotonic()
    answers = [front_end.post("test/echo", b"x") for _ in range(4)]
    assert time.monotonic() - started < 2.0
    assert [answer.status_code for answer in answers] == [503] * 4
    refusal = answers[0].json()
    assert refusal.pop("request_id") in answers[0].headers[ATTRIBUTES]
    assert refusal == {
        "error": "unavailable",
        "message": "no healthy replica can take the request now",
        "retry_after_s": 5,
    }
    front_end.engine.start()
    wait_until(lambda: front_end.ping() == 200, 5.0)
    assert [front_end.post("test/echo", b"x").status_code for _ in range(4)] == [200] * 4


@mms_only
def test_an_engine_replaced_between_two_requests_is_not_noticed(front_end: FrontEnd) -> None:
    for _ in range(4):
        front_end.post("test/echo", b"x")
    front_end.engine.stop()
    front_end.engine.start()
    assert [front_end.post("test/echo", b"x").status_code for _ in range(4)] == [200] * 4


def test_the_management_api_is_not_on_the_inference_port(front_end: FrontEnd) -> None:
    for method, path in [
        ("DELETE", "/models/model"),
        ("PUT", "/models/model?min_worker=0&max_worker=0"),
        ("POST", "/models?url=http://127.0.0.1:9/x.mar"),
        ("GET", "/models"),
        ("GET", "/models/model"),
    ]:
        answer = requests.request(method, front_end.url + path, timeout=10)
        assert 400 <= answer.status_code < 500, (method, path, answer.status_code)


def test_requests_write_nothing_to_the_log_and_all_of_it_is_json(front_end: FrontEnd) -> None:
    before = front_end.log.read_text()
    for _ in range(20):
        front_end.post("test/echo", b"x")
        requests.get(f"{front_end.url}/ping", timeout=10)
    assert front_end.log.read_text() == before
    plain = [line for line in before.splitlines() if not line.startswith('{"time": ')]
    assert len(plain) <= 3, plain  # Java's and the `multi-model-server` command's own words at the start
    for line in before.splitlines():
        if line not in plain:
            json.loads(line)


def test_a_refusal_of_the_front_ends_own_is_one_line_in_the_log(front_end: FrontEnd, kind: str) -> None:
    answer = front_end.post("application/x-www-form-urlencoded", b"x")
    request_id = answer.json()["request_id"]
    line = wait_until(lambda: next((each for each in front_end.log.read_text().splitlines() if request_id in each), ""), 5.0)
    assert json.loads(line) | {"time": ""} == {
        "time": "",
        "source": "front-end" if kind == HTTP else "front-end-worker",
        "event": "request",
        "request_id": request_id,
        "status": 415,
        "error": "unsupported_media_type",
    }
