from __future__ import annotations

import dataclasses
import errno
import math
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import pytest

from multigpu_inference import arena as arenas
from multigpu_inference import errors
from multigpu_inference.arena import INLINE_BYTES, Arena, end_of
from multigpu_inference.engine import codec, worker
from multigpu_inference.engine.death import BROKEN, DEVICE_LOST
from multigpu_inference.errors import BadRequest, FunctionFailed, ModelError, ServingError
from multigpu_inference.ipc import Buffer, FrameSocket, Slice, socket_pair
from multigpu_inference.messages import ArenaClosed, ArenaOpened, Failure, Invocation, Result, StartFailed, Task, WorkerReady
from support import files_up_to, wait_until

LARGE = os.urandom(INLINE_BYTES + 1)
Answered = tuple[Result, list[Buffer]]


class TooDark(BadRequest):
    """A script's own."""


def task(number: int = 7) -> Task:
    return Task(number, ("predict_fn",), Invocation("r-1", "a/b", "a/b", {}, 0.0, math.inf))


@contextmanager
def serving(run: worker.RunTask, concurrency: int = 1, left: list[int] | None = None) -> Iterator[FrameSocket]:
    """A worker on a thread; the engine's end of its socket, behind its first word. `left` takes its exit code."""
    ours, theirs = map(FrameSocket, socket_pair())
    ours.settimeout(10)
    thread = threading.Thread(
        target=worker.serve, args=(theirs, lambda: worker.Work(run, concurrency), [].append if left is None else left.append)
    )
    thread.start()
    ready, _ = ours.receive()
    assert isinstance(ready, WorkerReady)
    assert ready.concurrency == concurrency
    yield ours
    ours.close()
    thread.join(10)
    assert not thread.is_alive()  # it ends when the engine hangs up
    theirs.close()


def failing(error: BaseException) -> worker.RunTask:
    def run(given: Task, blobs: Sequence[Buffer]) -> Answered:
        raise error

    return run


def failure(error: BaseException) -> Failure:
    with serving(failing(error)) as engine:
        engine.send(task(), [b"x"])
        answer, _ = engine.receive()
    assert isinstance(answer, Failure)
    return answer


