"""Bulk requests from their body to their answers, by way of an engine that is a few lines in the same process."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from multigpu_inference.arena import Arena
from multigpu_inference.config import Settings
from multigpu_inference.frontend.http.engine_link import EngineLink
from multigpu_inference.frontend.http.invocations import _MOST_BULKS, Invocations
from unit.container.multigpu_inference.frontend.http.linked import linked, turn_to


class Client:
    """One that sends a body in two pieces, the second when it is told to, and keeps its answer."""

    def __init__(self, parts: list[bytes]) -> None:
        part = b"--B\r\nContent-Type: a/b\r\n\r\n%s\r\n"
        self._body = b"".join(part % body for body in parts) + b"--B--\r\n"
        self._sent = 0
        self.may_send_all = asyncio.Event()
        self.status = 0
        self.answer = b""

    async def receive(self) -> Any:
        if self._sent:
            await self.may_send_all.wait()
        piece = (self._body[:-1], self._body[-1:])[self._sent]
        self._sent += 1
        return {"type": "http.request", "body": piece, "more_body": self._sent == 1}

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.answer += message.get("body", b"")

    async def ask(self, app: Invocations) -> None:
        headers = [(b"content-type", b"multipart/mixed; boundary=B"), (b"content-length", b"%d" % len(self._body))]
        await app({"headers": headers, "path": "/invocations", "method": "POST"}, self.receive, self.send)

    def answered(self, status: int) -> int:
        """How many of its parts were answered so."""
        return self.answer.count(b"Status: %d" % status)


def app_of(link: EngineLink) -> Invocations:
    return Invocations(link, Settings.from_env({"SAGEMAKER_BASE_DIR": os.devnull, "MULTIGPU_REQUEST_TIMEOUT_S": "5"}))


def test_bulk_requests_that_come_together_keep_neither_each_other_nor_single_requests_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path, max_in_flight=4) as (link, engine):
            engine.answers = False
            app, clients = app_of(link), [Client([b"x"] * 6) for _ in range(64)]
            asking = [asyncio.create_task(client.ask(app)) for client in clients]
            await turn_to(lambda: link.refusal() is not None)  # all of them are on their way in
            for client in clients:
                client.may_send_all.set()
            await turn_to(lambda: len(engine.asked) == 2)  # half of what it holds
            assert link.refusal() is None
            engine.answers = True
            for invocation in list(engine.asked):
                engine.answer(invocation)
            await asyncio.gather(*asking)
            served = [client for client in clients if client.answered(200)]
            assert {client.answered(200) for client in served} == {6}
            assert len(served) == _MOST_BULKS
            assert {client.status for client in clients if client not in served} == {503}
            assert engine.most == 2
            late = Client([b"x"])
            late.may_send_all.set()
            await late.ask(app)
            assert late.answered(200) == 1

    asyncio.run(main())


def test_a_bulk_request_beyond_those_that_are_answered_is_refused_before_its_body(tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path) as (link, engine):
            engine.answers = False
            app, clients = app_of(link), [Client([b"x"]) for _ in range(_MOST_BULKS)]
            asking = [asyncio.create_task(client.ask(app)) for client in clients]
            for client in clients:
                client.may_send_all.set()
            await turn_to(lambda: all(client.status for client in clients))
            late = Client([b"x"])
            await late.ask(app)
            assert (late.status, b'"overloaded"' in late.answer) == (503, True)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(main())


def test_a_part_that_there_is_no_memory_for_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any) -> Any:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    async def main() -> None:
        async with linked(tmp_path) as (link, _):
            client = Client([b"x"] * 100)
            client.may_send_all.set()
            with monkeypatch.context() as patched:
                patched.setattr(Arena, "write", no_memory)
                await client.ask(app_of(link))
            assert (client.answered(503), client.answer.count(b'"exhausted"')) == (100, 100)
            assert link.refusal() is None

    asyncio.run(main())
