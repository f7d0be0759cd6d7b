from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from integration.frontend.http.raw_connection import RawConnection, request
from integration.frontend.http_front_end import HttpFrontEnd
from multigpu_inference.messages import Health
from support import wait_until

HEALTHY = Health("healthy", 2, 2, 1000)


@pytest.fixture
def engine_says(front_end: HttpFrontEnd) -> Iterator[Callable[[Health], None]]:
    yield front_end.engine.tell
    front_end.engine.tell(HEALTHY)
    wait_until(lambda: front_end.ping() == 200, 5)


def ping(front_end: HttpFrontEnd) -> dict[str, object]:
    content: dict[str, object] = requests.get(f"{front_end.url}/ping", timeout=5).json()
    return content


def test_ping_is_503_until_the_engine_is_there(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end().start_alone()
    wait_until(lambda: server.ping() is not None, 10)
    assert (server.ping(), ping(server)) == (503, {"status": "starting"})
    refused = server.post("test/echo", b"x")
    assert (refused.status_code, refused.json()["error"]) == (503, "unavailable")
    server.engine.start()
    wait_until(lambda: server.ping() == 200, 5)
    assert server.post("test/echo", b"x").status_code == 200


def test_ping_is_503_below_the_minimum_and_200_again(front_end: HttpFrontEnd, engine_says: Callable[[Health], None]) -> None:
    engine_says(Health("below_minimum", 0, 2, 1000))
    wait_until(lambda: front_end.ping() == 503, 5)
    assert ping(front_end) == {"status": "below_minimum", "healthy_replicas": 0, "num_replicas": 2}
    engine_says(HEALTHY)
    wait_until(lambda: front_end.ping() == 200, 5)
    assert ping(front_end) == {"status": "healthy", "healthy_replicas": 2, "num_replicas": 2}


def test_while_the_engine_drains_ping_and_requests_are_503(
    front_end: HttpFrontEnd, engine_says: Callable[[Health], None]
) -> None:
    engine_says(Health("draining", 2, 2, 1000))
    wait_until(lambda: front_end.ping() == 503, 5)
    refused = front_end.post("test/echo", b"x")
    assert (refused.status_code, refused.json()["error"], refused.headers["Retry-After"]) == (503, "draining", "5")


def test_an_engine_that_says_nothing_any_more_is_503(impatient: HttpFrontEnd) -> None:
    impatient.engine.silent = True
    try:
        wait_until(lambda: impatient.ping() == 503, 5)
        assert ping(impatient) == {"status": "unavailable"}
    finally:
        impatient.engine.silent = False
    wait_until(lambda: impatient.ping() == 200, 5)


def test_batch_transform_is_told_what_it_may_send(front_end: HttpFrontEnd) -> None:
    answer = requests.get(f"{front_end.url}/execution-parameters", timeout=5)
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert told == {"MaxConcurrentTransforms": 4, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 25}
    assert told["MaxConcurrentTransforms"] * told["MaxPayloadInMB"] <= 100  # its own rule


@pytest.mark.parametrize(("held", "concurrent"), [(2, 2), (1, 1)])
def test_batch_transform_is_not_told_more_than_the_engine_holds(
    front_end: HttpFrontEnd, engine_says: Callable[[Health], None], held: int, concurrent: int
) -> None:
    engine_says(Health("healthy", 2, 2, held))
    url = f"{front_end.url}/execution-parameters"
    wait_until(lambda: requests.get(url, timeout=5).json()["MaxConcurrentTransforms"] == concurrent, 5)


def test_metrics_are_the_engines_text(front_end: HttpFrontEnd) -> None:
    answer = requests.get(f"{front_end.url}/metrics", timeout=5)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    (family,) = text_string_to_metric_families(answer.text)
    assert (family.name, family.samples[0].value) == ("fake_requests", 3.0)


def test_metrics_without_an_engine_are_503_at_once(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end().start_alone()
    wait_until(lambda: server.ping() is not None, 10)
    assert requests.get(f"{server.url}/metrics", timeout=3).status_code == 503


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/ping/", 404),
        ("POST", "/invocations/", 404),
        ("GET", "//ping", 404),
        ("GET", "/pin%67%2f", 404),
        ("GET", "/ping/../metrics", 404),
        ("GET", "/a%0d%0aSet-Cookie:%20x", 404),
        ("GET", "/%ff%00", 404),
        ("POST", "/models?url=http://127.0.0.1:9/x.mar", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/invocations", 405),
        ("HEAD", "/invocations", 405),
        ("PUT", "/invocations", 405),
        ("DELETE", "/invocations", 405),
        ("OPTIONS", "/invocations", 405),
        ("PATCH", "/invocations", 405),
        ("TRACE", "/invocations", 405),
        ("POST", "/ping", 405),
        ("DELETE", "/ping", 405),
        ("POST", "/metrics", 405),
        ("PUT", "/execution-parameters", 405),
    ],
)
def test_everything_else_is_404_or_405(front_end: HttpFrontEnd, method: str, path: str, status: int) -> None:
    with RawConnection(front_end.port) as connection:
        answer = connection.send(f"{method} {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
        got = answer.answer(has_body=method != "HEAD")
        assert got.status == status
        assert "location" not in got.headers
        assert "set-cookie" not in got.headers
        assert (got.headers["allow"] is not None) == (status == 405)
        if method != "HEAD":
            assert got.json()["error"] == ("not_found" if status == 404 else "method_not_allowed")
            assert len(got.body.strip().splitlines()) == 1
        assert connection.ask(request(body=b"still here")).body == b"still here"


@pytest.mark.parametrize(
    "target", ["/ping", "/ping?x=1&y=%ff", "/%70ing", "http://elsewhere/ping", "http://elsewhere:99/ping?x"]
)
def test_a_path_is_understood_however_it_is_written(front_end: HttpFrontEnd, target: str) -> None:
    with RawConnection(front_end.port) as connection:
        assert connection.ask(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).status == 200


@pytest.mark.parametrize("host", ["[", "a b", "evil.example:99999", "x/ping?", "\xff"])
def test_whatever_stands_in_host_is_nobodys_concern(front_end: HttpFrontEnd, host: str) -> None:
    with RawConnection(front_end.port) as connection:
        answers = [
            connection.ask(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")).status
            for path in ("/nothing", "/ping")
        ]
    assert answers == [404, 200]


def test_head_is_answered_without_a_body(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        answer = connection.send(b"HEAD /ping HTTP/1.1\r\nHost: x\r\n\r\n").answer(has_body=False)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert connection.ask(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
