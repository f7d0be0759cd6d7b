"""Stands in for the container behind the page: its answers are real pictures, its figures are what a test says."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from PIL import Image, ImageOps

HOPS = {
    "queue_ms": 14.6, "fetch_ms": 3.2, "preprocess_ms": 26.8, "copy_ms": 0.9,
    "stage_1_ms": 145.7, "stage_2_ms": 63.7, "postprocess_ms": 15.0,
}  # fmt: skip
# In the middle of every cut-out, which is transparent elsewhere.
SUBJECT = (200, 30, 40)


class FakeEndpoint:
    """Answers as the demo's endpoint, on two replicas in turn.

    Attributes:
        port: Where.
        requests: The JSON of each request that came.
        failure: Status and body of the next answers, in place of a result.
        delay_s: How long an answer takes.
        hold: Until this is set, none is given.
        most_in_flight: How many requests it had at a time, at most.
        has_metrics: As the HTTP front end; else as multi-model-server.
        figures: What `/metrics` says.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.failure: tuple[int, bytes] | None = None
        self.delay_s = 0.0
        self.hold: threading.Event | None = None
        self.most_in_flight = 0
        self.has_metrics = True
        self.figures: dict[str, Any] = _figures()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = _listen(self, 0)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> FakeEndpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """As if the container had ended."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def restart(self) -> None:
        """On the same port."""
        self._server = _listen(self, self.port)

    def answer(self, request: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers."""
        with self._lock:
            self.requests.append(request)
            replica = len(self.requests) % 2
            self.figures["in_flight"] += 1
            self.most_in_flight = max(self.most_in_flight, self.figures["in_flight"])
        time.sleep(self.delay_s)
        if self.hold is not None:
            self.hold.wait(10)
        with self._lock:
            self.figures["in_flight"] -= 1
            self.figures["requests"]["total"] += 1
            self.figures["replicas"][f"replica-{replica}"]["requests"] += 1
        if self.failure is not None:
            return *self.failure, {"X-Amzn-SageMaker-Custom-Attributes": "request_id=e1;queue_ms=2.0"}
        values = {"request_id": "0f3c", "replica": replica, **HOPS}
        line = ";".join(f"{name}={value}" for name, value in values.items())
        return 200, json.dumps(_result(request)).encode(), {"X-Amzn-SageMaker-Custom-Attributes": f"{line}    "}


def a_photo(width: int = 96, height: int = 64) -> bytes:
    """A JPEG, all of one blue."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (40, 80, 200)).save(file, "JPEG", quality=95)
    return file.getvalue()


def _result(request: dict[str, Any]) -> dict[str, Any]:
    """The subject is a box in the middle, whatever the photo shows."""
    data = base64.b64decode(request["image"]) if "image" in request else a_photo()
    with Image.open(io.BytesIO(data)) as image:
        photo = ImageOps.exif_transpose(image).convert("RGB")
    if "max_side" in request:
        photo.thumbnail((request["max_side"], request["max_side"]))
    width, height = photo.size
    alpha = Image.new("L", photo.size, 0)
    alpha.paste(255, (width // 4, height // 4, width - width // 4, height - height // 4))
    cutout = Image.new("RGB", photo.size, SUBJECT)
    cutout.putalpha(alpha)
    pictures = {"alpha": alpha, "trimap": alpha.point([0] * 128 + [128] * 128), "cutout": cutout}
    encoded = {output: base64.b64encode(_png(pictures[output])).decode() for output in request["output"]}
    return {"width": width, "height": height, "content_type": "image/png", **encoded}


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _figures() -> dict[str, Any]:
    causes = ("fetch", "decode", "encode", "copy", "batch_wait", "replacing")
    recent = {"busy": 30.0, "no_traffic": 20.0, "other_stage": 10.0, **dict.fromkeys(causes, 0.0)}
    return {
        "health": "healthy",
        "in_flight": 0,
        "waiting": 0,
        "requests": {"total": 0, "server_errors": 0, "refused": 0, "p50_s": 0.24, "p99_s": 1.5},
        "devices": {name: {"busy_percent": 50.0, "recent_s": dict(recent)} for name in ("cpu:0", "cpu:1")},
        "advice": "the average device was busy for 50 % of the time; for 33 % no request for it was there.",
        "replicas": {
            f"replica-{number}": {"devices": devices, "pid": 100 + number, "in_flight": 0, "restarts": 0, "requests": 0}
            for number, devices in enumerate((["cpu:0", "cpu:1"], ["cpu:1", "cpu:0"]))
        },
    }


def _listen(endpoint: FakeEndpoint, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics" and endpoint.has_metrics:
                self._send(200, json.dumps(endpoint.figures).encode(), {})
            else:
                self._send(404, b'{"code": 404, "type": "ResourceNotFoundException", "message": "not found"}', {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with suppress(ConnectionError):  # the page may have left
                self._send(*endpoint.answer(json.loads(body)))

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server
