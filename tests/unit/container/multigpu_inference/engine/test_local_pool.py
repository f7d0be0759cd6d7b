from __future__ import annotations

import operator
import os
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any, cast

import pytest

from multigpu_inference import LocalPool, process
from multigpu_inference.errors import BadRequest
from multigpu_inference.user_module import request_body


@pytest.fixture(scope="module", autouse=True)
def _no_tracker_left() -> Iterator[None]:
    """End the process that `multiprocessing` starts beside its first child, and keeps."""
    yield
    cast(Any, resource_tracker)._resource_tracker._stop()


@pytest.fixture(scope="module")
def pool() -> Iterator[LocalPool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIGPU_PREPROCESS_WORKERS", "1")
        made = LocalPool()
        made.run(os.getpid)
    yield made
    made.shutdown()


def test_a_call_runs_in_another_process(pool: LocalPool) -> None:
    assert pool.run(os.getpid) != os.getpid()


def test_arguments_and_result_come_through(pool: LocalPool) -> None:
    assert pool.run(operator.add, [1], [2]) == [1, 2]
    assert pool.run(int, "ff", base=16) == 255


@pytest.mark.parametrize(("name", "value"), [("CUDA_VISIBLE_DEVICES", ""), ("OMP_NUM_THREADS", "1")])
def test_a_worker_sees_no_gpu_and_has_one_thread(pool: LocalPool, name: str, value: str) -> None:
    assert pool.run(os.getenv, name) == value


def test_an_error_comes_through_as_it_is(pool: LocalPool) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.run(operator.truediv, 1, 0)


def test_an_error_of_ours_comes_through_with_its_status(pool: LocalPool) -> None:
    with pytest.raises(BadRequest, match="a body of type text/csv must be UTF-8") as error:
        pool.run(request_body, b"\xff", "text/csv")
    assert error.value.status == 400


def test_what_does_not_pickle_raises_and_the_pool_lives(pool: LocalPool) -> None:
    with pytest.raises(TypeError, match="pickle"):
        pool.run(operator.not_, threading.Lock())
    assert pool.run(operator.not_, False)


def test_a_call_after_the_shutdown_starts_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_PREPROCESS_WORKERS", "1")
    pool = LocalPool()
    pool.shutdown()  # nothing has been started
    first = pool.run(os.getpid)
    pool.shutdown()
    assert pool.run(os.getpid) not in (first, os.getpid())
    pool.shutdown()


def test_in_a_process_of_the_container_a_call_is_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_is_worker", True)
    lock = threading.Lock()  # would not pickle
    assert LocalPool().run(lambda given: (given, os.getpid()), lock) == (lock, os.getpid())
