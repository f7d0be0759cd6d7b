"""Bodies, however they are framed, and those that are not what they say."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
import requests

from integration.frontend.http.raw_connection import RawConnection, request
from integration.frontend.http_front_end import HttpFrontEnd
from multigpu_inference.messages import Health
from support import wait_until

MB = 1 << 20
LIMIT = 25 * MB
HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: test/echo\r\n"
EXPECT = b"Expect: 100-continue\r\n"


@pytest.fixture(autouse=True)
def it_still_serves(front_end: HttpFrontEnd) -> Iterator[None]:
    yield
    assert front_end.post("test/echo", b"still here").content == b"still here"


def chunks(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize(("size", "chunk"), [(0, 1), (1, 1), (3000, 7), (64 << 10, 1000), (1_000_000, 4096), (LIMIT, 100_000)])
def test_a_chunked_body_comes_back_byte_for_byte(front_end: HttpFrontEnd, size: int, chunk: int) -> None:
    body = os.urandom(size)
    headers = {"Content-Type": "test/echo"}
    answer = requests.post(f"{front_end.url}/invocations", data=chunks(body, chunk), headers=headers, timeout=20)
    assert (answer.status_code, len(answer.content)) == (200, size)
    assert answer.content == body


def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_413(front_end: HttpFrontEnd) -> None:
    assert front_end.post("test/echo", bytes(LIMIT)).content == bytes(LIMIT)
    answer = front_end.post("test/echo", bytes(LIMIT + 1))
    assert (answer.status_code, answer.json()["error"]) == (413, "payload_too_large")


def test_a_chunked_body_over_the_limit_is_413(front_end: HttpFrontEnd) -> None:
    body, headers = bytes(LIMIT + 1), {"Content-Type": "test/echo"}
    answer = requests.post(f"{front_end.url}/invocations", data=chunks(body, 100_000), headers=headers, timeout=20)
    assert (answer.status_code, answer.json()["error"]) == (413, "payload_too_large")


def test_a_connection_can_be_used_again_after_a_413(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1))
        assert connection.answer().status == 413
        connection.send(bytes(LIMIT + 1))
        assert connection.ask(request(body=b"next")).body == b"next"


def test_a_body_is_asked_for_before_it_is_sent(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        assert connection.ask(HEAD + EXPECT + b"Content-Length: 4\r\n\r\n").status == 100
        assert connection.ask(b"body").body == b"body"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 99999999999\r\n", 413),
        (b"Content-Length: %d\r\n" % (LIMIT + 1), 413),
    ],
)
def test_a_body_that_would_be_refused_is_not_asked_for(front_end: HttpFrontEnd, head: bytes, status: int) -> None:
    with RawConnection(front_end.port) as connection:
        assert connection.ask(HEAD + EXPECT + head + b"\r\n").status == status


def test_a_body_without_use_is_not_asked_for(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        form = HEAD.replace(b"test/echo", b"application/x-www-form-urlencoded")
        assert connection.ask(form + EXPECT + b"Content-Length: 4\r\n\r\n").status == 415
    with RawConnection(front_end.port) as connection:
        ping = HEAD.replace(b"/invocations", b"/ping") + EXPECT + b"Content-Length: 4\r\n\r\n"
        assert connection.ask(ping).status == 405


def test_what_is_longer_than_announced_is_no_part_of_the_body(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        connection.send(request(body=b"body") + b"and more of it\r\n\r\n")
        assert connection.answer().body == b"body"
        assert connection.is_closed(5)


def test_a_client_that_goes_before_its_body_has_come_is_499_in_the_log_alone(front_end: HttpFrontEnd) -> None:
    answered, logged = front_end.engine.answered, len(front_end.events("request"))
    for sent in (b"", b"a", bytes(200_000)):
        with RawConnection(front_end.port) as connection:
            connection.send(HEAD + b"Content-Length: 1000000\r\n\r\n" + sent)
    wait_until(lambda: len(front_end.events("request")) == logged + 3, 5)
    assert [event["status"] for event in front_end.events("request")[logged:]] == [499] * 3
    assert front_end.engine.answered == answered


def test_the_deadline_counts_from_the_head(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        started = time.monotonic()
        connection.send(HEAD.replace(b"test/echo", b"test/describe") + b"Content-Length: 4\r\n\r\n")
        wait_until(lambda: time.monotonic() - started > 1.0, 5)  # a client that is slow
        connection.send(b"body")
        described = connection.answer().json()
    assert described["seconds"] == 3.0
    with RawConnection(front_end.port) as connection:
        started = time.monotonic()
        connection.send(HEAD.replace(b"test/echo", b"test/hold") + b"Content-Length: 4\r\n\r\n")
        wait_until(lambda: time.monotonic() - started > 2.0, 5)
        assert connection.ask(b"body").status == 504
        assert 4.0 <= time.monotonic() - started < 5.5  # 3 s, and 1 s that the engine's own answer may be late
    front_end.engine.release()


def test_bodies_on_their_way_in_are_bounded(front_end: HttpFrontEnd) -> None:
    front_end.engine.tell(Health("healthy", 3, 3, 2))
    wait_until(lambda: replicas(front_end) == 3, 5)
    connections = [RawConnection(front_end.port) for _ in range(100)]
    try:
        for connection in connections:
            connection.send(HEAD + EXPECT + b"Content-Length: 1000000\r\n\r\n")
        statuses = [connection.answer().status for connection in connections]
        assert set(statuses) == {100, 503}
        assert statuses.count(100) == 64
    finally:
        for connection in connections:
            connection.close()
        front_end.engine.tell(Health("healthy", 2, 2, 1000))
    wait_until(lambda: replicas(front_end) == 2, 5)


def replicas(front_end: HttpFrontEnd) -> object:
    return requests.get(f"{front_end.url}/ping", timeout=5).json()["num_replicas"]
