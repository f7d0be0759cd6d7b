"""What becomes of a request whose workers end: `Request.answered`."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any, cast

import pytest

from multigpu_inference.arena import Arena
from multigpu_inference.engine.poison_list import PoisonList
from multigpu_inference.engine.request import Request
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.engine.worker_group import WorkerGroup
from multigpu_inference.engine.worker_process import Reply
from multigpu_inference.errors import (
    BadRequest,
    OutOfMemory,
    ServingError,
    Unavailable,
    Unprocessable,
    WorkerDied,
    WorkerKilled,
)
from multigpu_inference.ipc import Blob
from multigpu_inference.messages import INPUT_FN, Invocation, Task

ANSWER = b"answer"


class Tries:
    """A request whose tries end as told; then it is answered."""

    def __init__(self, *ends: ServingError, body: bytes = b"body") -> None:
        now = time.monotonic()
        invocation = _invocation(now)
        self.request = Request(invocation, body, RequestArena(Arena.create()))
        self.invocation = invocation
        self.poison = PoisonList()
        self.alone: list[bool] = []
        self._ends = list(ends)

    async def _attempt(self) -> Blob:
        self.alone.append(self.request.alone)
        if self._ends:
            raise self._ends.pop(0)
        return ANSWER

    def answer(self) -> Blob:
        return asyncio.run(self.request.answered(self._attempt, self.poison))

    def is_known(self) -> bool:
        return asyncio.run(self.request.is_known(self.poison))


def _invocation(now: float) -> Invocation:
    return Invocation("r", "a/b", "*/*", {}, now, now + 60)


def test_after_a_death_that_may_be_its_doing_it_is_tried_once_more_alone() -> None:
    tries = Tries(WorkerDied())
    assert tries.answer() == ANSWER
    assert tries.alone == [False, True]
    assert not tries.is_known()


def test_a_second_one_is_its_own_and_its_content_is_remembered() -> None:
    tries = Tries(WorkerDied(), WorkerDied())
    with pytest.raises(Unprocessable):
        tries.answer()
    assert tries.alone == [False, True]
    assert tries.is_known()


@pytest.mark.parametrize(
    ("changed", "known"),
    [
        ({}, True),
        ({"request_id": "another", "arrived": 1.0, "headers": {"user-agent": "another"}}, True),
        ({"form": {"crash": "0"}}, False),
        ({"form": {}}, False),
        ({"accept": "text/plain"}, False),
        ({"headers": {"x-amzn-sagemaker-custom-attributes": "crash=1"}}, False),
        ({"content_type": "text/plain"}, False),
    ],
)
def test_what_came_beside_the_content_must_be_the_same_for_it_to_be_known(changed: dict[str, Any], known: bool) -> None:
    tries = Tries(WorkerDied(), WorkerDied())
    tries.invocation.form = {"crash": "1", "save": "no"}
    with pytest.raises(Unprocessable):
        tries.answer()
    invocation = dataclasses.replace(tries.invocation, **changed)
    again = Request(invocation, b"body", RequestArena(Arena.create()))
    assert asyncio.run(again.is_known(tries.poison)) is known


def test_deaths_from_outside_count_against_nobody() -> None:
    tries = Tries(*[WorkerKilled()] * 3)
    assert tries.answer() == ANSWER
    assert tries.alone == [False] * 4


def test_a_death_from_outside_beside_one_of_its_own_is_not_a_second_one() -> None:
    tries = Tries(WorkerKilled(), WorkerDied(), WorkerKilled(), WorkerKilled())
    assert tries.answer() == ANSWER
    assert tries.alone == [False, False, True, True, True]


def test_what_ran_out_of_memory_is_tried_once_more_alone() -> None:
    tries = Tries(OutOfMemory())
    assert tries.answer() == ANSWER
    assert tries.alone == [False, True]


def test_what_runs_out_of_memory_by_itself_is_told_so_and_not_remembered() -> None:
    tries = Tries(OutOfMemory(), OutOfMemory())
    with pytest.raises(OutOfMemory):
        tries.answer()
    assert not tries.is_known()


def test_running_out_of_memory_is_no_death() -> None:
    tries = Tries(OutOfMemory(), WorkerDied())
    assert tries.answer() == ANSWER
    assert not tries.is_known()


def test_where_deaths_from_outside_go_on_it_is_to_come_later() -> None:
    tries = Tries(*[WorkerKilled()] * 4)
    with pytest.raises(Unavailable) as error:
        tries.answer()
    assert error.value.retry_after_s
    assert not tries.is_known()


def test_what_the_script_refuses_is_not_remembered() -> None:
    tries = Tries(BadRequest())
    with pytest.raises(BadRequest):
        tries.answer()
    assert not tries.is_known()
    tries = Tries(Unprocessable("the script's own"))
    with pytest.raises(Unprocessable):
        tries.answer()
    assert not tries.is_known()


def test_it_begins_anew_with_each_try() -> None:
    tries = Tries(WorkerKilled())
    tries.request.spans += (("preprocess_ms", 0.0, 1.0, 1),)
    tries.answer()
    assert tries.request.spans == ()


def test_it_waits_for_admission_and_then_for_a_worker_until_one_has_it() -> None:
    request = Tries().request
    assert request.waits_for == "admission"
    seen: list[str] = []

    class Workers:
        async def run(self, task: Task, *_: object, **__: object) -> Reply:
            seen.append(request.waits_for)
            task.slot = 0
            seen.append(request.waits_for)
            raise BadRequest

    with pytest.raises(BadRequest):
        asyncio.run(request.step(cast(WorkerGroup, Workers()), request.task((INPUT_FN,)), request.source))
    assert seen == [INPUT_FN, ""]
