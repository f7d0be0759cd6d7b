"""SageMaker's runtime on this machine: what `invoke_endpoint` talks to, in front of one container.

boto3 ──► POST /endpoints/NAME/invocations ──────────────────► POST /invocations, and its answer
      ──► POST /endpoints/NAME/invocations-response-stream ──► the same, the answer passed on as it comes
      ──► POST /endpoints/NAME/async-invocations ────────────► 202; later the same, the answer into a folder (`runtime_async`)

An application reaches it with `AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME` set and nothing else changed. Only this machine can, so
signatures are not checked. It is made of the standard library's server, a thread for each connection: whoever deploys need
not install a web server, and what takes time is the container.

SageMaker passes on the headers that its API has and no others; so does this. What it says of a model that is slow, fails or
is gone is in `runtime_fault`.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote

import runtime_event_stream
from runtime_async import MAX_INLINE_BYTES, AsyncInvocations
from runtime_container import ContainerAnswer, invoke_container
from runtime_fault import ModelFault, PayloadFault, RuntimeFault, UnknownOperation, ValidationFault

# What boto3's own service model still calls the limit; SageMaker takes more.
MODEL_PAYLOAD_BYTES = 6_291_456
_IDLE_LIMIT_S = 75.0
_MAX_ATTRIBUTES = 1024
_PREFIX = "X-Amzn-SageMaker-"
ATTRIBUTES, VARIANT_SENT = f"{_PREFIX}Custom-Attributes", f"{_PREFIX}Target-Variant"
_THERE = (ATTRIBUTES, f"{_PREFIX}Inference-Id", VARIANT_SENT, f"{_PREFIX}Session-Id")
_BACK = (ATTRIBUTES, f"{_PREFIX}New-Session-Id", f"{_PREFIX}Closed-Session-Id")
# Of endpoints of another kind: several models, several containers, inference components.
_OTHER_KINDS = (f"{_PREFIX}Target-Model", f"{_PREFIX}Target-Container-Hostname", f"{_PREFIX}Inference-Component")
_INVOKE, _STREAM, _ASYNC = "invocations", "invocations-response-stream", "async-invocations"
_ACCEPT_HEADER = {_INVOKE: "Accept", _STREAM: f"{_PREFIX}Accept", _ASYNC: f"{_PREFIX}Accept"}
_TYPE_HEADER = {_INVOKE: "Content-Type", _STREAM: "Content-Type", _ASYNC: f"{_PREFIX}Content-Type"}


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What the proxy stands for.

    Attributes:
        endpoint: The endpoint's name.
        container_port: Where the container listens, on this machine.
        output: The folder that answers of asynchronous requests go to.
        variant: The variant's name.
        port: To listen on; 0: any.
        log: Where the container's log is: `LogStreamArn` of its errors.
        max_payload_bytes: Of a request's body, and of an answer's unless it is streamed.
        answer_limit_s: For the container's whole answer; of a streamed one, for its beginning.
        stream_limit_s: For the whole of a streamed one.
        async_concurrency: Asynchronous requests in flight.
    """

    endpoint: str
    container_port: int
    output: Path
    variant: str = "AllTraffic"
    port: int = 0
    log: str = ""
    max_payload_bytes: int = 25 << 20
    answer_limit_s: float = 60.0
    stream_limit_s: float = 480.0
    async_concurrency: int = 4


class RuntimeProxy:
    """The server, as a context: it answers inside, and its port is free after.

    Attributes:
        url: For `AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME`; known inside.
    """

    def __init__(self, settings: ProxySettings, say: Callable[[str], None] = lambda text: None) -> None:
        """Nothing is started yet.

        Args:
            settings: What it stands for.
            say: Is told what the one who started it should know.
        """
        self.url = ""
        self._settings = settings
        self._say = say
        self._server: _Server | None = None

    def __enter__(self) -> RuntimeProxy:
        """Take the port and answer on it.

        Raises:
            OSError: the port is taken.
        """
        self._server = _Server(self._settings, self._say)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._server.asynchronous.start()
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="runtime", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take no more; asynchronous requests that wait become failures."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.asynchronous.stop()


