"""Serves `make serve`'s page to try the endpoint, on a local port of its own.

Stands between the browser and the endpoint, in threads of the process that `make serve` starts: it hands out the files of
`demo/page/` and the sample photos, and forwards the three requests that the page makes. A page of the same origin needs no
permission from the endpoint, which knows nothing of pages.

It listens on this machine alone, which keeps other machines out, but not the other pages in the same browser. So a request
must name this server as its host (a foreign name that was made to resolve to this machine is refused), and one that carries
a body must come from this page.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from answer import ATTRIBUTES_HEADER
from demo_error import DemoError
from demo_model import PHOTOS, ROOT

PAGE = ROOT / "demo" / "page"
PORT_VARIABLE = "MULTIGPU_DEMO_PAGE_PORT"
PREFERRED_PORT = 8081
# As the endpoint's own limit where SAGEMAKER_MAX_PAYLOAD_IN_MB says nothing else.
MAX_BODY_BYTES = 25 * 1024 * 1024
# SageMaker waits no longer for an answer; the endpoint gives up a little earlier, and says so.
ANSWER_LIMIT_S = 60.0
# For a browser to send the rest of a request, or the next one on the same connection.
_IDLE_LIMIT_S = 75.0
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
}
_FORWARDED_GETS = ("/metrics", "/ping")
_FORWARDED_POSTS = ("/invocations",)
_HEADERS_THERE = ("Content-Type", "Accept")
_HEADERS_BACK = ("Content-Type", ATTRIBUTES_HEADER, "Retry-After")
_SAFETY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PageServer:
    """The page's server, as a context: it answers inside, and its port is free after.

    Attributes:
        url: Where the page is; known inside.
    """

    def __init__(self, endpoint_port: int, port: int | None = None) -> None:
        """Nothing is started yet.

        Args:
            endpoint_port: Where the endpoint answers, or will, on this machine.
            port: To serve the page on; None: 8081, and where that is taken any other.
        """
        self.url = ""
        self._endpoint_port = endpoint_port
        self._port = port
        self._server: _Server | None = None

    def __enter__(self) -> PageServer:
        """Take the port and answer on it.

        Raises:
            DemoError: the port that was asked for is taken.
        """
        self._server = self._bind()
        self.url = f"http://127.0.0.1:{self._server.port}/"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="page", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop answering; what is under way with the endpoint is left to end by itself."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _bind(self) -> _Server:
        if self._port is not None:
            if self._port == self._endpoint_port:
                raise DemoError(f"{PORT_VARIABLE}={self._port}: the endpoint itself is served on that port")
            try:
                return _Server(self._port, self._endpoint_port)
            except OSError as error:
                raise DemoError(
                    f"port {self._port} cannot be served on ({error.strerror}): set {PORT_VARIABLE} to a free one"
                ) from error
        if self._endpoint_port != PREFERRED_PORT:
            with suppress(OSError):
                return _Server(PREFERRED_PORT, self._endpoint_port)
        return _Server(0, self._endpoint_port)


class _Server(ThreadingHTTPServer):
    """Bound and listening once it is made.

    Attributes:
        port: It listens on.
        endpoint_port: It forwards to.
        files: What it hands out, by path of the request. Nothing else is looked up on the disk.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, endpoint_port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.port: int = self.server_address[1]
        self.endpoint_port = endpoint_port
        self.files = _files()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves is nobody's error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_LIMIT_S
    wbufsize = -1  # a head and a body together, not in two packets

    def do_GET(self) -> None:
        """A file, or a question that is passed on."""
        if not self._is_for_this_server():
            return
        if self.path in _FORWARDED_GETS:
            self._forward(None)
        elif (file := self.server.files.get(self.path)) is not None:
            self._answer(HTTPStatus.OK, file.read_bytes(), {"Content-Type": _CONTENT_TYPES[file.suffix]})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path}")

    def do_POST(self) -> None:
        """A photo for the endpoint."""
        self.close_connection = True  # unless the whole body has been read, whatever comes next is not a request
        if not self._is_for_this_server() or not self._is_from_this_page():
            return
        if self.path not in _FORWARDED_POSTS:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path}")
        elif (length := self._length()) is not None:
            body = self.rfile.read(length)
            if len(body) == length:  # else the browser left
                self.close_connection = False
                self._forward(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses by itself: no method of ours, no HTTP."""
        self.close_connection = True
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal belongs to the one who started it; the endpoint's log has every request."""

    def _is_for_this_server(self) -> bool:
        if self.headers.get_all("Host") in ([f"127.0.0.1:{self.server.port}"], [f"localhost:{self.server.port}"]):
            return True
        self.close_connection = True
        host = ", ".join(self.headers.get_all("Host", []))
        self._refuse(HTTPStatus.FORBIDDEN, f"Host {host!r}: this page is at http://127.0.0.1:{self.server.port}/")
        return False

    def _is_from_this_page(self) -> bool:
        # A program that is no browser, such as curl, sends no Origin and is not fooled by other pages either.
        origin = self.headers.get("Origin")
        if origin in (None, f"http://{self.headers['Host']}"):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, f"Origin {origin!r}: only this page may ask")
        return False

    def _length(self) -> int | None:
        """The body's length; None where it is refused."""
        text = self.headers.get("Content-Length", "")
        if not text or "Transfer-Encoding" in self.headers:
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "the body's length must be told beforehand")
        elif not (text.isascii() and text.isdigit()):
            self._refuse(HTTPStatus.BAD_REQUEST, f"Content-Length {text!r}: expected a whole number")
        elif len(text) > 12 or int(text) > MAX_BODY_BYTES:
            limit_mb = MAX_BODY_BYTES // 1024**2
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request has {text[:12]} bytes; {limit_mb} MB are allowed")
            self._discard(min(int(text[:12]), 4 * MAX_BODY_BYTES))
        else:
            return int(text)
        return None

    def _discard(self, length: int) -> None:
        """Read a refused body: a browser that is still sending it would see a broken connection, not the answer."""
        self.wfile.flush()
        while length > 0 and (chunk := self.rfile.read(min(length, 1024 * 1024))):
            length -= len(chunk)

    def _forward(self, body: bytes | None) -> None:
        headers = {name: _one_line(value) for name in _HEADERS_THERE if (value := self.headers.get(name))}
        endpoint = http.client.HTTPConnection("127.0.0.1", self.server.endpoint_port, timeout=ANSWER_LIMIT_S)
        try:
            with suppress(BrokenPipeError):  # it had not read all, and has an answer nevertheless
                endpoint.request(self.command, self.path, body, headers)
            answer = endpoint.getresponse()
            data = answer.read()
        except TimeoutError:
            self._refuse(HTTPStatus.GATEWAY_TIMEOUT, f"the endpoint has not answered for {ANSWER_LIMIT_S:.0f} s")
            return
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            where = f"http://127.0.0.1:{self.server.endpoint_port}"
            self._refuse(HTTPStatus.BAD_GATEWAY, f"the endpoint at {where} cannot be reached: {reason}")
            return
        finally:
            endpoint.close()
        self._answer(
            answer.status, data, {name: _one_line(value) for name in _HEADERS_BACK if (value := answer.getheader(name))}
        )

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """One line of JSON, as the endpoint's own errors."""
        body = json.dumps({"error": status.name.lower(), "message": message}).encode()
        self._answer(status, body, {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, **_SAFETY_HEADERS, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _files() -> dict[str, Path]:
    """What is handed out, by the path of a request."""
    page = {f"/{file.name}": file for file in PAGE.iterdir() if file.suffix in _CONTENT_TYPES}
    photos = {f"/photos/{file.name}": file for file in PHOTOS.iterdir() if file.suffix in _CONTENT_TYPES}
    return {**page, **photos, "/": page["/index.html"]}


def _one_line(value: str) -> str:
    """A header's value, which may have been continued on a second line."""
    return " ".join(value.split())
