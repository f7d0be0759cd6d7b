"""A ping against servers that answer, are silent, break off, and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from multigpu_inference.front_end_ping import FrontEndPing

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEALTHY = b"HTTP/1.1 200 OK\r\nx: y\r\nContent-Length: 3\r\n\r\n{}\n"


def answering(answer: bytes, *, keep: bool = True) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)
            if not keep:
                return

    return serve


def asked(serve: Serve, times: int = 2, limit_s: float = 0.05) -> tuple[list[bool], int]:
    """What so many pings gave, and over how many connections."""
    connections: list[asyncio.Task[None]] = []

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    async def run() -> list[bool]:
        server = await asyncio.start_server(
            lambda reader, writer: connections.append(asyncio.create_task(counted(reader, writer))), "127.0.0.1", 0
        )
        ping = FrontEndPing(server.sockets[0].getsockname()[1], limit_s)
        try:
            return [await ping.answers() for _ in range(times)]
        finally:
            ping.close()
            server.close()
            await asyncio.gather(*connections)

    return asyncio.run(run()), len(connections)


def test_all_are_answered_over_one_connection() -> None:
    assert asked(answering(HEALTHY), times=5, limit_s=5) == ([True] * 5, 1)


@pytest.mark.parametrize("status", [b"503 Service Unavailable", b"500 Internal Server Error"])
def test_whatever_it_says_it_is_alive(status: bytes) -> None:
    assert asked(answering(HEALTHY.replace(b"200 OK", status)), limit_s=5) == ([True] * 2, 1)


def test_silence_is_no_answer_and_the_next_ping_goes_over_a_new_connection() -> None:
    assert asked(answering(b"")) == ([False] * 2, 2)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"SSH-2.0\r\n\r\n", b"x" * 100_000])
def test_what_is_no_answer_of_http_is_none(answer: bytes) -> None:
    assert asked(answering(answer), limit_s=5) == ([False] * 2, 2)


def test_a_connection_that_was_closed_costs_one_ping() -> None:
    assert asked(answering(HEALTHY, keep=False), times=3, limit_s=5) == ([True, False, True], 2)


def test_where_nobody_listens_there_is_no_answer() -> None:
    async def run() -> bool:
        server = await asyncio.start_server(answering(HEALTHY), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await FrontEndPing(port).answers()

    assert asyncio.run(run()) is False
