"""An answer on its way out: the engine's, or our own line of JSON, as ASGI messages."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from multigpu_inference.errors import ServingError
from multigpu_inference.frontend.answer_headers import (
    ATTRIBUTES_HEADER,
    RETRY_AFTER_HEADER,
    attributes_line,
    plain_content_type,
)
from multigpu_inference.ipc import Buffer
from multigpu_inference.messages import Answer

Send: TypeAlias = Callable[[Any], Awaitable[None]]

_ATTRIBUTES_HEADER = ATTRIBUTES_HEADER.encode()
_RETRY_AFTER_HEADER = RETRY_AFTER_HEADER.encode()


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One answer, ready for its client.

    Attributes:
        status: HTTP status.
        content_type: Of the body.
        body: Its bytes.
        attributes: Value of the custom attributes' header; "" where there are none.
        retry_after_s: Of a refusal: when to come again.
    """

    status: int
    content_type: str
    body: Buffer
    attributes: str = ""
    retry_after_s: int | None = None

    @classmethod
    def of_engine(cls, answer: Answer, body: Buffer) -> HttpAnswer:
        """What the engine answered."""
        line = attributes_line(answer.request_id, answer.attributes)
        return cls(answer.status, plain_content_type(answer.content_type), body, line, answer.retry_after_s)

    @classmethod
    def of_error(cls, error: ServingError, request_id: str) -> HttpAnswer:
        """One line of JSON."""
        line = attributes_line(request_id, {}) if request_id else ""
        return cls(error.status, "application/json", error.body(request_id), line, error.retry_after_s)

    @classmethod
    def of_json(cls, status: int, content: Any) -> HttpAnswer:
        """An object as one line of JSON."""
        return cls(status, "application/json", json.dumps(content).encode() + b"\n")

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Send it, as an ASGI application."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers()})
        await send({"type": "http.response.body", "body": self.body})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Its headers as they are sent."""
        headers = [(b"content-type", self.content_type.encode()), (b"content-length", b"%d" % len(self.body))]
        if self.attributes:
            headers.append((_ATTRIBUTES_HEADER, self.attributes.encode()))
        if self.retry_after_s is not None:
            headers.append((_RETRY_AFTER_HEADER, b"%d" % self.retry_after_s))
        return headers
