"""The module that multi-model-server loads: takes a request from it, asks the engine, gives the answer back.

Runs in the front-end workers, between multi-model-server and the engine. `handle` is called once without data in the parent,
before the workers are forked off, and then once per request. It is a function and not a class with `initialize`, because
multi-model-server swallows what such a class raises and says "Healthy". Nothing here imports torch or the engine: a worker is
to stay small, and to have nothing in it that can crash.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mms.protocol import otf_message_handler

from multigpu_inference import log
from multigpu_inference.arena import INLINE_BYTES
from multigpu_inference.config import Settings
from multigpu_inference.errors import ResponseTooLarge, ServingError
from multigpu_inference.frontend.answer_headers import ATTRIBUTES_HEADER, RETRY_AFTER_HEADER
from multigpu_inference.frontend.client import EngineClient
from multigpu_inference.frontend.request import (
    ENGINE_GRACE_S,
    Form,
    FormPart,
    is_file_type,
    make_invocation,
    of_form,
    refuse_url_encoded,
)
from multigpu_inference.frontend.response_head import ResponseHead
from multigpu_inference.ipc import Buffer
from multigpu_inference.messages import Invocation
from multigpu_inference.run_folder import ENGINE_SOCKET, FRONT_END_PARENT_PID, RUN_DIR_VARIABLE

# At most as much as travels inline: what is larger must come at once and whole.
_RECEIVE_BYTES = INLINE_BYTES
_END_OF_LIST = -1  # in the place of a length


@dataclass(frozen=True, slots=True)
class Response:
    """One answer, ready for multi-model-server."""

    head: ResponseHead
    body: bytes | bytearray


class FrontEndWorker:
    """Serves one request at a time.

    Args:
        engine: The connection to the engine.
        request_timeout_s: From a request's arrival here to its deadline.
        max_response_bytes: Multi-model-server drops a worker whose answer is longer than it was told to expect.
    """

    def __init__(self, engine: EngineClient, request_timeout_s: float, max_response_bytes: int) -> None:
        """Keep what every request needs."""
        self._engine = engine
        self._request_timeout_s = request_timeout_s
        self._max_response_bytes = max_response_bytes

    def serve(self, parts: Mapping[str, Buffer], headers: Mapping[str, Any]) -> Response:
        """Answer one request; whatever goes wrong is an answer too.

        Args:
            parts: Bodies by name: `body`, or the parts of a form.
            headers: Values by name; under a part's name the part's own headers.
        """
        arrived = time.monotonic()
        request_id = uuid.uuid4().hex
        try:
            content_type, body, fields = _read(parts, headers)
            plain = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
            invocation = make_invocation(request_id, content_type, plain, arrived, self._request_timeout_s, fields)
            return self._ask_engine(invocation, body)
        except ServingError as error:
            log.event("request", request_id=request_id, status=error.status, error=error.code)
            return refusal(error, request_id)
        except Exception as error:  # an exception that gets out of here would become an answer of MMS' own
            log.exception("front_end_error", error, request_id=request_id)
            return refusal(ServingError(), request_id)
        finally:
            self._engine.forget_body()

    def _ask_engine(self, invocation: Invocation, body: Buffer) -> Response:
        answer, answer_body = self._engine.invoke(invocation, body)
        if len(answer_body) > self._max_response_bytes:
            raise ResponseTooLarge
        head = ResponseHead.build(
            answer.status, answer.content_type, invocation.request_id, answer.attributes, answer.retry_after_s
        )
        return Response(head, answer_body)


def refusal(error: ServingError, request_id: str) -> Response:
    """The answer for an error: one line of JSON."""
    head = ResponseHead.build(error.status, "application/json", request_id, retry_after_s=error.retry_after_s)
    return Response(head, error.body(request_id))


def _read(parts: Mapping[str, Buffer], headers: Mapping[str, Any]) -> Form:
    """A request's content type and body, and of a form its fields. Multi-model-server has taken forms apart."""
    content_type = next((str(headers[name]) for name in headers if name.lower() == "content-type"), "")
    refuse_url_encoded(content_type)
    if not content_type.lower().startswith("multipart/"):
        return Form(content_type, parts.get("body", b""), {})
    return of_form([_form_part(name, body, headers.get(name)) for name, body in parts.items()])


def _form_part(name: str, body: Buffer, headers: Any) -> FormPart:
    """A part as multi-model-server hands it on: of a file it names the type, of a text field none."""
    content_type = headers.get("content-type") or "" if isinstance(headers, dict) else ""
    return FormPart(name, content_type, body, is_file_type(content_type))


