"""Clients that leave, a full engine, forms."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from integration.frontend.http.raw_connection import RawConnection, request
from integration.frontend.http_front_end import HttpFrontEnd
from multigpu_inference.messages import Health
from support import wait_until

MB = 1 << 20


def test_a_client_that_leaves_cancels_its_request(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as leaving, RawConnection(front_end.port) as staying:
        leaving.send(request("test/hold", b"leaves"))
        (gone,) = wait_until(lambda: list(front_end.engine.held), 5)
        staying.send(request("test/hold", b"stays"))
        wait_until(lambda: len(front_end.engine.held) == 2, 5)
        leaving.close()
        wait_until(lambda: gone.invocation.request_id in front_end.engine.cancelled, 5)
        front_end.engine.release()
        assert staying.answer().body == b"stays"


def test_a_request_that_is_answered_is_not_cancelled_by_its_clients_end(front_end: HttpFrontEnd) -> None:
    before = len(front_end.engine.cancelled)
    for _ in range(20):
        with RawConnection(front_end.port) as connection:
            assert connection.ask(request(body=b"x")).body == b"x"
    front_end.post("test/echo", b"x")
    assert len(front_end.engine.cancelled) == before


def test_a_full_engine_is_503_at_once_before_the_body_is_read(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end()
    server.engine.health = Health("healthy", 1, 1, 3, retry_after_s=7)
    server.start().ready()
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(server.post, "test/hold", b"%d" % number) for number in range(3)]
        wait_until(lambda: len(server.engine.held) == 3, 5)
        with RawConnection(server.port) as connection:
            refused = connection.ask(request(body=b"x", Expect="100-continue")[:-1])
            assert (refused.status, refused.json()["error"]) == (503, "overloaded")
            assert (refused.headers["retry-after"], refused.json()["retry_after_s"]) == ("7", 7)  # as the engine says
        assert server.ping() == 200
        server.engine.release()
        assert sorted(answer.result().content for answer in running) == [b"0", b"1", b"2"]
    assert server.post("test/echo", b"x").status_code == 200
    wait_until(lambda: [refusal.status for refusal in server.engine.refusals] == [503], 5)


def test_a_connection_that_was_refused_serves_on_whatever_bodies_came(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end()
    server.engine.health = Health("healthy", 1, 1, 0)
    server.start().ready()
    with RawConnection(server.port) as connection:
        for size in (0, 10, 1_000_000, 5):
            assert connection.ask(request(body=b"x" * size)).status == 503
        connection.send(*[request(body=b"x" * 100_000)] * 5)  # ahead of the answers
        assert [connection.answer().status for _ in range(5)] == [503] * 5
        server.engine.tell(Health("healthy", 1, 1, 10))
        wait_until(lambda: connection.ask(request(body=b"good")).body == b"good", 5)


def test_many_refusals_are_told_together(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end()
    server.engine.health = Health("healthy", 1, 1, 0)
    server.start().ready()
    with RawConnection(server.port) as connection:
        for _ in range(100):
            assert connection.ask(request(body=b"x" * 1000)).status == 503
    wait_until(lambda: sum(refusal.count for refusal in server.engine.refusals) == 100, 5)
    assert len(server.engine.refusals) < 50


def test_a_client_that_leaves_frees_its_place(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end()
    server.engine.health = Health("healthy", 1, 1, 1)
    server.start().ready()
    for _ in range(3):
        with RawConnection(server.port) as connection:
            connection.send(request("test/hold"))
            wait_until(lambda: server.engine.held, 5)
            assert server.post("test/echo", b"x").status_code == 503
        wait_until(lambda: server.post("test/echo", b"x").status_code == 200, 5)


def test_what_is_refused_here_is_told_to_the_engine(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end().start().ready()
    server.post("application/x-www-form-urlencoded", b"x")
    requests.get(f"{server.url}/nothing", timeout=5)
    with RawConnection(server.port) as connection:
        connection.ask(b"\x00\r\n\r\n")
    wait_until(lambda: len(server.engine.refusals) == 3, 5)
    assert [(refusal.status, refusal.code) for refusal in server.engine.refusals] == [
        (415, "unsupported_media_type"),
        (404, "not_found"),
        (400, "bad_request"),
    ]


@pytest.mark.parametrize("size", [10, 100_000, 24 * MB])
def test_a_body_in_a_form_arrives_byte_for_byte(front_end: HttpFrontEnd, size: int) -> None:
    body = (b"\r\n--\r\n-" * (size // 8 + 1))[:size]  # all that looks like a boundary
    parts = {"other": ("o", b"no", "text/plain"), "body": ("b", body, "test/echo")}
    answer = requests.post(f"{front_end.url}/invocations", files=parts, timeout=20)
    assert answer.status_code == 200
    assert answer.content == body


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--b\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=" + "b" * 300, b""),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"no boundary at all"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="body"\r\n\r\nnever ends'),
        ("multipart/form-data; boundary=b", b"--b\r\nno colon\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"a: b\r\n" * 100_000 + b"\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\na: " + b"b" * 1_000_000 + b"\r\n\r\nx\r\n--b--\r\n"),
    ],
    ids=["no boundary", "long boundary", "empty", "no form", "no end", "no header", "many headers", "long header"],
)
def test_a_form_that_is_none_is_400(front_end: HttpFrontEnd, content_type: str, body: bytes) -> None:
    answer = front_end.post(content_type, body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert front_end.post("test/echo", b"x").status_code == 200
