"""Real worker processes, started as the engine starts them, with the script `commands` in them."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from multigpu_inference import process
from multigpu_inference.arena import Arena
from multigpu_inference.child_process import Command
from multigpu_inference.engine import worker_process
from multigpu_inference.engine.death import DEVICE_LOST, Cause, OomKills
from multigpu_inference.engine.patience import Patience
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.engine.worker_process import Place, Reply, WorkerProcess
from multigpu_inference.errors import BadRequest, Exhausted, FunctionFailed, StartupError, WorkerDied, WorkerKilled, WorkerLost
from multigpu_inference.ipc import FrameStream, socket_pair
from multigpu_inference.messages import FETCH_FN, INPUT_FN, Invocation, Task
from support import children_with, wait_until

PATIENT = Patience(first_task_s=60, task_s=60)
SERVICES = Path(__file__).resolve().parents[4] / "services"


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """A pool worker with the script `commands`."""
    return pool_worker(tmp_path, (SERVICES / "commands.py").read_text())


def pool_worker(folder: Path, script: str) -> Command:
    code = folder / "model" / "code"
    shutil.rmtree(code, ignore_errors=True)
    code.mkdir(parents=True)
    (code / "inference.py").write_text(script)
    return Command("pool-0", "multigpu_inference.engine.pool_worker", (), {"SAGEMAKER_BASE_DIR": str(folder)})


def task(**commands: Any) -> tuple[Task, list[bytes]]:
    invocation = Invocation("id", "application/json", "application/json", {}, time.monotonic(), time.monotonic() + 60)
    return Task(0, (INPUT_FN,), invocation), [json.dumps({"input_fn": commands}).encode()]


def with_worker(
    command: Command, use: Callable[[WorkerProcess], Coroutine[Any, Any, Any]], patience: Patience = PATIENT
) -> Any:
    """Start a worker, use it, and see that its process is gone afterwards."""

    async def run() -> Any:
        worker = await WorkerProcess.start(command, asyncio.get_running_loop().time() + 20, patience)
        try:
            return await use(worker)
        finally:
            await worker.stop()
            assert not psutil.pid_exists(worker.pid)

    return asyncio.run(run())


async def ask(worker: WorkerProcess, **commands: Any) -> Reply:
    worker.reserve()
    return await worker.run(*task(**commands))


def test_a_task_is_answered_with_its_times_and_the_workers_name(command: Command) -> None:
    reply = with_worker(command, ask)
    assert reply.worker == "pool-0"
    assert [name for name, *_ in reply.result.spans] == ["preprocess_ms", "copy_ms"]
    assert reply.blobs


def test_an_error_of_a_task_leaves_the_worker_alive(command: Command) -> None:
    async def use(worker: WorkerProcess) -> Reply:
        with pytest.raises(BadRequest, match="as told"):
            await ask(worker, status=400)
        return await ask(worker)

    assert with_worker(command, use).blobs


def test_every_task_of_a_killed_worker_is_told_once(command: Command) -> None:
    async def use(worker: WorkerProcess) -> list[Any]:
        tasks = [asyncio.create_task(ask(worker, sleep_s=30)) for _ in range(3)]
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGKILL)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert not worker.alive
        assert await worker.wait_closed() == -signal.SIGKILL
        return answers

    # It worked on the first; the others only waited.
    assert [type(answer) for answer in with_worker(command, use)] == [WorkerKilled, WorkerLost, WorkerLost]


def test_a_task_that_cannot_be_sent_for_want_of_descriptors_here_costs_no_worker(command: Command) -> None:
    class CountedPlace:
        held = 0

        def lend(self) -> None:
            self.held += 1

        def give_back(self) -> None:
            self.held -= 1

    class NoDescriptor(RequestArena):
        def open_for(self, worker: FrameStream) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    async def use(worker: WorkerProcess) -> None:
        place, arena = CountedPlace(), NoDescriptor(Arena.create())
        for _ in range(2 * worker.room):
            worker.reserve()
            with pytest.raises(Exhausted):
                await worker.run(*task(), arena, place)
            assert (worker.alive, worker.in_flight, worker.oldest_task_sent) == (True, 0, None)
        assert place.held == 0
        assert (await ask(worker)).blobs
        assert not arena.spoiled

    with_worker(command, use)


def test_a_dead_worker_takes_no_task(command: Command) -> None:
    async def use(worker: WorkerProcess) -> None:
        worker.kill()
        await worker.wait_closed()
        with pytest.raises(WorkerLost):
            await ask(worker)
        assert worker.in_flight == 0

    with_worker(command, use)


def test_a_place_is_free_again_only_when_the_answer_has_come_that_nobody_waits_for(command: Command) -> None:
    async def use(worker: WorkerProcess) -> None:
        room = asyncio.Event()
        worker.on_room = room.set
        given_up = asyncio.create_task(ask(worker, sleep_s=0.2))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert worker.in_flight == 1
        await room.wait()
        assert worker.in_flight == 0
        assert (await ask(worker)).blobs  # its own answer, not the one that came late

    with_worker(command, use)


def test_a_task_that_is_given_up_while_it_waits_in_the_worker_is_never_run(command: Command, tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.mkdir()

    async def use(worker: WorkerProcess) -> None:
        first = asyncio.create_task(ask(worker, sleep_s=0.3))
        given_up = asyncio.create_task(ask(worker, tell=str(told)))
        await asyncio.sleep(0)
        given_up.cancel()
        spared: list[tuple[str, str]] = []
        worker.on_spared = lambda reason, before: spared.append((reason, before))
        await first
        await ask(worker)  # behind the one that was given up
        assert not list(told.iterdir())
        assert spared == [("client_gone", INPUT_FN)]
        await ask(worker, tell=str(told))  # nothing of it is left for who has its place next
        assert list(told.iterdir())

    with_worker(command, use)


@pytest.mark.parametrize("hangs", [{"sleep_s": 3600}, {"spin": True}])
def test_a_hung_worker_is_killed(command: Command, hangs: dict[str, Any]) -> None:
    async def use(worker: WorkerProcess) -> None:
        await ask(worker)
        with pytest.raises(WorkerDied) as error:
            await ask(worker, **hangs)
        assert not isinstance(error.value, WorkerKilled)
        assert await worker.wait_closed() == -signal.SIGKILL
        assert worker.cause is Cause.HUNG

    with_worker(command, use, Patience(first_task_s=60, task_s=0.2))


def test_a_fresh_worker_that_hangs_is_killed_once_it_is_known_what_a_first_task_takes(command: Command) -> None:
    async def use(worker: WorkerProcess) -> None:
        with pytest.raises(WorkerDied):
            await ask(worker, sleep_s=3600)
        assert worker.cause is Cause.HUNG

    with_worker(command, use, Patience(first_task_s=60, task_s=0.2, slowest_first_s=0.1))


def test_an_answer_that_is_an_error_is_no_measure_of_a_first_task(command: Command) -> None:
    patience = Patience(first_task_s=60, task_s=0.2)

    async def use(worker: WorkerProcess) -> None:
        with pytest.raises(BadRequest):
            await ask(worker, status=400)
        assert patience.slowest_first_s is None
        await ask(worker, sleep_s=0.5)
        assert patience.slowest_first_s is not None
        assert patience.slowest_first_s >= 0.5

    with_worker(command, use, patience)


def test_a_worker_that_crashes_may_have_done_so_by_its_task(command: Command) -> None:
    async def use(worker: WorkerProcess) -> None:
        with pytest.raises(WorkerDied) as error:
            await ask(worker, crash=True)
        assert not isinstance(error.value, WorkerKilled)
        assert await worker.wait_closed() == -signal.SIGSEGV
        assert worker.cause is Cause.INSIDE

    with_worker(command, use)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_ended_from_outside_was_not_ended_by_its_task(command: Command, sent: signal.Signals) -> None:
    async def use(worker: WorkerProcess) -> None:
        task = asyncio.create_task(ask(worker, sleep_s=30))
        await asyncio.sleep(0)
        os.kill(worker.pid, sent)
        with pytest.raises(WorkerKilled):
            await task
        assert worker.cause is Cause.OUTSIDE

    with_worker(command, use)


def test_a_worker_that_is_killed_while_the_kernel_runs_out_of_memory_may_be_the_reason(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    monkeypatch.setattr(worker_process, "_oom_kills", OomKills(lambda: kills))

    async def use(worker: WorkerProcess) -> None:
        nonlocal kills
        task = asyncio.create_task(ask(worker, sleep_s=30))
        await asyncio.sleep(0)
        kills += 1
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied) as error:
            await task
        assert not isinstance(error.value, WorkerKilled)
        assert worker.cause is Cause.OUT_OF_MEMORY

    with_worker(command, use)


def test_a_worker_that_is_stopped_is_ended_and_its_task_is_not_to_blame(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "_LOOK_AGAIN_S", 0.1)

    async def use(worker: WorkerProcess) -> None:
        task = asyncio.create_task(ask(worker, sleep_s=30))
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGSTOP)
        async with asyncio.timeout(3):
            with pytest.raises(WorkerKilled):
                await task

    with_worker(command, use)


def test_one_that_is_stopped_is_not_taken_for_hung(command: Command) -> None:
    async def use(worker: WorkerProcess) -> None:
        await ask(worker)
        task = asyncio.create_task(ask(worker, sleep_s=30))
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerKilled):
            await task

    with_worker(command, use, Patience(first_task_s=60, task_s=0.2))


def test_a_worker_that_is_stopped_for_a_moment_goes_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.cycle([True, False])
    monkeypatch.setattr(worker_process, "_LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(worker_process, "is_stopped", lambda pid: next(looks))

    async def use(worker: WorkerProcess) -> Reply:
        return await ask(worker, sleep_s=0.2)

    assert with_worker(command, use).blobs


def test_a_worker_that_closes_its_socket_and_goes_on_is_ended(tmp_path: Path) -> None:
    script = (
        (SERVICES / "commands.py").read_text().replace("os._exit(command", "os.closerange(3, 100), time.sleep(60), (command")
    )

    async def use(worker: WorkerProcess) -> None:
        async with asyncio.timeout(3):
            with pytest.raises(WorkerDied) as error:
                await ask(worker, leave=3)
        assert not isinstance(error.value, WorkerKilled)

    with_worker(pool_worker(tmp_path, script), use)


def fetch_worker(folder: Path) -> Command:
    """A worker of three threads."""
    command = pool_worker(folder, (SERVICES / "fetches.py").read_text())
    return Command("fetch-0", "multigpu_inference.engine.fetch_worker", ("3",), command.environ)


async def fetch(worker: WorkerProcess, place: Place | None = None, **asked: Any) -> Reply:
    invocation = Invocation("id", "application/json", "application/json", {}, time.monotonic(), time.monotonic() + 60)
    worker.reserve()
    return await worker.run(Task(0, (FETCH_FN,), invocation), [json.dumps(asked).encode()], place=place)


def test_one_late_task_of_many_costs_the_others_nothing(tmp_path: Path) -> None:
    async def use(worker: WorkerProcess) -> None:
        await fetch(worker)
        hung = asyncio.create_task(fetch(worker, sleep=3600))
        for _ in range(8):
            await fetch(worker, sleep=0.2)
        assert not hung.done()
        with pytest.raises(WorkerDied):  # now there are two
            await fetch(worker, sleep=3600)
        with pytest.raises(WorkerDied):
            await hung

    with_worker(fetch_worker(tmp_path), use, Patience(first_task_s=60, task_s=0.5, late_tasks=2))


class Noted:
    """A place that keeps count of who has it."""

    def __init__(self) -> None:
        self.lent = 0

    def lend(self) -> None:
        self.lent += 1

    def give_back(self) -> None:
        self.lent -= 1


def test_a_place_is_the_workers_until_it_has_answered_whoever_still_waits(tmp_path: Path) -> None:
    async def use(worker: WorkerProcess) -> None:
        answered, left, lost = Noted(), Noted(), Noted()
        await fetch(worker, answered)
        assert answered.lent == 0
        leaving = asyncio.create_task(fetch(worker, left, sleep=0.6))
        await asyncio.sleep(0.2)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert left.lent == 1
        await fetch(worker, sleep=1)
        assert left.lent == 0
        with pytest.raises(WorkerDied):
            await fetch(worker, lost, die="always")
        await worker.wait_closed()
        assert lost.lent == 0

    with_worker(fetch_worker(tmp_path), use)


def test_a_first_task_may_take_longer(command: Command) -> None:
    async def use(worker: WorkerProcess) -> Reply:
        return await ask(worker, sleep_s=0.5)

    assert with_worker(command, use, Patience(first_task_s=60, task_s=0.2)).blobs


def test_a_task_that_waits_behind_another_is_not_taken_for_a_hang(command: Command) -> None:
    async def use(worker: WorkerProcess) -> list[Reply]:
        await ask(worker)
        return await asyncio.gather(*(ask(worker, sleep_s=0.3) for _ in range(4)))

    assert len(with_worker(command, use, Patience(first_task_s=60, task_s=0.6))) == 4


def test_a_dead_worker_is_seen_though_something_that_it_forked_lives(tmp_path: Path) -> None:
    script = (SERVICES / "commands.py").read_text().replace(
        "def sample_input", "if os.fork() == 0:\n    os.setsid()\n    time.sleep(20)\n    os._exit(0)\n\n\ndef sample_input"
    )  # fmt: skip

    async def use(worker: WorkerProcess) -> None:
        os.kill(worker.pid, signal.SIGKILL)
        async with asyncio.timeout(3):
            assert await worker.wait_closed() == -signal.SIGKILL

    with_worker(pool_worker(tmp_path, script), use)


def test_a_worker_that_ends_by_itself_keeps_its_own_exit_code(command: Command) -> None:
    async def use(worker: WorkerProcess) -> None:
        with pytest.raises(WorkerDied):
            await ask(worker, leave=3)
        assert await worker.wait_closed() == 3
        assert worker.cause is Cause.INSIDE

    with_worker(command, use)


def test_a_device_that_is_lost_ends_the_worker_so_that_its_task_is_tried_elsewhere(command: Command) -> None:
    async def use(worker: WorkerProcess) -> None:
        with pytest.raises(WorkerDied):
            await ask(worker, sticky=True)
        assert await worker.wait_closed() == DEVICE_LOST

    with_worker(command, use)


def test_what_is_no_exception_costs_its_request_only(command: Command) -> None:
    async def use(worker: WorkerProcess) -> Reply:
        with pytest.raises(FunctionFailed):
            await ask(worker, panic=True)
        return await ask(worker)

    assert with_worker(command, use).blobs


def test_what_user_code_started_ends_with_the_worker(tmp_path: Path) -> None:
    script = (SERVICES / "commands.py").read_text().replace(
        'def sample_input', 'import subprocess\nchild = subprocess.Popen(["sleep", "3600"])\n\n\ndef sample_input'
    )  # fmt: skip

    async def use(worker: WorkerProcess) -> list[psutil.Process]:
        return psutil.Process(worker.pid).children()

    (child,) = with_worker(pool_worker(tmp_path, script), use)
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("raise RuntimeError('first\\nsecond')", "inference.py cannot be imported: RuntimeError: first second"),
        ("import os; os._exit(3)", "pool-0 ended before it was ready"),
        ("import time; time.sleep(60)", "pool-0 was not ready in time"),
    ],
)
def test_a_worker_that_is_not_ready_by_its_deadline_is_a_startup_error(tmp_path: Path, script: str, says: str) -> None:
    async def start() -> None:
        await WorkerProcess.start(pool_worker(tmp_path, script), asyncio.get_running_loop().time() + 1.5, PATIENT)

    with pytest.raises(StartupError) as error:
        asyncio.run(start())
    assert str(error.value) == says
    assert not children_with("engine.pool_worker")


def test_a_worker_that_is_stopped_may_clean_up_first(tmp_path: Path) -> None:
    done = tmp_path / "done"
    script = (SERVICES / "commands.py").read_text() + (
        f"\nimport atexit\n\n@atexit.register\ndef clean_up():\n    time.sleep(0.8)\n    pathlib.Path({str(done)!r}).touch()\n"
    )

    async def use(worker: WorkerProcess) -> None:
        await ask(worker)

    with_worker(pool_worker(tmp_path, script), use)
    assert done.exists()


class Ending:
    """A child whose socket has closed some time before its end can be seen, as where a device's driver takes its time."""

    def __init__(self, code: int) -> None:
        self.pid = 2**22 + 1  # of nobody
        self.returncode: int | None = None
        self._code = code
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def end(self) -> None:
        self.returncode = self._code
        self._ended.set()


