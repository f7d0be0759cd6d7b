from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from matting import watch
from matting.download import download
from multigpu_inference.errors import BadRequest, DeadlineExceeded, PayloadTooLarge

BODY = b"picture" * 1000
SLOW_S = 0.05  # between bytes: under any read's own time limit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
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
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("path", ["picture", "chunked", "unannounced", "redirect/1", "redirect/3"])
def test_gets_the_bytes(site: str, path: str) -> None:
    assert download(f"{site}/{path}") == BODY


def test_too_many_redirects(site: str) -> None:
    with pytest.raises(BadRequest, match="redirects more than 3 times"):
        download(f"{site}/redirect/4")


@pytest.mark.parametrize("path", ["picture", "chunked", "unannounced"])
def test_too_many_bytes(site: str, path: str) -> None:
    with pytest.raises(PayloadTooLarge, match=r"larger than 0\.006999 MB"):
        download(f"{site}/{path}", max_bytes=len(BODY) - 1)


def test_as_many_bytes_as_allowed(site: str) -> None:
    assert download(f"{site}/picture", max_bytes=len(BODY)) == BODY


@pytest.mark.parametrize("path", ["slow_body", "slow_headers"])
def test_time_limit_is_for_everything_together(site: str, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(BadRequest, match=r"longer than 0\.3 s"):
        download(f"{site}/{path}", timeout_s=0.3)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("status", ["404", "500", "204"])
def test_other_statuses(site: str, status: str) -> None:
    with pytest.raises(BadRequest, match=f"answered with status {status}"):
        download(f"{site}/status/{status}")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "picture.jpg", ""])
def test_only_http_and_https(url: str) -> None:
    with pytest.raises(BadRequest, match="must begin with http"):
        download(url)


def test_redirect_to_another_scheme(site: str) -> None:
    with pytest.raises(BadRequest, match="must begin with http"):
        download(f"{site}/elsewhere")


@pytest.mark.parametrize("url", ["http://", "http://[", "http://127.0.0.1:1/x", "http://127.0.0.1:99999/"])
def test_unusable_urls(url: str) -> None:
    with pytest.raises(BadRequest, match="could not be downloaded") as error:
        download(url)
    assert "127.0.0.1" not in str(error.value)


def test_leaves_no_thread_behind(site: str) -> None:
    download(f"{site}/picture")
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("watch", "look-up")]


@pytest.mark.parametrize("path", ["slow_body", "slow_headers", "silence"])
def test_ends_where_nobody_waits_any_more(site: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.02)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="no time left"):
        download(f"{site}/{path}", seconds_left=lambda: 9.0 if time.monotonic() < began + 0.2 else 0.0)
    assert time.monotonic() - began < 2


def test_nothing_is_begun_where_nobody_waits() -> None:
    with pytest.raises(DeadlineExceeded):
        download("http://127.0.0.1:1/", seconds_left=lambda: 0.0)


@pytest.mark.parametrize(("path", "reserved"), [("picture", [len(BODY)]), ("redirect/1", [len(BODY)])])
def test_announced_bytes_are_reserved_before_they_come(site: str, path: str, reserved: list[int]) -> None:
    asked: list[int] = []
    download(f"{site}/{path}", reserve=asked.append)
    assert asked == reserved


@pytest.mark.parametrize("path", ["chunked", "unannounced", "lying"])
def test_others_are_reserved_as_they_come(site: str, path: str) -> None:
    asked: list[int] = []
    assert download(f"{site}/{path}", reserve=asked.append) == BODY
    assert sum(asked) == len(BODY)


def test_where_there_is_no_room_nothing_is_read(site: str) -> None:
    def reserve(count: int) -> None:
        if count:
            raise PayloadTooLarge("no room")

    for path in ("picture", "unannounced"):
        with pytest.raises(PayloadTooLarge, match="no room"):
            download(f"{site}/{path}", reserve=reserve)
