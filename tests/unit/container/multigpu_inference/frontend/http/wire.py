"""The HTTP front end without a network or an engine: bytes in, answers out."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from multigpu_inference.arena import Arena
from multigpu_inference.config import Settings
from multigpu_inference.errors import ServingError
from multigpu_inference.frontend.http.app import make_app
from multigpu_inference.frontend.http.arena_pool import PooledArena
from multigpu_inference.frontend.http.connection import telling
from multigpu_inference.frontend.http.engine_link import EngineLink
from multigpu_inference.ipc import Blob
from multigpu_inference.messages import Answer, Health, Invocation

_REQUEST_ID = re.compile(rb"[0-9a-f]{32}")


class EchoLink:
    """In the place of the connection to an engine: says what has come."""

    health = Health("healthy", 2, 2, 8)
    max_in_bulk = 4

    def __init__(self) -> None:
        self.arenas = 0  # that have not come back

    def refusal(self, *, received: bool = False) -> ServingError | None:
        """There is always room."""
        return None

    def arena(self) -> PooledArena:
        self.arenas += 1
        return PooledArena(Arena.create(), cast(Any, None))

    def forget(self, arena: PooledArena) -> None:
        self.arenas -= 1

    async def invoke(self, invocation: Invocation, body: Blob, arena: PooledArena) -> tuple[Answer, bytes]:
        self.arenas -= 1
        seen = {"type": invocation.content_type, "body": arena.memory.read(body).hex(), "form": dict(invocation.form)}
        return Answer(invocation.request_id, 200, "application/json"), json.dumps(seen).encode()

    def cancel(self, request_id: str) -> None:
        """Nobody works on it."""

    def refused(self, error: ServingError) -> None:
        """Nobody counts."""


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """All has come already."""

    resume_reading = pause_reading


def exchange(pieces: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Status and body of each answer to bytes that come in these pieces, over one connection; request ids are left out."""
    return asyncio.run(_exchange(pieces))


async def _exchange(pieces: Sequence[bytes]) -> list[tuple[int, bytes]]:
    link, transport = EchoLink(), _Transport()
    settings = Settings.from_env({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1", "SAGEMAKER_BASE_DIR": os.devnull})
    app = make_app(cast(EngineLink, link), settings)
    config = uvicorn.Config(app, interface="asgi3", lifespan="off", log_config=None, access_log=False, ws="none")
    config.load()
    state = ServerState()
    connection = telling(link.refused, 10)(config=config, server_state=state, app_state={})
    connection.connection_made(transport)
    for piece in pieces:
        if transport.closed:
            break
        connection.data_received(piece)
        await asyncio.sleep(0)
    while state.tasks and not transport.closed and not _waits_for_bytes(connection):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    await asyncio.gather(*state.tasks, return_exceptions=True)
    assert link.arenas == 0
    return list(_answers(transport.written))


def _waits_for_bytes(connection: Any) -> bool:
    """Whether the request that is worked on has not come whole."""
    active = connection._active
    return active is not None and active.more_body


def _answers(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status == 100:
            data = rest
            continue
        found = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        if found is None:  # in chunks: parts of a bulk request
            yield status, b""
            return
        length = 0 if rest.startswith(b"HTTP/1.1 ") else int(found[1])  # the answer to a HEAD is a head
        yield status, _REQUEST_ID.sub(b"", rest[:length])
        data = rest[length:]
