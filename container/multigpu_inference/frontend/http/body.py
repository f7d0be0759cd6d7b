"""A request's body on its way in: from the client right into the arena, within its limit of size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from multigpu_inference.arena import INLINE_BYTES, Arena
from multigpu_inference.errors import BadRequest, ClientGone, PayloadTooLarge
from multigpu_inference.frontend.http.connection import BODY_SINK, REFUSED
from multigpu_inference.ipc import Blob, Slice

Receive: TypeAlias = Callable[[], Awaitable[Any]]


def announced_length(headers: Mapping[str, str], limit: int) -> int | None:
    """The length that a request's head says its body has; None where it says none.

    Args:
        headers: The request's, names in lower case.
        limit: Of a body, in bytes.

    Raises:
        PayloadTooLarge: before anything of it is read.
        BadRequest: where that is no length.
    """
    text = headers.get("content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise BadRequest("Content-Length is not a number")
    length = int(text[:20])
    if length > limit:
        raise PayloadTooLarge(f"the body is larger than the limit of {limit} bytes")
    return length


async def receive_body(scope: Any, receive: Receive, length: int | None, limit: int, arena: Arena) -> Blob:
    """Take a body: a small one as it is, a large one right into the arena. How long it may take the connection says.

    Args:
        scope: ASGI's; what comes after the first piece is taken where the connection reads it (`connection`).
        receive: ASGI's.
        length: As announced; None where the client sends it in chunks.
        limit: Of its length, in bytes.
        arena: Where it goes.

    Raises:
        ClientGone: where the client left before it had sent all.
        RequestTimeout: where it took too long.
        BadRequest: where it broke HTTP's rules.
        PayloadTooLarge: where more came than the limit.
    """
    received = _Received(arena, length or 0, limit)
    try:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise scope.pop(REFUSED, None) or ClientGone()  # popped: its traceback leads back to the scope
            if not received.add(message["body"]):
                raise PayloadTooLarge(f"the body is larger than the limit of {limit} bytes")
            if not message["more_body"]:
                return received.blob
            scope[BODY_SINK] = received.add
    finally:
        scope.pop(BODY_SINK, None)


class _Received:
    """What has come of a body: in memory while it is small, else in the arena."""

    def __init__(self, arena: Arena, announced: int, limit: int) -> None:
        self.length = 0
        self._limit = limit
        self._too_large = False
        self._arena = arena
        self._announced = announced
        self._inline = bytearray()
        self._room: memoryview | None = None

    @property
    def blob(self) -> Blob:
        """What stands for it in a frame."""
        return self._inline if self._room is None else Slice(0, self.length)

    def add(self, chunk: bytes) -> bool:
        """Take some more of it; whether it is within its limit, beyond which nothing is kept."""
        end = self.length + len(chunk)
        if self._too_large or end > self._limit:
            self._too_large = True
            return False
        if self._room is None and max(end, self._announced) <= INLINE_BYTES:
            self._inline += chunk
        else:
            if self._room is None or end > len(self._room):
                self._grow(max(self._announced, 2 * end))
            assert self._room is not None
            self._room[self.length : end] = chunk
        self.length = end
        return True

    def _grow(self, size: int) -> None:
        """Room in the arena, which begins with what has come before."""
        first = self._room is None
        self._room = self._arena.buffer(0, size)
        if first:
            self._room[: len(self._inline)] = self._inline
