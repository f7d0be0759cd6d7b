"""A container that does what a request's JSON tells it to: what a well-behaved one never does, a proxy must still survive."""

from __future__ import annotations

import json
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3


@cache
def runtime_session() -> boto3.Session:
    """Any credentials and any region, as for the proxy; made once, because it reads the services' models."""
    return boto3.Session(aws_access_key_id="local", aws_secret_access_key="local", region_name="us-east-1")


class StandInContainer(ThreadingHTTPServer):
    """Answers on a port of its own, as a context.

    status, text    answer with these
    headers         of the answer
    echo            answer with the request's own headers, as JSON
    sleep_s         before the answer
    drip_s          between two of 50 bytes of the answer
    cut             announce more than is sent
    pieces          sent one after another, chunked; the next one when `go_on` is set
    break           leave in the middle of the pieces
    size            answer with so many bytes
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port: int = self.server_address[1]
        self.go_on = threading.Event()
        self.seen = 0

    def __enter__(self) -> StandInContainer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A proxy that gives up leaves in the middle of an answer."""


class _Handler(BaseHTTPRequestHandler):
    server: StandInContainer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.server.seen += 1
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        time.sleep(told.get("sleep_s", 0))
        if "pieces" in told:
            self._send_pieces(told)
            return
        body = str(told.get("text", "answered")).encode()
        if told.get("echo"):
            body = json.dumps({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}}).encode()
        if "size" in told:
            body = b"x" * told["size"]
        self._head(told, {"Content-Length": str(len(body) + (100 if told.get("cut") else 0))})
        if "drip_s" in told:
            for _ in range(50):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(told["drip_s"])
            return
        self.wfile.write(body)
        if told.get("cut"):
            self.close_connection = True

    def _send_pieces(self, told: dict[str, Any]) -> None:
        self._head(told, {"Transfer-Encoding": "chunked"})
        for number, piece in enumerate(told["pieces"]):
            if number > 0:
                self.server.go_on.wait(10)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece.encode()))
            self.wfile.flush()
        if told.get("break"):
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def _head(self, told: dict[str, Any], headers: dict[str, str]) -> None:
        self.send_response(told.get("status", 200))
        for name, value in {"Content-Type": "text/plain", **told.get("headers", {}), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass
