from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

import pytest

from multigpu_inference.arena import INLINE_BYTES, Arena
from multigpu_inference.errors import BadRequest, ClientGone, PayloadTooLarge, RequestTimeout
from multigpu_inference.frontend.http.body import announced_length, receive_body
from multigpu_inference.frontend.http.connection import BODY_SINK, REFUSED
from multigpu_inference.ipc import Slice

LIMIT = 1_000_000


@pytest.mark.parametrize(
    ("headers", "length"),
    [({}, None), ({"content-length": "0"}, 0), ({"content-length": "12"}, 12), ({"content-length": str(LIMIT)}, LIMIT)],
)
def test_the_announced_length(headers: dict[str, str], length: int | None) -> None:
    assert announced_length(headers, LIMIT) == length


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.5", "1e3", "0x10", "\u0661", "1 2", "1,1"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        announced_length({"content-length": text}, LIMIT)


@pytest.mark.parametrize("text", [str(LIMIT + 1), "9" * 20, "9" * 4000])
def test_a_length_over_the_limit_is_refused_before_anything_is_read(text: str) -> None:
    with pytest.raises(PayloadTooLarge):
        announced_length({"content-length": text}, LIMIT)


def received(
    pieces: Iterable[bytes], announced: int | None, *, sunk: bool = False, scope: dict[str, Any] | None = None
) -> bytes:
    """A body as it arrived: its pieces by ASGI, or, but for the first, as the connection reads them."""
    scope = {} if scope is None else scope
    arena = Arena.create()
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        if not left:
            return {"type": "http.disconnect"}
        piece = left.pop(0)
        if sunk and BODY_SINK in scope:
            kept = scope[BODY_SINK](piece)
            while left and kept:
                kept = scope[BODY_SINK](left.pop(0))
            piece = b""
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    blob = asyncio.run(receive_body(scope, receive, announced, LIMIT, arena))
    assert BODY_SINK not in scope
    assert isinstance(blob, Slice) == (max(sum(map(len, pieces)), announced or 0) > INLINE_BYTES)
    return arena.read(blob)


@pytest.mark.parametrize("sunk", [False, True])
@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 500_000, LIMIT])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_arrives_byte_for_byte_in_whatever_pieces(size: int, chunked: bool, sunk: bool) -> None:
    chance = random.Random(size)
    body = chance.randbytes(size)
    cuts = sorted(chance.choices(range(size + 1), k=7))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, size], strict=True)]
    assert received(pieces, None if chunked else size, sunk=sunk) == body


@pytest.mark.parametrize("sunk", [False, True])
def test_more_than_the_limit_is_refused_whatever_was_announced(sunk: bool) -> None:
    for announced in (None, 10):
        with pytest.raises(PayloadTooLarge):
            received([b"x" * 300_000] * 4, announced, sunk=sunk)


def test_a_client_that_goes_is_gone() -> None:
    with pytest.raises(ClientGone):
        received([], 10)


def test_what_the_connection_has_refused_is_the_reason() -> None:
    with pytest.raises(RequestTimeout):
        received([], 10, scope={REFUSED: RequestTimeout()})
