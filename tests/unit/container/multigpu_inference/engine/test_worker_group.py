"""Groups of real workers: turns, deaths, spares, and slots that are given up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from multigpu_inference.child_process import Command
from multigpu_inference.engine import slot_record, worker_group
from multigpu_inference.engine.death import Cause
from multigpu_inference.engine.worker_group import WorkerGroup
from multigpu_inference.engine.worker_process import Reply, WorkerProcess
from multigpu_inference.errors import StartupError, Unavailable, WorkerDied
from multigpu_inference.messages import INPUT_FN, Invocation, Task
from support import children_with

SERVICES = Path(__file__).resolve().parents[4] / "services"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder whose model is the script `commands`."""
    code = tmp_path / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text((SERVICES / "commands.py").read_text())
    return tmp_path


def group_of(model: Path, count: int, **options: Any) -> WorkerGroup:
    started = iter(range(1000))
    return WorkerGroup(
        "pool",
        lambda slot: Command(
            f"w{slot}-{next(started)}", "multigpu_inference.engine.pool_worker", (), {"SAGEMAKER_BASE_DIR": str(model)}
        ),
        count,
        startup_timeout_s=20,
        hang_after_s=60,
        **{"room": 1, **options},
    )


def with_group(group: WorkerGroup, use: Callable[[WorkerGroup], Coroutine[Any, Any, Any]]) -> Any:
    """Start a group, use it, and see that no process is left afterwards."""

    async def run() -> Any:
        await group.start()
        try:
            async with asyncio.timeout(30):
                return await use(group)
        finally:
            await group.stop()

    try:
        return asyncio.run(run())
    finally:
        assert not children_with("engine.pool_worker")


async def ask(group: WorkerGroup, **commands: Any) -> Reply:
    now = time.monotonic()
    invocation = Invocation("id", "application/json", "application/json", {}, now, now + 60)
    return await group.run(Task(0, (INPUT_FN,), invocation), [json.dumps({"input_fn": commands}).encode()])


async def until(predicate: Callable[[], Any]) -> None:
    while not predicate():
        await asyncio.sleep(0.02)


def pid_of(group: WorkerGroup, slot: int) -> int | None:
    worker = group.workers[slot]
    return worker.pid if worker else None


def _is_replaced(group: WorkerGroup, before: int) -> bool:
    return pid_of(group, 0) not in (before, None)


def _others(pid: int) -> set[int]:
    return {child.pid for child in children_with("engine.pool_worker")} - {pid}


def _has_healthy(group: WorkerGroup, count: int) -> bool:
    return group.healthy == count


def test_workers_take_turns(model: Path) -> None:
    async def use(group: WorkerGroup) -> list[str]:
        return [(await ask(group)).worker for _ in range(4)]

    names = with_group(group_of(model, 2), use)
    assert names[:2] == names[2:]
    assert len(set(names)) == 2


def test_a_task_whose_worker_is_killed_while_it_works_on_it_fails(model: Path) -> None:
    async def use(group: WorkerGroup) -> None:
        with pytest.raises(WorkerDied):
            await ask(group, crash=True)
        await ask(group)

    with_group(group_of(model, 2), use)


def test_a_task_that_only_waited_in_a_dead_worker_is_moved(model: Path) -> None:
    async def use(group: WorkerGroup) -> Reply:
        working, waiting = (asyncio.create_task(ask(group, sleep_s=pause)) for pause in (30, 0))
        await until(lambda: group.workers[0] and group.workers[0].in_flight == 2)
        assert group.workers[0]
        os.kill(group.workers[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await working
        return await waiting

    assert with_group(group_of(model, 1, room=2), use).blobs


def test_a_killed_worker_is_replaced_in_its_slot(model: Path) -> None:
    async def use(group: WorkerGroup) -> None:
        before = [pid_of(group, slot) for slot in range(2)]
        assert before[0] is not None
        os.kill(before[0], signal.SIGKILL)
        await until(lambda: pid_of(group, 0) not in (before[0], None))
        assert pid_of(group, 1) == before[1]

    with_group(group_of(model, 2), use)


def test_a_spare_takes_a_dead_workers_place_at_once_and_is_replaced_itself(model: Path) -> None:
    async def use(group: WorkerGroup) -> None:
        for _ in range(2):
            await until(lambda: len(children_with("engine.pool_worker")) == 2 and group.healthy == 1)
            before = pid_of(group, 0)
            assert before is not None
            os.kill(before, signal.SIGKILL)
            await until(partial(_is_replaced, group, before))
            await ask(group)

    with_group(group_of(model, 1, keep_spare=True), use)


def test_a_group_that_refuses_says_so_while_no_worker_lives(model: Path) -> None:
    async def use(group: WorkerGroup) -> None:
        pid = pid_of(group, 0)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not group.healthy)
        with pytest.raises(Unavailable):
            await ask(group)
        await until(lambda: group.healthy)
        await ask(group)

    with_group(group_of(model, 1, refuse_when_none=True), use)


def test_a_group_that_waits_answers_when_a_worker_is_back(model: Path) -> None:
    async def use(group: WorkerGroup) -> Reply:
        pid = pid_of(group, 0)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not group.healthy)
        return await ask(group)

    assert with_group(group_of(model, 1), use).blobs


