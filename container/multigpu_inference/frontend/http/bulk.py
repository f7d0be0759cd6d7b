"""A bulk request: `multipart/mixed`, each part a request of its own, answered in the same form and order.

Parts go through the engine side by side and use all devices; an answer is sent once it and all before it are there, so a
client reads the first while the last is still computed. One that fails is a part with its own status.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any

from multigpu_inference.frontend.http.answer import HttpAnswer, Send
from multigpu_inference.frontend.http.connection import ON_CLIENT_GONE
from multigpu_inference.frontend.http.form import Part

# Of a part's answer: what would stand in the first line of an answer of its own.
STATUS_HEADER = "Status"


def is_bulk(content_type: str) -> bool:
    """Whether a body of this type is many requests."""
    return content_type.lower().startswith("multipart/mixed")


async def answer_bulk(
    parts: Sequence[Part], ask: Callable[[Part, int], Coroutine[Any, Any, HttpAnswer]], most: int, scope: Any, send: Send
) -> None:
    """Answer each part, and stream the answers in the order of the parts.

    Args:
        parts: The requests.
        ask: Answers one, by its number; an error is an answer too.
        most: How many may be in the engine at a time.
        scope: The request's.
        send: ASGI's.
    """
    boundary = uuid.uuid4().hex
    waiting = deque(enumerate(parts))
    asked = deque[tuple[Part, asyncio.Task[HttpAnswer]]]()
    gone = False

    def give_up() -> None:
        nonlocal gone
        gone = True
        for _, task in asked:
            task.cancel()

    scope[ON_CLIENT_GONE] = give_up
    content_type = f"multipart/mixed; boundary={boundary}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
    try:
        while (waiting or asked) and not gone:
            while waiting and len(asked) < most:
                number, part = waiting.popleft()
                asked.append((part, asyncio.create_task(ask(part, number))))
            part, task = asked[0]
            answer = await asyncio.shield(task)
            asked.popleft()
            await send({"type": "http.response.body", "body": _framed(boundary, part, answer), "more_body": True})
        await send({"type": "http.response.body", "body": f"--{boundary}--\r\n".encode()})
    except asyncio.CancelledError:
        if not gone:
            raise
    finally:
        give_up()
        await asyncio.gather(*(task for _, task in asked), return_exceptions=True)


def _framed(boundary: str, part: Part, answer: HttpAnswer) -> bytes:
    """An answer as a part: its headers, among them the `Content-ID` that the request's part had, and its body."""
    status = f"{STATUS_HEADER}: {answer.status} {_phrase(answer.status)}\r\n".encode()
    headers = b"".join(b"%s: %s\r\n" % (name, value) for name, value in answer.headers())
    content_id = part.headers.get("content-id", "")
    if content_id:
        headers += f"Content-ID: {content_id}\r\n".encode("latin-1")
    return b"".join([f"--{boundary}\r\n".encode(), status, headers, b"\r\n", answer.body, b"\r\n"])


def _phrase(status: int) -> str:
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase
    return ""
