"""What stands between the browser and the endpoint: what it forwards, what it hands out, whom it refuses."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import page_server
from demo_error import DemoError
from demo_model import PHOTOS
from page_server import PREFERRED_PORT, PageServer
from support import free_port

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


class Echo(BaseHTTPRequestHandler):
    """An endpoint that says what it was asked."""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body.decode("latin-1")}
        answer = json.dumps(told).encode()
        self.send_response(503)
        self.send_header("Content-Type", "application/x-echo")
        self.send_header("Content-Length", str(len(answer)))
        self.send_header(CUSTOM_ATTRIBUTES, "request_id=a1;replica=1    ")
        self.send_header("Retry-After", "1")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def port(endpoint_port: int) -> Iterator[int]:
    port = free_port()
    with PageServer(endpoint_port, port):
        yield port


def ask(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and body; header names are given with underscores."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def say(port: int, request: bytes) -> bytes:
    """Bytes as no client library would send them, and all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def error_of(body: bytes) -> str:
    """A refusal's message: one line of JSON."""
    assert b"\n" not in body
    message: str = json.loads(body)["message"]
    return message


def test_a_photo_is_passed_on_with_what_the_endpoint_needs_to_know(port: int) -> None:
    sent = {"Content_Type": "image/jpeg", "Accept": "application/json", "Cookie": "secret", "X_Other": "1"}
    _, _, body = ask(port, "POST", "/invocations", b"\xff\xd8photo", **sent)
    asked = json.loads(body)
    assert (asked["method"], asked["path"], asked["body"]) == ("POST", "/invocations", "\xff\xd8photo")
    assert (asked["headers"]["Content-Type"], asked["headers"]["Accept"]) == ("image/jpeg", "application/json")
    assert not {"Cookie", "X-Other", "Origin"} & set(asked["headers"])


def test_an_answer_comes_back_with_status_type_and_attributes(port: int) -> None:
    status, headers, _ = ask(port, "POST", "/invocations", b"x")
    assert (status, headers["Content-Type"], headers["Retry-After"]) == (503, "application/x-echo", "1")
    assert headers[CUSTOM_ATTRIBUTES] == "request_id=a1;replica=1"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", ["/metrics", "/ping"])
def test_questions_about_the_endpoint_are_passed_on(port: int, path: str) -> None:
    _, _, body = ask(port, "GET", path, Accept="application/json")
    asked = json.loads(body)
    assert (asked["method"], asked["path"], asked["headers"]["Accept"]) == ("GET", path, "application/json")


@pytest.mark.parametrize(("method", "path"), [("POST", "/metrics"), ("GET", "/invocations"), ("GET", "/execution-parameters"),
                                              ("GET", "/metrics?x=1"), ("POST", "/")])  # fmt: skip
def test_nothing_else_reaches_the_endpoint(port: int, method: str, path: str) -> None:
    status, _, body = ask(port, method, path, b"x" if method == "POST" else None)
    assert (status, error_of(body)) == (404, f"there is no {path}")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_are_refused(port: int, method: str) -> None:
    assert ask(port, method, "/invocations")[0] == 501


def test_the_page_and_all_that_it_loads_are_there(port: int) -> None:
    _, headers, body = ask(port, "GET", "/")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    page = body.decode()
    linked = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert {"page.css", "page.js", "icon.svg"} <= set(linked)
    for path in linked:
        assert ask(port, "GET", f"/{path}")[0] == 200, path
    assert {f"photos/{photo.name}" for photo in PHOTOS.glob("[!.]*")} <= set(linked)


@pytest.mark.parametrize("path", ["/../run.py", "/%2e%2e/run.py", "/page/../../run.py", "//etc/passwd", "/photos/../run.py",
                                  "/photos/", "/photos/%00", "/page.js/", "http://127.0.0.1/../run.py"])  # fmt: skip
def test_no_path_leads_out_of_the_page(port: int, path: str) -> None:
    answer = say(port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("path", ["/", "/ping", "/nothing"])
def test_every_answer_tells_the_browser_to_be_strict(port: int, path: str) -> None:
    _, headers, _ = ask(port, "GET", path)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; img-src 'self' blob: data:;")
    assert "unsafe" not in policy
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_both_names_of_this_machine_are_taken(port: int, name: str) -> None:
    host = f"{name}:{port}"
    assert ask(port, "GET", "/", Host=host)[0] == 200
    assert ask(port, "POST", "/invocations", b"x", Host=host, Origin=f"http://{host}")[0] == 503


@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:{port}", "[::1]:{port}"]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/metrics"), ("POST", "/invocations")])
def test_a_foreign_name_for_this_machine_is_refused(port: int, host: str, method: str, path: str) -> None:
    body = b"x" if method == "POST" else None
    status, _, answer = ask(port, method, path, body, Host=host.format(port=port))
    assert (status, error_of(answer).partition(":")[0]) == (403, f"Host '{host.format(port=port)}'".partition(":")[0])