def test_it_says_that_it_is_ready_and_answers_one_task_after_another() -> None:
    with serving(lambda given, blobs: (Result(given.task_id), [bytes(blob) * 2 for blob in blobs])) as engine:
        for number in range(3):
            engine.send(task(number), [b"a", b"%d" % number])
            assert engine.receive() == (Result(number), [bytearray(b"aa"), bytearray(b"%d" % number * 2)])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelError("there is no model"), "there is no model"),
        (KeyError("x"), "KeyError: 'x'"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_it_says_why_it_cannot_start(error: BaseException, message: str) -> None:
    ours, theirs = map(FrameSocket, socket_pair())
    ours.settimeout(10)

    def load() -> worker.Work:
        raise error

    worker.serve(theirs, load)
    assert ours.receive() == (StartFailed(message), [])
    ours.close()
    theirs.close()


def test_it_says_which_process_it_is() -> None:
    ours, theirs = map(FrameSocket, socket_pair())
    ours.settimeout(10)
    thread = threading.Thread(target=worker.serve, args=(theirs, lambda: worker.Work(failing(KeyError()))))
    thread.start()
    assert ours.receive()[0].pid == os.getpid()
    ours.close()
    thread.join(10)
    theirs.close()


def test_an_error_goes_by_its_name_its_text_and_what_the_log_wants() -> None:
    error = FunctionFailed("predict_fn failed")
    error.detail = "KeyError: 'x'"
    assert failure(error) == Failure(7, "FunctionFailed", "predict_fn failed", "KeyError: 'x'")


def test_an_error_class_of_the_scripts_own_keeps_its_status() -> None:
    answer = failure(TooDark("more light, please"))
    named = getattr(errors, answer.kind, None)  # the engine has not imported the script
    assert (named, answer.message) == (BadRequest, "more light, please")


def test_a_fault_of_ours_is_an_internal_error_and_the_worker_lives() -> None:
    faults: list[Exception] = [RuntimeError("ours")]

    def run(given: Task, blobs: Sequence[Buffer]) -> Answered:
        if faults:
            raise faults.pop()
        return Result(given.task_id), []

    with serving(run) as engine:
        engine.send(task())
        assert engine.receive()[0] == Failure(7, ServingError.__name__, "", "RuntimeError: ours", keeps_arena=True)
        engine.send(task())
        assert engine.receive() == (Result(7), [])


@pytest.mark.parametrize(("error", "logged"), [(BadRequest("no"), False), (FunctionFailed("x"), True), (KeyError("x"), True)])
def test_the_trace_of_a_failure_is_logged_but_not_of_a_bad_request(
    capfd: pytest.CaptureFixture[str], error: Exception, logged: bool
) -> None:
    failure(error)
    assert ("Traceback" in capfd.readouterr().out) is logged


# Bytes in an arena


def with_arena(engine: FrameSocket) -> Arena:
    """An arena that the worker has as number 1."""
    arena = Arena.create()
    engine.send(ArenaOpened(1), descriptor=arena.fileno())
    return arena


def in_arena(number: int = 7, used: int = 0) -> Task:
    return dataclasses.replace(task(number), arena=1, arena_used=used)


def test_large_bytes_are_read_and_answered_in_the_arena() -> None:
    with serving(lambda given, blobs: (Result(given.task_id), [bytes(blobs[0])[::-1], b"small"])) as engine:
        arena = with_arena(engine)
        blobs = arena.write([LARGE], 0)
        engine.send(in_arena(used=end_of(blobs)), blobs)
        result, (large, small) = engine.receive()
        assert result == Result(7)
        assert isinstance(large, Slice)
        assert large.offset >= end_of(blobs)
        assert arena.read(large) == LARGE[::-1]
        assert small == b"small"


def test_what_a_function_keeps_of_the_arena_is_said() -> None:
    kept = list[Any]()

    def run(given: Task, blobs: Sequence[Buffer]) -> Answered:
        if given.task_id % 2:
            kept.append(np.frombuffer(blobs[0], np.uint8))
        return Result(given.task_id), []

    with serving(run) as engine:
        blobs = with_arena(engine).write([LARGE], 0)
        for number in range(4):
            engine.send(in_arena(number), blobs)
        assert [engine.receive()[0].keeps_arena for _ in range(4)] == [False, True, False, True]
    assert all(array.tobytes() == LARGE for array in kept)


def test_what_was_encoded_again_is_not_kept() -> None:
    def run(given: Task, blobs: Sequence[Buffer]) -> Answered:
        return Result(given.task_id), codec.encode(codec.decode(blobs))

    with serving(run) as engine:
        blobs = with_arena(engine).write(codec.encode({"x": np.zeros(100_000)}), 0)
        engine.send(in_arena(used=end_of(blobs)), blobs)
        assert not engine.receive()[0].keeps_arena


def test_a_failure_keeps_nothing() -> None:
    def run(given: Task, blobs: Sequence[Buffer]) -> Answered:
        mine = np.frombuffer(blobs[0], np.uint8)
        raise BadRequest(f"{len(mine)} bytes are too many")

    with serving(run) as engine:
        engine.send(in_arena(), with_arena(engine).write([LARGE], 0))
        failed, _ = engine.receive()
        assert (failed.kind, failed.keeps_arena) == ("BadRequest", False)


def test_an_answer_that_no_arena_holds_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas, "MAX_BYTES", 1 << 20)
    with serving(lambda given, blobs: (Result(given.task_id), [bytes(2 << 20)])) as engine:
        with_arena(engine)
        engine.send(in_arena())
        failed, _ = engine.receive()
        assert failed.kind == "FunctionFailed"
        assert "what predict_fn returned: 2097152 bytes" in failed.detail


def test_an_answer_that_there_is_no_memory_for_can_be_asked_for_again() -> None:
    with serving(lambda given, blobs: (Result(given.task_id), [LARGE])) as engine:
        with_arena(engine)
        with files_up_to(1000):
            engine.send(in_arena())
            failed, _ = engine.receive()
        assert (failed.error().status, failed.error().code) == (503, "exhausted")
        engine.send(in_arena())
        assert isinstance(engine.receive()[0], Result)


def test_an_arena_that_is_closed_leaves_nothing_open() -> None:
    with serving(lambda given, blobs: (Result(given.task_id), list(blobs))) as engine:
        before = psutil.Process().num_fds()
        arena = with_arena(engine)
        blobs = arena.write([LARGE], 0)
        engine.send(in_arena(), blobs)
        engine.receive()
        engine.send(ArenaClosed(1))
        engine.send(ArenaClosed(1))
        del arena
        assert wait_until(lambda: psutil.Process().num_fds() == before, 10)


def test_a_slice_of_an_arena_that_is_not_there_fails_its_task_only() -> None:
    with serving(lambda given, blobs: (Result(given.task_id), [])) as engine:
        engine.send(in_arena(), [Slice(0, 100_000)])
        assert engine.receive()[0].kind == ServingError.__name__
        engine.send(task())
        assert engine.receive()[0] == Result(7)


def test_a_connection_that_is_broken_ends_the_process_which_would_fail_requests_for_ever() -> None:
    left = list[int]()
    with serving(lambda given, blobs: (Result(given.task_id), []), concurrency=2, left=left) as engine:
        engine._sock.send(b"no frame")
        wait_until(lambda: left, 10)
    assert left[0] == BROKEN