class Receiver:
    """Reads a request from multi-model-server, in the place of the functions of its module that do.

    Those ask the kernel for every length and every name, some fifty calls a request, and grow a body piece by piece: 6.7 ms
    of CPU for 5 MB against 0.6. Here small pieces come out of a buffer (the other side sends nothing ahead of an answer, so
    nothing of another request can be in it), and a large body is received where the engine's workers will read it.
    """

    def __init__(self, engine: EngineClient) -> None:
        """Begin with an empty buffer: in the workers' parent, whose children each have their own from then on."""
        self._engine = engine
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._begin = self._end = 0  # of what has been received and not been taken

    def install(self) -> None:
        """Let multi-model-server use this."""
        otf_message_handler._retrieve_buffer = self.receive
        otf_message_handler._retrieve_input_data = self.receive_part

    def receive(self, connection: socket.socket, length: int) -> bytearray:
        """The next bytes; `ValueError` where the other side closes before, as from the function that this one replaces."""
        if length > _RECEIVE_BYTES:
            data = bytearray(length)
            self._receive_large(connection, data)
            return data
        if length > self._end - self._begin:
            self._fill(connection, length)
        self._begin += length
        return self._buffer[self._begin - length : self._begin]

    def receive_part(self, connection: socket.socket) -> dict[str, Any] | None:
        """A part of a request, of which an ordinary one has one, its body; None behind the last.

        What a client chose itself, a part's name for one, may be long and may be no UTF-8.
        """
        length = self._receive_length(connection)
        if length == _END_OF_LIST:
            return None
        name = self.receive(connection, length).decode("utf-8", "replace")
        content_type = self.receive(connection, self._receive_length(connection)).decode("utf-8", "replace")
        value: Buffer
        if (length := self._receive_length(connection)) > _RECEIVE_BYTES:
            value = self._engine.body_buffer(length)
            self._receive_large(connection, value)
        else:
            value = self.receive(connection, length)
        return {"name": name, "contentType": content_type, "value": value}

    def _receive_length(self, connection: socket.socket) -> int:
        return int.from_bytes(self.receive(connection, 4), "big", signed=True)

    def _fill(self, connection: socket.socket, length: int) -> None:
        rest = self._buffer[self._begin : self._end]
        self._buffer[: len(rest)] = rest
        self._begin, self._end = 0, len(rest)
        with memoryview(self._buffer) as view:
            while self._end < length:
                self._end += _receive_into(connection, view[self._end :])

    def _receive_large(self, connection: socket.socket, data: bytearray | memoryview) -> None:
        have = self._buffer[self._begin : self._end]
        self._begin = self._end = 0
        with memoryview(data) as rest:
            rest[: len(have)] = have
            have_bytes = len(have)
            while have_bytes < len(rest):
                have_bytes += _receive_into(connection, rest[have_bytes:])


def _receive_into(connection: socket.socket, view: memoryview) -> int:
    count = connection.recv_into(view)
    if count == 0:
        raise ValueError("Frontend disconnected")  # the worker ends
    return count


def load(environ: Mapping[str, str]) -> FrontEndWorker:
    """Set up what all workers share, in their parent; what this raises stops the start."""
    log.set_source("front-end-worker")
    settings = Settings.from_env(environ)
    run_dir = Path(environ[RUN_DIR_VARIABLE])
    logging.getLogger("mms.service").setLevel(logging.WARNING)  # else a line of metrics per request
    engine = EngineClient(str(run_dir / ENGINE_SOCKET), ENGINE_GRACE_S)
    Receiver(engine).install()
    worker = FrontEndWorker(engine, settings.engine.request_timeout_s, settings.front_end.max_payload_bytes)
    _write_pid(run_dir / FRONT_END_PARENT_PID)
    return worker


def _write_pid(path: Path) -> None:
    """Say that everything is loaded, and by whom; whoever reads the file finds all of the number or no file."""
    new = path.with_suffix(".new")
    new.write_text(f"{os.getpid()}\n")
    new.replace(path)


_worker: FrontEndWorker | None = None


def handle(data: Sequence[Mapping[str, Buffer]] | None, context: Any) -> list[bytes | bytearray] | None:
    """What multi-model-server calls: without data at the start, then with a list of one request."""
    global _worker
    if data is None:
        _worker = load(os.environ)
        return None
    assert _worker is not None
    response = _worker.serve(data[0], context.get_all_request_header(0))
    head = response.head
    context.set_response_status(code=head.status, phrase=head.reason, idx=0)
    context.set_response_content_type(0, head.content_type)
    context.set_response_header(0, ATTRIBUTES_HEADER, head.attributes)
    if head.retry_after:
        context.set_response_header(0, RETRY_AFTER_HEADER, head.retry_after)
    return [response.body]