def test_a_slot_whose_workers_do_not_start_is_given_up_and_the_last_one_is_a_loss(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_record, "LONGEST_PAUSE_S", 0.01)

    async def use(group: WorkerGroup) -> None:
        (model / "model" / "code" / "inference.py").write_text("raise RuntimeError")
        for slot in range(2):
            assert not group.lost.is_set()
            pid = pid_of(group, slot)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(partial(_has_healthy, group, 1 - slot))
        await group.lost.wait()

    with_group(group_of(model, 2), use)


def test_a_worker_gets_no_task_before_it_is_prepared(model: Path) -> None:
    prepared: list[str] = []

    async def prepare(worker: WorkerProcess) -> None:
        prepared.append(worker.name)

    async def use(group: WorkerGroup) -> str:
        return (await ask(group)).worker

    assert with_group(group_of(model, 1, prepare=prepare), use) in prepared


def test_a_worker_that_cannot_be_prepared_stops_the_start(model: Path) -> None:
    async def prepare(worker: WorkerProcess) -> None:
        raise StartupError("not this one")

    async def use(group: WorkerGroup) -> None: ...

    with pytest.raises(StartupError, match="not this one"):
        with_group(group_of(model, 2, prepare=prepare), use)


class Stand:
    """A worker in name only."""

    room = 1
    in_flight = 0
    pid = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.cause = Cause.INSIDE
        self.started_at = time.monotonic()
        self._ended = asyncio.Event()

    def end(self) -> None:
        self.alive = False
        self._ended.set()

    async def wait_closed(self) -> int:
        await self._ended.wait()
        return 1

    async def stop(self) -> None:
        self.end()


class Starts:
    """What takes the place of `WorkerProcess.start`: workers in name only, or none where it is told to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[Stand] = []
        self.failures = 0
        monkeypatch.setattr(WorkerProcess, "start", self._start)

    async def _start(self, command: Command, *_: object) -> Stand:
        if self.failures:
            self.failures -= 1
            raise StartupError("not now")
        self.started.append(Stand(command.name))
        return self.started[-1]


def _has_started(starts: Starts, group: WorkerGroup, count: int) -> bool:
    return len(starts.started) == count and group.healthy == 1


def test_pauses_between_early_deaths_do_not_lose_the_group(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_group, "recovery_limit_s", lambda load_s: 0.06)
    starts = Starts(monkeypatch)

    async def use(group: WorkerGroup) -> None:
        for count in range(2, 9):
            starts.started[-1].end()
            await until(partial(_has_started, starts, group, count))
        assert not group.lost.is_set()

    with_group(group_of(model, 1), use)


def test_a_spare_that_does_not_start_is_started_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_group, "_SPARE_PAUSE_S", 0.01)
    monkeypatch.setattr(slot_record, "LONGEST_PAUSE_S", 0.01)
    starts = Starts(monkeypatch)

    async def use(group: WorkerGroup) -> None:
        await until(lambda: group.spares == 1)
        starts.failures = 3
        starts.started[-1].end()
        await until(lambda: group.spares == 1)
        assert len(starts.started) == 3

    with_group(group_of(model, 1, keep_spare=True), use)


def test_a_spare_that_dies_while_it_waits_is_replaced(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_group, "_SPARE_PAUSE_S", 0.01)

    async def use(group: WorkerGroup) -> None:
        await until(lambda: group.spares == 1)
        (spare,) = (child.pid for child in children_with("engine.pool_worker") if child.pid != pid_of(group, 0))
        os.kill(spare, signal.SIGKILL)
        await until(lambda: group.spares == 1 and len(_others(spare)) == 2)

    with_group(group_of(model, 1, keep_spare=True), use)