@pytest.mark.parametrize(("number", "exits"), [(errno.EMFILE, [BROKEN]), (errno.ENOMEM, [])])
def test_an_arena_that_cannot_be_reached_is_no_fault_of_the_request(
    number: int, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(arena: Arena, piece: Slice) -> Any:
        raise OSError(number, os.strerror(number))

    left = list[int]()
    with serving(lambda given, blobs: (Result(given.task_id), []), left=left) as engine:
        blobs = with_arena(engine).write([LARGE], 0)
        monkeypatch.setattr(Arena, "array", full)
        engine.send(in_arena(), blobs)
        failed, _ = engine.receive()
        assert (failed.error().status, failed.error().code) == (503, "exhausted")
    assert left == exits


def test_where_a_fault_of_ours_comes_between_the_arena_is_not_used_again() -> None:
    def run(given: Task, blobs: Sequence[Buffer]) -> Answered:
        raise RuntimeError("ours")

    with serving(run) as engine:
        engine.send(in_arena(), with_arena(engine).write([LARGE], 0))
        assert engine.receive()[0].keeps_arena


# Several tasks at a time


def test_tasks_are_worked_on_side_by_side_where_the_model_allows_it() -> None:
    together = threading.Barrier(3, timeout=10)

    def run(given: Task, blobs: Sequence[Buffer]) -> Answered:
        together.wait()
        return Result(given.task_id), list(blobs)

    with serving(run, concurrency=3) as engine:
        for number in range(3):
            engine.send(task(number), [b"%d" % number])
        assert {(said.task_id, bytes(blobs[0])) for said, blobs in (engine.receive() for _ in range(3))} == {
            (number, b"%d" % number) for number in range(3)
        }


def test_an_arena_that_is_closed_while_a_task_uses_it_lives_until_that_is_done() -> None:
    closed = threading.Event()

    def run(given: Task, blobs: Sequence[Buffer]) -> Answered:
        assert closed.wait(10)
        return Result(given.task_id), [bytes(blobs[0])]

    with serving(run, concurrency=2) as engine:
        arena = with_arena(engine)
        blobs = arena.write([LARGE], 0)
        engine.send(in_arena(used=end_of(blobs)), blobs)
        engine.send(ArenaClosed(1))
        engine.send(task(8), [b"x"])
        closed.set()
        answers = dict(sorted((said.task_id, blobs) for said, blobs in (engine.receive() for _ in range(2))))
        assert arena.read(answers[7][0]) == LARGE


def test_a_lost_device_ends_the_process_without_an_answer(capfd: pytest.CaptureFixture[str]) -> None:
    left = list[int]()
    failed = FunctionFailed()
    failed.__cause__ = RuntimeError("CUDA error: device-side assert triggered")
    with serving(failing(failed), left=left) as engine:
        engine.send(task())
        wait_until(lambda: left, 10)
    assert left[0] == DEVICE_LOST
    assert '"device_lost"' in capfd.readouterr().out


def test_a_device_that_is_lost_between_two_functions_ends_the_process_too(capfd: pytest.CaptureFixture[str]) -> None:
    left = list[int]()
    with serving(failing(RuntimeError("CUDA error: misaligned address")), left=left) as engine:
        engine.send(task())
        wait_until(lambda: left, 10)
    assert left[0] == DEVICE_LOST
    assert '"device_lost"' in capfd.readouterr().out


def caused_by(cause: BaseException, error: ServingError) -> ServingError:
    error.__cause__ = cause
    return error


def test_a_function_that_ran_out_of_memory_is_told_apart_and_the_worker_lives() -> None:
    failed = caused_by(MemoryError(), FunctionFailed("predict_fn failed"))
    failed.detail = "predict_fn: MemoryError"
    with serving(failing(failed)) as engine:
        for number in range(2):
            engine.send(task(number))
            assert engine.receive()[0] == Failure(number, "OutOfMemory", "", "predict_fn: MemoryError")


def test_memory_between_two_functions_too() -> None:
    told = failure(MemoryError())
    assert (told.kind, told.keeps_arena) == ("OutOfMemory", True)


def test_what_a_script_answers_where_it_runs_out_of_memory_is_its_answer() -> None:
    assert failure(caused_by(MemoryError(), BadRequest("too large for me"))).kind == "BadRequest"


def test_what_ran_out_of_memory_is_gone_before_it_is_told() -> None:
    class Large:
        """What the function had allocated, in a cycle."""

    kept: list[weakref.ref[Large]] = []

    def run(given: Task, blobs: Sequence[Buffer]) -> Answered:
        large = Large()
        large.itself = large  # type: ignore[attr-defined]
        kept.append(weakref.ref(large))
        raise caused_by(MemoryError(), FunctionFailed())

    with serving(run) as engine:
        engine.send(task())
        engine.receive()
        assert kept[0]() is None
