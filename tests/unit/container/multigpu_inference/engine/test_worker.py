from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from multigpu_inference import errors
from multigpu_inference.engine import worker
from multigpu_inference.errors import BadRequest, FunctionFailed, ModelError, ServingError
from multigpu_inference.ipc import Blob, FrameSocket
from multigpu_inference.messages import Failure, Invocation, Result, StartFailed, Task, WorkerReady

Answered = tuple[Result, list[Blob]]


class TooDark(BadRequest):
    """A script's own."""


def task(number: int = 7) -> Task:
    return Task(number, ("predict_fn",), Invocation("r-1", "a/b", "a/b", {}, 0.0, math.inf))


@contextmanager
def serving(run: worker.RunTask) -> Iterator[FrameSocket]:
    """A worker on a thread; the engine's end of its socket, behind its first word."""
    ours, theirs = map(FrameSocket, socket.socketpair())
    ours.settimeout(10)
    thread = threading.Thread(target=worker.serve, args=(theirs, lambda: run))
    thread.start()
    ready, _ = ours.receive()
    assert isinstance(ready, WorkerReady)
    yield ours
    ours.close()
    thread.join(10)
    assert not thread.is_alive()  # it ends when the engine hangs up
    theirs.close()


def failing(error: BaseException) -> worker.RunTask:
    def run(given: Task, blobs: Sequence[Blob]) -> Answered:
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
    ours, theirs = map(FrameSocket, socket.socketpair())
    ours.settimeout(10)

    def load() -> worker.RunTask:
        raise error

    worker.serve(theirs, load)
    assert ours.receive() == (StartFailed(message), [])
    ours.close()
    theirs.close()


def test_it_says_which_process_it_is() -> None:
    ours, theirs = map(FrameSocket, socket.socketpair())
    ours.settimeout(10)
    thread = threading.Thread(target=worker.serve, args=(theirs, lambda: failing(KeyError())))
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

    def run(given: Task, blobs: Sequence[Blob]) -> Answered:
        if faults:
            raise faults.pop()
        return Result(given.task_id), []

    with serving(run) as engine:
        engine.send(task())
        assert engine.receive()[0] == Failure(7, ServingError.__name__, "", "RuntimeError: ours")
        engine.send(task())
        assert engine.receive() == (Result(7), [])


@pytest.mark.parametrize(("error", "logged"), [(BadRequest("no"), False), (FunctionFailed("x"), True), (KeyError("x"), True)])
def test_the_trace_of_a_failure_is_logged_but_not_of_a_bad_request(
    capfd: pytest.CaptureFixture[str], error: Exception, logged: bool
) -> None:
    failure(error)
    assert ("Traceback" in capfd.readouterr().out) is logged