class _Server(ThreadingHTTPServer):
    """Bound and listening once it is made."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # socketserver's own 5 would have callers wait for a second that come all at once

    def __init__(self, settings: ProxySettings, say: Callable[[str], None]) -> None:
        super().__init__(("127.0.0.1", settings.port), _Handler)
        self.settings = settings
        self.asynchronous = AsyncInvocations(settings.container_port, settings.output, settings.async_concurrency, settings.log)
        self._say = say
        self._warned = False

    def note_length(self, length: int) -> None:
        """Tell once of a body that is larger than the API's model says."""
        if length > MODEL_PAYLOAD_BYTES and not self._warned:
            self._warned = True
            self._say(
                f"a request has {length / 1e6:.1f} MB: SageMaker's FAQ says 25 MB, its API model {MODEL_PAYLOAD_BYTES} bytes; "
                "try it there before you rely on it"
            )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that leaves is nobody's error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a caller."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_LIMIT_S
    wbufsize = -1  # a head and a body together, not in two packets
    disable_nagle_algorithm = True  # else the last packet of an answer waits 40 ms for the caller's acknowledgement

    def do_POST(self) -> None:
        """One request."""
        try:
            # boto3 sends its body before it reads: it is read before anything is refused.
            body = self._body()
            self._refuse_browsers()
            operation = self._operation()
            if operation == _ASYNC:
                self._invoke_async(body)
                return
            settings, headers = self.server.settings, self._forwarded(operation)
            limit_s = settings.answer_limit_s
            body_limit_s = settings.stream_limit_s if operation == _STREAM else limit_s
            with invoke_container(settings.container_port, body, headers, limit_s, body_limit_s, settings.log) as answer:
                if operation == _STREAM:
                    self._pass_on(answer)
                else:
                    whole = answer.body(settings.max_payload_bytes)
                    self._answer(200, whole, self._headers_back(answer, "Content-Type"))
        except RuntimeFault as fault:
            kind = {"x-amzn-errortype": fault.kind} if fault.kind else {}
            self._answer(
                fault.status, json.dumps(fault.fields()).encode(), {"Content-Type": "application/x-amz-json-1.1", **kind}
            )

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses by itself: no method of ours, no HTTP."""
        self.close_connection = True
        self._answer(code, json.dumps({"Message": message or "refused"}).encode(), {"Content-Type": "application/json"})

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal belongs to the one who started it; the container's log has every request."""

    def _operation(self) -> str:
        parts = self.path.partition("?")[0].split("/")
        if len(parts) != 4 or parts[:2] != ["", "endpoints"] or parts[3] not in _ACCEPT_HEADER:
            raise UnknownOperation(f"there is no {self.command} {self.path}")
        endpoint = unquote(parts[2])
        if endpoint != self.server.settings.endpoint:
            raise ValidationFault(
                f"Endpoint {endpoint} not found; the one that is served here is {self.server.settings.endpoint}."
            )
        return parts[3]

    def _refuse_browsers(self) -> None:
        # A page of any site can send requests to this machine; boto3 sends no Origin.
        if "Origin" in self.headers:
            raise ValidationFault("requests of browsers are not taken")

    def _body(self) -> bytes:
        text = self.headers.get("Content-Length", "0")
        keep, self.close_connection = not self.close_connection, True
        if "Transfer-Encoding" in self.headers or not (text.isascii() and text.isdigit()) or len(text) > 15:
            raise ValidationFault("the body's length must be told beforehand")
        length = int(text)
        asynchronous = self.path.partition("?")[0].endswith(f"/{_ASYNC}")
        limit = MAX_INLINE_BYTES if asynchronous else self.server.settings.max_payload_bytes
        if length > limit:
            # A caller that is still sending would see a broken connection, not the answer.
            left = min(length, 4 * self.server.settings.max_payload_bytes)
            while left > 0 and (piece := self.rfile.read(min(left, 1 << 20))):
                left -= len(piece)
            raise PayloadFault(limit)
        self.server.note_length(length)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError("the caller left")
        self.close_connection = not keep
        return body

    def _forwarded(self, operation: str) -> dict[str, str]:
        """The headers for the container."""
        endpoint = self.server.settings.endpoint
        for name in _OTHER_KINDS:
            if name in self.headers:
                raise ValidationFault(f"{name.removeprefix(_PREFIX)} does not suit endpoint {endpoint}, which has one model.")
        variant = self.headers.get(VARIANT_SENT, self.server.settings.variant)
        if variant != self.server.settings.variant:
            raise ValidationFault(
                f"Variant {variant} not found; the one that is served here is {self.server.settings.variant}."
            )
        if len(self.headers.get(ATTRIBUTES, "")) > _MAX_ATTRIBUTES:
            raise ValidationFault(f"CustomAttributes: at most {_MAX_ATTRIBUTES} characters are allowed.")
        sent = {
            "Content-Type": self.headers.get(_TYPE_HEADER[operation]),
            "Accept": self.headers.get(_ACCEPT_HEADER[operation]),
        }
        return {name: _one_line(value) for name, value in {**sent, **_picked(self.headers, _THERE)}.items() if value}

    def _headers_back(self, answer: ContainerAnswer, type_header: str) -> dict[str, str]:
        content_type = answer.headers.get("Content-Type")
        return {
            **({type_header: _one_line(content_type)} if content_type else {}),
            "x-Amzn-Invoked-Production-Variant": self.server.settings.variant,
            **_picked(answer.headers, _BACK),
        }

    def _invoke_async(self, body: bytes) -> None:
        taken = self.server.asynchronous.submit(self.headers, self._forwarded(_ASYNC), body)
        headers = {
            "Content-Type": "application/json",
            f"{_PREFIX}OutputLocation": taken.output.as_uri(),
            f"{_PREFIX}FailureLocation": taken.failure.as_uri(),
        }
        self._answer(202, json.dumps({"InferenceId": taken.inference_id}).encode(), headers)

    def _pass_on(self, answer: ContainerAnswer) -> None:
        """Send the answer as it comes; after the head, an error is a message of the stream."""
        headers = self._headers_back(answer, f"{_PREFIX}Content-Type")
        self._head(200, {"Content-Type": runtime_event_stream.CONTENT_TYPE, **headers, "Transfer-Encoding": "chunked"})
        try:
            for piece in answer.pieces():
                self._chunk(runtime_event_stream.payload_part(piece))
        except ModelFault as fault:
            code = "ModelInvocationTimeExceeded" if fault.original_status == 0 else "StreamBroken"
            self._chunk(runtime_event_stream.stream_error(code, str(fault)))
        self._chunk(b"")

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
        self.wfile.flush()

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, "x-amzn-RequestId": str(uuid.uuid4())}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def _picked(headers: Message, names: tuple[str, ...]) -> dict[str, str]:
    return {name: _one_line(value) for name in names if (value := headers.get(name))}


def _one_line(value: str) -> str:
    """A header's value, which may have been continued on a second line."""
    return " ".join(value.split())
