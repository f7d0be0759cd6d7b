from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from multigpu_inference.frontend.http.answer import HttpAnswer
from multigpu_inference.frontend.http.bulk import answer_bulk, is_bulk
from multigpu_inference.frontend.http.connection import ON_CLIENT_GONE
from multigpu_inference.frontend.http.form import Part

Ask = Callable[[Part, int], Awaitable[HttpAnswer]]


@pytest.mark.parametrize(
    ("content_type", "yes"),
    [("multipart/mixed; boundary=b", True), ("Multipart/MIXED", True), ("multipart/form-data; boundary=b", False), ("", False)],
)
def test_which_bodies_are_many_requests(content_type: str, yes: bool) -> None:
    assert is_bulk(content_type) == yes


class Client:
    """Takes what is sent; `events` has it in one order with what is asked."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.body = b""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.body += message["body"]
            self.events.append("sent")


def parts(count: int) -> list[Part]:
    return [Part({"content-id": f"<{number}>"}, bytearray(b"%d" % number)) for number in range(count)]


async def echo(part: Part, number: int) -> HttpAnswer:
    return HttpAnswer(200, "a/b", bytes(part.body))


def test_answers_have_status_headers_and_content_id() -> None:
    client = Client()
    asyncio.run(answer_bulk(parts(1), echo, 4, {}, client.send))
    boundary = client.body.split(b"\r\n")[0]
    assert (
        client.body
        == (boundary + b"\r\nStatus: 200 OK\r\ncontent-type: a/b\r\ncontent-length: 1\r\nContent-ID: <0>\r\n\r\n0\r\n")
        + boundary
        + b"--\r\n"
    )


def test_no_more_than_so_many_are_asked_at_a_time() -> None:
    most, now = 0, 0

    async def ask(part: Part, number: int) -> HttpAnswer:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return await echo(part, number)

    asyncio.run(answer_bulk(parts(20), ask, 3, {}, Client().send))
    assert most == 3


def test_an_answer_is_sent_as_soon_as_all_before_it_are_there() -> None:
    client, ready = Client(), [asyncio.Event() for _ in range(3)]

    async def ask(part: Part, number: int) -> HttpAnswer:
        await ready[number].wait()
        return await echo(part, number)

    async def run() -> None:
        answering = asyncio.create_task(answer_bulk(parts(3), ask, 3, {}, client.send))
        sent = []
        for number in (1, 0, 2):
            ready[number].set()
            for _ in range(20):
                await asyncio.sleep(0)
            sent.append(client.body.count(b"Status"))
        await answering
        assert sent == [0, 2, 3]

    asyncio.run(run())


def test_a_client_that_goes_ends_what_runs_and_what_has_not_begun_never_begins() -> None:
    begun, ended = [], []

    async def ask(part: Part, number: int) -> HttpAnswer:
        begun.append(number)
        try:
            await asyncio.Event().wait()
            raise AssertionError
        finally:
            ended.append(number)

    async def run() -> None:
        scope: dict[str, Any] = {}
        answering = asyncio.create_task(answer_bulk(parts(5), ask, 2, scope, Client().send))
        for _ in range(5):
            await asyncio.sleep(0)
        scope[ON_CLIENT_GONE]()
        await answering

    asyncio.run(run())
    assert begun == ended == [0, 1]


def test_that_it_is_cancelled_itself_is_passed_on() -> None:
    async def ask(part: Part, number: int) -> HttpAnswer:
        await asyncio.Event().wait()
        raise AssertionError

    async def run() -> None:
        answering = asyncio.create_task(answer_bulk(parts(2), ask, 2, {}, Client().send))
        await asyncio.sleep(0.01)
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering

    asyncio.run(run())