@pytest.mark.parametrize(
    ("ends", "code", "cause"),
    [
        (True, -signal.SIGKILL, Cause.OUTSIDE),
        (True, -signal.SIGSEGV, Cause.INSIDE),
        (False, -signal.SIGKILL, Cause.INSIDE),  # killed by the engine, because it went on without its socket
    ],
)
def test_a_death_that_takes_its_time_is_judged_by_how_it_ends(
    ends: bool, code: int, cause: Cause, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "LAST_WORDS_S", 0.01)
    monkeypatch.setattr(worker_process, "is_ending", lambda pid: ends)
    monkeypatch.setattr(process, "kill_group", lambda pid: None)

    async def main() -> None:
        ours, theirs = socket_pair()
        child = Ending(code)
        worker = WorkerProcess("replica-0", cast(asyncio.subprocess.Process, child), FrameStream(ours), PATIENT, 1)
        asked = asyncio.create_task(ask(worker))
        await asyncio.sleep(0)
        theirs.close()
        asyncio.get_running_loop().call_later(0.1, child.end)
        with pytest.raises(WorkerDied) as error:
            await asked
        assert worker.cause is cause
        assert isinstance(error.value, WorkerKilled) is cause.is_nobodys
        assert not worker.alive

    asyncio.run(main())


def test_a_task_that_did_not_reach_a_worker_that_has_gone_goes_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "kill_group", lambda pid: None)

    async def main() -> None:
        ours, theirs = socket_pair()
        child = Ending(-signal.SIGSEGV)
        worker = WorkerProcess("pool-0", cast(asyncio.subprocess.Process, child), FrameStream(ours), PATIENT, 1)
        theirs.close()  # which nobody has noticed yet
        with pytest.raises(WorkerLost):
            await ask(worker)
        child.end()
        await worker.wait_closed()
        assert worker.cause is Cause.INSIDE

    asyncio.run(main())
