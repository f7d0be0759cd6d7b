"""One client's connection: uvicorn's protocol, held to limits of time and size.

Uvicorn parses and frames. What is added here is what keeps strangers from holding a connection, or memory, for ever: a head
or a trailer that grows too large, a request that takes too long to come, an answer that is not taken (`close_overdue`, once a
second). How large a body may be is the application's to say (`body`).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from multigpu_inference.errors import BadRequest, ChosenStatus, Draining, Overloaded, RequestTimeout, ServingError
from multigpu_inference.frontend.answer_headers import RETRY_AFTER_HEADER
from multigpu_inference.frontend.http.answer import HttpAnswer, Send

# A head takes a fraction of a second; SageMaker's own is below 16 KB.
MAX_HEAD_BYTES = 64 << 10
HEAD_LIMIT_S = 10.0
# Between two requests of a connection, and before its first.
IDLE_LIMIT_S = 75.0
# How long a client may send nothing of a body that it has begun, and how long it may take over all of it.
BODY_IDLE_LIMIT_S = 10.0
BODY_LIMIT_S = 60.0
# How long the rest of a body is read and thrown away after its request has been refused: a client that is cut off while it
# sends never sees why.
UNREAD_LIMIT_S = 30.0
# How long a client may take nothing of an answer that waits for it.
STALLED_LIMIT_S = 30.0
MAX_CONNECTIONS = 4096
# What else has descriptors in this process, and how many a connection has: its own, and its request's arena with its mapping.
_OTHER_DESCRIPTORS, _DESCRIPTORS_EACH = 32, 3
# Requests that a client may send ahead of the answer to the one before; uvicorn itself parses and keeps any number of them.
MAX_PIPELINED = 16
# Up to this an answer's head and body go in one piece; beyond it, joining them would cost more than it saves.
_JOINED_BYTES = 64 << 10

_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)

# Where a request's scope holds what is to be called when its client goes before it has its answer.
ON_CLIENT_GONE = "multigpu.on_client_gone"
# And what takes the bytes of its body as they come, where the application does not want to be woken for each piece; it says
# whether it wants more.
BODY_SINK = "multigpu.body_sink"
# And why its body will not come whole, where it is not the client that has gone.
REFUSED = "multigpu.refused"


class Connection(HttpToolsProtocol):
    """An HTTP/1.1 connection within its limits.

    Attributes:
        most: Connections that may be open; one more is refused.
    """

    most = MAX_CONNECTIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*args, **kwargs)
        now = time.monotonic()
        self._active: RequestResponseCycle | None = None  # the request that is worked on; uvicorn's own is the last that came
        self._broken = False
        self._in_head = False
        self._message_complete = True
        self._head_bytes = 0
        self._bytes_since_body = 0
        self._head_since = self._idle_since = self._taken_at = self._body_at = now
        self._unread_since: float | None = None
        self._unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._refuse(Overloaded("too many connections are open"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who works for this client."""
        self._abandon()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless what came before them was not understood."""
        if self._broken:
            return
        self._bytes_since_body += len(data)
        super().data_received(_without_upgrade(data) if self._message_complete else data)
        if not self._message_complete and self._bytes_since_body > MAX_HEAD_BYTES:
            self._refuse(_headers_too_large())  # a head, a trailer or a chunk's extension without an end

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; uvicorn calls this."""
        self._refuse(BadRequest("this is no HTTP request"))

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._broken:
            return
        super().on_message_begin()
        self._in_head, self._message_complete = True, False
        self._head_since = time.monotonic()
        self._head_bytes = self._bytes_since_body = 0

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        if not self._broken:
            self._head_bytes += len(url)
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; one that comes behind the body is dropped, since whoever looked at the head has not seen it."""
        if self._in_head and not self._broken:
            self._head_bytes += len(name) + len(value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is complete."""
        if self._broken:
            return
        self._in_head, self._body_at = False, time.monotonic()
        if self.parser.should_upgrade():  # in a head that came in pieces: the parser would not even take its body
            self._refuse(BadRequest("only HTTP/1.1 is spoken here: send no Upgrade header"))
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_headers_too_large())
        elif len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(BadRequest(f"more than {MAX_PIPELINED} requests were sent ahead of their answers"))
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bytes of a body have come."""
        self._bytes_since_body = 0
        if self._broken:
            return
        self._body_at = time.monotonic()
        sink = self.cycle.scope.get(BODY_SINK)
        if sink is None or self.cycle.response_complete:
            super().on_body(body)
        elif not cast(Any, sink)(body):
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """A request has come whole."""
        self._message_complete, self._unread_since = True, None
        if not self._broken:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer has been given; the next request may have come."""
        active, self._active = self._active, None
        self._idle_since = time.monotonic()
        if active is not None:
            cast(_HeadKeeper, active.transport).flush()
            self._unread_since = self._idle_since if active.more_body else None
        super().on_response_complete()

    def close_overdue(self, now: float, *, draining: bool = False) -> None:
        """End the connection where its client has kept it waiting for too long.

        Args:
            now: Monotonic seconds.
            draining: Whether bodies that are still on their way are not waited for any more.
        """
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent or not self._unsent:
            self._taken_at = now
        self._unsent = unsent
        if unsent:
            overdue = now - self._taken_at > STALLED_LIMIT_S
        elif self._active is not None:
            overdue = False  # the engine's, which has a deadline
            idle_s, taken_s = now - self._body_at, now - self._head_since
            if self._active.more_body and draining:
                self._refuse(Draining())
            elif self._active.more_body and (idle_s > BODY_IDLE_LIMIT_S or taken_s > BODY_LIMIT_S):
                self._refuse(RequestTimeout())
        elif self._unread_since is not None:
            overdue = now - self._unread_since > UNREAD_LIMIT_S
        elif self._in_head:
            overdue = now - self._head_since > HEAD_LIMIT_S
        else:
            overdue = now - self._idle_since > IDLE_LIMIT_S
        if overdue:
            self.transport.abort()

    def refused(self, error: ServingError) -> None:
        """Is told of a request that is refused here, before there is anything that an application could refuse."""

    def refusal(self, scope: Any) -> HttpAnswer | None:
        """What a request is told at once that has no business in the application now; None where it has."""
        return None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.transport = cast(asyncio.Transport, _HeadKeeper(self.transport))
        self._active = cycle
        refusal = None if self.flow.write_paused else self.refusal(cycle.scope)
        if refusal is None:
            super()._start_asgi_task(cycle, app)
            return
        # Under overload most requests come this way: no task, and nothing of a body is kept. It ends without a pause, since
        # there is nothing that it could wait for.
        with contextlib.suppress(StopIteration):
            refusal(cycle.scope, cycle.receive, cast(Send, cycle.send)).send(None)

    def _abandon(self) -> None:
        """Whoever works for this client need not go on."""
        cycle, self._active = self._active, None
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if (tell := cycle.scope.get(ON_CLIENT_GONE)) is not None:
                cast(Any, tell)()

    def _refuse(self, error: ServingError) -> None:
        """Refuse what has come, and take nothing more; the request that is worked on, where it came whole, gets its answer."""
        if self._broken:
            return
        self._broken = True
        self.pipeline.clear()
        if self._unread_since is not None:  # it was refused before, and has its answer
            self.transport.close()
            return
        active = self._active
        if active is None or not active.more_body:
            self.refused(error)
        else:
            cast(Any, active.scope)[REFUSED] = error  # which the application then gives as the reason
        if active is not None and not active.more_body:
            active.keep_alive = False  # closes when it has been answered
            return
        if active is None or not active.response_started:
            body = error.body("")
            again = f"{RETRY_AFTER_HEADER}: {error.retry_after_s}\r\n" if error.retry_after_s is not None else ""
            head = (
                f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n{again}Connection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self._abandon()
        self.transport.close()


def max_connections(descriptors: int) -> int:
    """How many connections a process may have open that may have so many descriptors.

    With none left it could not even refuse: who comes then would wait until others leave.
    """
    return max(1, min(MAX_CONNECTIONS, (descriptors - _OTHER_DESCRIPTORS) // _DESCRIPTORS_EACH))


def telling(
    refused: Callable[[ServingError], None], max_open: int, refusal: Callable[[Any], HttpAnswer | None] = lambda scope: None
) -> type[Connection]:
    """Connections that tell somebody what they refuse. Uvicorn makes them itself, so it takes a class.

    Args:
        refused: Is told.
        max_open: How many of them there may be.
        refusal: What a request is told at once, by its scope; None where the application has it.
    """

    class TellingConnection(Connection):
        most = max_open

        def refused(self, error: ServingError) -> None:
            refused(error)

        def refusal(self, scope: Any) -> HttpAnswer | None:
            return refusal(scope)

    return TellingConnection


class _HeadKeeper:
    """A transport that keeps an answer's head until its body comes, so that both go in one packet and wake the client once."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if not self._head and data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
            return
        if self._head and len(data) <= _JOINED_BYTES:
            data, self._head = self._head + data, b""
        self.flush()
        self._transport.write(data)

    def flush(self) -> None:
        """Let a head go that no body follows."""
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


def _without_upgrade(data: bytes) -> bytes:
    """What a client sends, without its offer to speak something else: HTTP lets us ignore that, the parser does not.

    Args:
        data: Begins with a head.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or _UPGRADE.search(data, 0, end) is None:
        return data
    return _UPGRADE.sub(b"\r\nX-Upgrade:", data[:end]) + data[end:]


def _headers_too_large() -> ServingError:
    return ChosenStatus("the request's headers are too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
