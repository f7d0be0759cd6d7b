from __future__ import annotations

import errno
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any, ClassVar

import pytest

from multigpu_inference.errors import BadRequest, DeadlineExceeded, PayloadTooLarge, Unavailable
from multigpu_inference.url_fetch import fetch_url as module
from multigpu_inference.url_fetch import watch
from multigpu_inference.url_fetch.fetch_url import fetch_url
from multigpu_inference.url_fetch.look_up import look_up
from multigpu_inference.url_fetch.policy import UrlPolicy
from multigpu_inference.url_fetch.watch import Watch
from unit.container.multigpu_inference.url_fetch.strange_network import PHOTO, StrangeNetwork
from world import make_certificate

TLS = module._tls  # before a fixture takes its place
BODY = b"picture" * 1000
SLOW_S = 0.05  # between bytes: under any read's own time limit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    asked: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append(dict(self.headers))
        name, _, argument = self.path.strip("/").partition("/")
        self.close_connection = True
        try:
            getattr(self, f"answer_{name}")(argument)
        except OSError:  # the client hung up, as it should on half of these
            return

    def answer_picture(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def answer_chunked(self, _: str) -> None:
        self.send_response(200)
        self.answer_chunks()

    def answer_chunks(self) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (BODY[:10], BODY[10:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def answer_lying(self, _: str) -> None:
        """Chunks, whatever the length says."""
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.answer_chunks()

    def answer_unannounced(self, _: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(BODY)

    def answer_status(self, status: str) -> None:
        self.send_response(int(status))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_redirect(self, left: str) -> None:
        self.send_response(302)
        self.send_header("Location", f"/redirect/{int(left) - 1}" if int(left) > 1 else "/picture")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_elsewhere(self, _: str) -> None:
        self.send_response(302)
        self.send_header("Location", "file:///etc/hostname")
        self.end_headers()

    def answer_silence(self, _: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b".")
        self.rfile.read(1)  # until the client hangs up

    def answer_slow_body(self, _: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b".")
            time.sleep(SLOW_S)

    def answer_slow_headers(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            self.wfile.write(b".")
            time.sleep(SLOW_S)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(server: ThreadingHTTPServer) -> Callable[..., bytearray]:
    """Fetches a path of that server, which the operator allows."""
    policy = UrlPolicy(ports=(server.server_port,), networks=(ip_network("127.0.0.0/8"),))

    def fetch(path: str, **limits: Any) -> bytearray:
        return fetch_url(f"http://127.0.0.1:{server.server_port}/{path}", policy=policy, **limits)

    return fetch


@pytest.mark.parametrize("path", ["picture", "chunked", "unannounced", "redirect/1", "redirect/3"])
def test_gets_the_bytes(fetch: Callable[..., bytearray], path: str) -> None:
    assert fetch(path) == BODY


def test_too_many_redirects(fetch: Callable[..., bytearray]) -> None:
    with pytest.raises(BadRequest, match="redirects more than 3 times"):
        fetch("redirect/4")


@pytest.mark.parametrize("path", ["picture", "chunked", "unannounced"])
def test_too_many_bytes(fetch: Callable[..., bytearray], path: str) -> None:
    with pytest.raises(PayloadTooLarge, match=r"larger than 0\.006999 MB"):
        fetch(path, max_bytes=len(BODY) - 1)


def test_as_many_bytes_as_allowed(fetch: Callable[..., bytearray]) -> None:
    assert fetch("picture", max_bytes=len(BODY)) == BODY


@pytest.mark.parametrize("path", ["slow_body", "slow_headers"])
def test_time_limit_is_for_everything_together(fetch: Callable[..., bytearray], path: str) -> None:
    started = time.monotonic()
    with pytest.raises(BadRequest, match=r"longer than 0\.3 s"):
        fetch(path, timeout_s=0.3)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("status", ["404", "500", "204"])
def test_other_statuses(fetch: Callable[..., bytearray], status: str) -> None:
    with pytest.raises(BadRequest, match=f"answered with status {status}"):
        fetch(f"status/{status}")


def test_redirect_to_another_scheme(fetch: Callable[..., bytearray]) -> None:
    with pytest.raises(BadRequest, match="must begin with http"):
        fetch("elsewhere")


def test_what_is_asked_is_all_that_is_sent(fetch: Callable[..., bytearray], server: ThreadingHTTPServer) -> None:
    Handler.asked.clear()
    assert fetch("redirect/1", accept="image/png") == BODY
    host = f"127.0.0.1:{server.server_port}"
    head = {"Host": host, "User-Agent": "multigpu-inference", "Accept": "image/png", "Accept-Encoding": "identity"}
    assert Handler.asked == [{**head, "Connection": "close"}] * 2


def test_without_a_policy_it_is_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_URLS", "off")
    with pytest.raises(BadRequest, match="this endpoint fetches no URLs"):
        fetch_url("http://example.com/")


@pytest.mark.parametrize("url", ["http://", "http://[", "http://127.0.0.1:1/x", "http://127.0.0.1:99999/", "http://10.0.0.1/"])
def test_answers_name_no_address(url: str) -> None:
    with pytest.raises(BadRequest) as error:
        fetch_url(url, policy=UrlPolicy(ports=(1, 80)))
    assert not any(character.isdigit() for character in str(error.value))


def test_what_is_refused_and_what_is_not_there_are_told_alike(strange: StrangeNetwork) -> None:
    """And whom a refused address belongs to is not asked at all."""
    strange.silent = {"93.184.215.14"}
    told = set()
    for url in (
        "http://10.0.0.1/",
        "http://inside-3.example/",
        "http://never.example/",
        "http://good.example/",
        "http://mixed-0.example/",
    ):
        with pytest.raises(BadRequest) as error:
            fetch_url(url, policy=UrlPolicy(), network=strange.network)
        told.add(error.value.message)
    assert told == {"what 'url' points to could not be fetched"}
    assert strange.dialled == [("93.184.215.14", 80)]


def test_who_answers_is_who_was_dialled(strange: StrangeNetwork) -> None:
    strange.peer = "10.0.0.1"
    with pytest.raises(BadRequest, match="could not be fetched") as error:
        fetch_url("http://good.example/", policy=UrlPolicy(), network=strange.network)
    assert "10.0.0.1 answers" in str(error.value.__cause__)


def test_a_certificate_of_another_host(strange: StrangeNetwork) -> None:
    assert fetch_url("https://good.example/", policy=UrlPolicy(), network=strange.network) == PHOTO
    with pytest.raises(BadRequest, match="could not be fetched") as error:
        fetch_url("https://wrong.example/", policy=UrlPolicy(), network=strange.network)
    assert isinstance(error.value.__cause__, ssl.SSLCertVerificationError)


def test_certificates_that_cannot_be_read_now_are_read_the_next_time(
    strange: StrangeNetwork, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, trusted = make_certificate(tmp_path, "good.example")
    strange.tls = server
    made = cache(TLS.__wrapped__)
    monkeypatch.setattr(module, "_tls", made)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    (tmp_path / "empty.pem").touch()
    with pytest.raises(BadRequest, match="could not be fetched"):
        fetch_url("https://good.example/", policy=UrlPolicy(), network=strange.network)
    (tmp_path / "empty.pem").write_bytes(trusted.read_bytes())
    assert fetch_url("https://good.example/", policy=UrlPolicy(), network=strange.network) == PHOTO


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EADDRNOTAVAIL])
def test_what_this_machine_has_run_out_of_is_nobodys_fault(strange: StrangeNetwork, number: int) -> None:
    def dial(*_: Any) -> Any:
        raise OSError(number, "none left")

    network = replace(strange.network, dial=dial)
    with pytest.raises(Unavailable, match="nothing more can be fetched now"):
        fetch_url("http://good.example/", policy=UrlPolicy(), network=network)


def test_without_another_thread_it_is_503(monkeypatch: pytest.MonkeyPatch, strange: StrangeNetwork) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(Unavailable):
        fetch_url("http://good.example/", policy=UrlPolicy(), network=strange.network)
    with pytest.raises(Unavailable, match="names cannot be looked up now"):
        look_up("good.example", Watch(5))


def test_each_redirect_is_checked_against_the_operators_list(strange: StrangeNetwork) -> None:
    policy = UrlPolicy(hosts=("good.example",))
    with pytest.raises(BadRequest, match="names a host that this endpoint does not fetch from"):
        fetch_url("http://good.example/redirect/302?http://other.example/", policy=policy, network=strange.network)
    assert strange.asked == ["good.example"]


@pytest.mark.parametrize("trick", ["endless-head", "continues", "trailers", "chunk-bytes", "many-fields", "long-line"])
def test_what_is_no_body_is_bounded_as_well(strange: StrangeNetwork, trick: str) -> None:
    began = time.monotonic()
    with pytest.raises(BadRequest, match="could not be fetched"):
        fetch_url(f"http://good.example/{trick}", policy=UrlPolicy(), network=strange.network)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("trick", ["drip", "drip-head", "drip-chunks", "silent"])
def test_who_is_slow_is_given_up(strange: StrangeNetwork, trick: str) -> None:
    with pytest.raises(BadRequest, match=r"longer than 0\.1 s to fetch"):
        fetch_url(f"http://good.example/{trick}", timeout_s=0.1, policy=UrlPolicy(), network=strange.network)


def test_leaves_no_thread_behind(fetch: Callable[..., bytearray]) -> None:
    fetch("picture")
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("watch", "look-up")]


@pytest.mark.parametrize("path", ["slow_body", "slow_headers", "silence"])
def test_ends_where_nobody_waits_any_more(fetch: Callable[..., bytearray], path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.02)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="no time left"):
        fetch(path, seconds_left=lambda: 9.0 if time.monotonic() < began + 0.2 else 0.0)
    assert time.monotonic() - began < 2


def test_nothing_is_begun_where_nobody_waits() -> None:
    with pytest.raises(DeadlineExceeded):
        fetch_url("http://good.example/", seconds_left=lambda: 0.0)


@pytest.mark.parametrize(("path", "reserved"), [("picture", [len(BODY)]), ("redirect/1", [len(BODY)])])
def test_announced_bytes_are_reserved_before_they_come(fetch: Callable[..., bytearray], path: str, reserved: list[int]) -> None:
    asked: list[int] = []
    fetch(path, reserve=asked.append)
    assert asked == reserved


@pytest.mark.parametrize("path", ["chunked", "unannounced", "lying"])
def test_others_are_reserved_as_they_come(fetch: Callable[..., bytearray], path: str) -> None:
    asked: list[int] = []
    assert fetch(path, reserve=asked.append) == BODY
    assert sum(asked) == len(BODY)


def test_where_there_is_no_room_nothing_is_read(fetch: Callable[..., bytearray]) -> None:
    def reserve(count: int) -> None:
        if count:
            raise PayloadTooLarge("no room")

    for path in ("picture", "unannounced"):
        with pytest.raises(PayloadTooLarge, match="no room"):
            fetch(path, reserve=reserve)
