from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import cast

import pytest

from multigpu_inference.arena import INLINE_BYTES
from multigpu_inference.config import Settings
from multigpu_inference.engine.engine import Engine
from multigpu_inference.engine.fetch_process import FetchProcess
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.engine.worker_process import Reply, WorkerProcess
from multigpu_inference.errors import StartupError, Unavailable
from multigpu_inference.ipc import Blob
from multigpu_inference.messages import FETCH_FN, INPUT_FN, FetchedItem, FetchResult, Result, ScriptInfo, Task

PHOTO = b"p" * (INLINE_BYTES + 1)


class Fetcher:
    """Gives a photo, as long as its source is there."""

    def __init__(self) -> None:
        self.is_away = False

    async def run(self, task: Task, blobs: Sequence[Blob], arena: RequestArena, **_: object) -> Reply:
        if self.is_away:
            raise Unavailable
        given = arena.memory.write([PHOTO], 1000)
        return Reply(Result(0, fetched=FetchResult((FetchedItem(1),))), given, "fetch-0")


class Replica:
    """Keeps what it is given."""

    name = "replica-0"

    def __init__(self) -> None:
        self.given: list[tuple[int, list[bytes]]] = []

    def reserve(self) -> None: ...

    async def run(self, task: Task, blobs: Sequence[Blob], arena: RequestArena) -> None:
        assert task.invocation.deadline < math.inf
        self.given.append((task.fetched, [arena.memory.read(blob) for blob in blobs]))


def test_a_replacement_is_warmed_up_by_the_sample_whose_source_has_gone_since() -> None:
    async def main() -> None:
        engine, fetcher, replica = Engine(Settings.from_env({})), Fetcher(), Replica()
        engine._script = ScriptInfo(functions=frozenset({FETCH_FN, INPUT_FN}), sample=(b"url", "text/plain"))
        engine._fetcher = cast(FetchProcess, fetcher)
        fetcher.is_away = True
        with pytest.raises(StartupError):  # at the start it must be there
            await engine._warm_up(cast(WorkerProcess, replica))
        fetcher.is_away = False
        await engine._warm_up(cast(WorkerProcess, replica))
        fetcher.is_away = True
        await engine._warm_up(cast(WorkerProcess, replica))
        assert replica.given == [(1, [PHOTO])] * 2

    asyncio.run(main())
