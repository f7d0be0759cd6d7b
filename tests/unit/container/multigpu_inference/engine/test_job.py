from __future__ import annotations

import threading
from typing import Any

import pytest

from multigpu_inference.engine.hops import Span
from multigpu_inference.engine.job import Job, Pass

PATIENCE_S = 10.0


class Interrupting:
    """A lock at which the caller is interrupted, as by Ctrl-C."""

    def acquire(self) -> None:
        raise KeyboardInterrupt

    def release(self) -> None:
        pass


class Marking:
    """An event that notes who waited for it."""

    def __init__(self) -> None:
        self.waited: list[str] = []

    def synchronize(self) -> None:
        self.waited.append(threading.current_thread().name)


def test_its_result_is_its_last_value() -> None:
    job = Job("a")
    job.become("b")
    job.settle()
    assert job.result() == "b"


def test_its_error_is_raised() -> None:
    job = Job("a")
    job.settle(KeyError("x"))
    with pytest.raises(KeyError, match="x"):
        job.result()


def test_it_has_one_outcome() -> None:
    job = Job("a")
    job.settle()
    with pytest.raises(RuntimeError, match="unlocked"):
        job.settle(KeyError())


def test_it_keeps_what_it_was() -> None:
    class Value:
        pass

    import weakref

    job = Job(Value())
    first = weakref.ref(job.value)
    job.become("b")
    assert first() is not None
    del job
    assert first() is None


def test_its_spans_are_in_the_order_of_the_stages() -> None:
    job = Job("a")
    job.passed(Pass(1.0, 2.0, 3))
    job.passed(Pass(4.0, 5.0, 1))
    assert job.spans() == [Span("stage_1_ms", 1.0, 2.0, 3), Span("stage_2_ms", 4.0, 5.0, 1)]


def test_an_interrupted_callers_job_is_kept_until_its_work_has_ended() -> None:
    job, event = Job("a"), Marking()
    issued: Any = job.issued
    issued.append(event)
    job._settled = Interrupting()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        job.result()
    assert event.waited == []  # a stage still works on it
    stage = threading.Thread(target=job.settle, name="stage-1")
    stage.start()
    stage.join(PATIENCE_S)
    assert event.waited == ["stage-1"]