@pytest.mark.parametrize("hosts", [[], ["127.0.0.1:{port}", "evil.example"], ["127.0.0.1:{port}"] * 2])
def test_there_must_be_exactly_one_host(port: int, hosts: list[str]) -> None:
    lines = "".join(f"Host: {host.format(port=port)}\r\n" for host in hosts)
    assert say(port, f"GET / HTTP/1.1\r\n{lines}\r\n".encode()).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "http://localhost:{port}"]
)
def test_another_page_may_not_post(port: int, origin: str) -> None:
    status, _, body = ask(port, "POST", "/invocations", b"x", Origin=origin.format(port=port), Content_Type="text/plain")
    assert (status, error_of(body)) == (403, f"Origin '{origin.format(port=port)}': only this page may ask")


def test_a_body_that_is_too_large_is_refused_and_told_so(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "MAX_BODY_BYTES", 1024**2)
    assert ask(port, "POST", "/invocations", bytes(1024**2))[0] == 503
    status, _, body = ask(port, "POST", "/invocations", bytes(1024**2 + 1))
    assert (status, error_of(body)) == (413, f"the request has {1024**2 + 1} bytes; 1 MB are allowed")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("", 411),
        ("Transfer-Encoding: chunked\r\n", 411),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 411),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: \u00b2\r\n", 400),
        (f"Content-Length: {'9' * 5000}\r\n", 413),
    ],
)
def test_a_body_without_a_plain_length_is_refused(
    port: int, lines: str, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    head = f"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}\r\n".encode("latin-1")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1") == 1
    assert capfd.readouterr().err == ""


def test_a_browser_that_leaves_in_the_middle_harms_nobody(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100\r\n\r\nhalf".encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert ask(port, "POST", "/invocations", b"x")[0] == 503
    assert capfd.readouterr().err == ""


def test_an_endpoint_that_is_down_is_named_in_one_line() -> None:
    nobody = free_port()
    with PageServer(nobody, free_port()) as page:
        port = int(page.url.split(":")[2].strip("/"))
        for method, path, body in [("POST", "/invocations", b"x"), ("GET", "/metrics", None)]:
            status, _, answer = ask(port, method, path, body)
            assert status == 502
            assert error_of(answer) == f"the endpoint at http://127.0.0.1:{nobody} cannot be reached: Connection refused"


def test_an_endpoint_that_ends_in_the_middle_is_down(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, PageServer(listener.getsockname()[1], free_port()) as page:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(1)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        status, _, _ = ask(int(page.url.split(":")[2].strip("/")), "GET", "/ping")
        thread.join()
    assert status == 502


def test_an_endpoint_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "ANSWER_LIMIT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener, PageServer(listener.getsockname()[1], free_port()) as page:
        status, _, body = ask(int(page.url.split(":")[2].strip("/")), "POST", "/invocations", b"x")
    assert (status, error_of(body)) == (504, "the endpoint has not answered for 0 s")


def test_a_busy_preferred_port_is_left_for_another() -> None:
    with PageServer(free_port()) as first, PageServer(free_port()) as second:
        assert first.url != second.url
        for page in (first, second):
            assert ask(int(page.url.split(":")[2].strip("/")), "GET", "/")[0] == 200
        assert second.url != f"http://127.0.0.1:{PREFERRED_PORT}/"


def test_the_endpoints_own_port_is_not_taken_by_the_page() -> None:
    with PageServer(PREFERRED_PORT) as page:
        assert page.url != f"http://127.0.0.1:{PREFERRED_PORT}/"
    with pytest.raises(DemoError, match="MULTIGPU_DEMO_PAGE_PORT=8080: the endpoint itself"), PageServer(8080, 8080):
        pass


def test_a_port_that_was_asked_for_and_is_busy_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with (
            pytest.raises(DemoError, match=f"port {taken} cannot be served on .*MULTIGPU_DEMO_PAGE_PORT"),
            PageServer(1, taken),
        ):
            pass


def test_its_port_is_free_after_and_only_this_machine_reaches_it() -> None:
    port = free_port()
    with PageServer(1, port), socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.2", port))  # would be taken if it listened on every address
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_nothing_on_the_page_is_inline_or_from_elsewhere() -> None:
    page = (page_server.PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)
    sources = [Path(file).read_text() for file in page_server.PAGE.glob("*.*") if file.suffix in (".html", ".css", ".js")]
    assert [
        text for text in sources if re.search(r"""(src|href)=["'](https?:)?//|url\(|@import|innerHTML|eval\(""", text)
    ] == []
