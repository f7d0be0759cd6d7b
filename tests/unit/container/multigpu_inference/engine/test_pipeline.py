from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from multigpu_inference.engine import hops
from multigpu_inference.engine.pipeline import Pipeline
from multigpu_inference.engine.stage import Stage

PATIENCE_S = 10.0


class FunctionStage:
    """A stage of one function."""

    max_batch_size = 1

    def __init__(self, function: Callable[[Any], Any], device: torch.device | str = "cpu") -> None:
        self.function = function
        self.device = device

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        return [self.function(item) for item in items]


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_a_callable_with_a_device_and_a_batch_size_is_a_stage() -> None:
    assert isinstance(FunctionStage(str), Stage)
    assert not isinstance(len, Stage)


def test_an_item_passes_the_stages_in_order() -> None:
    assert Pipeline([FunctionStage(lambda x: x + 1), FunctionStage(lambda x: x * 10)])(1) == 20


def test_it_is_what_the_stages_give_one_after_another() -> None:
    torch.manual_seed(0)
    first, second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)
    x = torch.rand(3, 8)
    pipeline = Pipeline([FunctionStage(first), FunctionStage(torch.relu), FunctionStage(second)])
    assert torch.equal(pipeline(x), second(torch.relu(first(x))))


def test_a_stage_takes_one_item_at_a_time() -> None:
    seen: list[list[Any]] = []

    class Watching(FunctionStage):
        max_batch_size = 8

        def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
            seen.append(list(items))
            return items

    Pipeline([Watching(str)])("x")
    assert seen == [["x"]]


def test_it_has_the_devices_of_its_stages() -> None:
    stages = [FunctionStage(str, "cpu:0"), FunctionStage(str, torch.device("cpu", 1))]
    assert Pipeline(stages).devices == ("cpu:0", "cpu:1")


def test_it_keeps_its_stages() -> None:
    stages = [FunctionStage(str), FunctionStage(str)]
    assert Pipeline(stages).stages == tuple(stages)


def test_without_a_stage_there_is_no_pipeline() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        Pipeline([])


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_results_than_items_is_refused(count: int) -> None:
    class Wrong(FunctionStage):
        def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
            return ["x"] * count

    with pytest.raises(ValueError, match=f"Wrong returned {count} results for 1 item"):
        Pipeline([Wrong(str)])("x")


def test_each_stage_is_a_hop() -> None:
    with hops.recording() as recorded:
        Pipeline([FunctionStage(str), FunctionStage(str)])("x")
    assert list(recorded) == ["stage_1_ms", "stage_2_ms"]
    assert all(milliseconds >= 0 for milliseconds in recorded.values())


def test_waiting_for_a_turn_is_not_the_stages_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 1.5])  # read twice only: behind the turn, and behind the work
    monkeypatch.setattr("multigpu_inference.engine.pipeline.time.perf_counter", lambda: next(clock))
    with hops.recording() as recorded:
        Pipeline([FunctionStage(str)])("x")
    assert recorded == {"stage_1_ms": 500.0}


def test_two_threads_overlap_in_different_stages() -> None:
    a_is_in_stage_2 = threading.Event()
    both = threading.Barrier(2, timeout=PATIENCE_S)

    def first(item: str) -> str:
        if item == "b":
            both.wait()
        return item

    def second(item: str) -> str:
        if item == "a":
            a_is_in_stage_2.set()
            both.wait()
        return item

    pipeline = Pipeline([FunctionStage(first), FunctionStage(second)])
    with ThreadPoolExecutor(2) as threads:
        a = threads.submit(pipeline, "a")
        assert a_is_in_stage_2.wait(PATIENCE_S)
        b = threads.submit(pipeline, "b")
        assert (a.result(PATIENCE_S), b.result(PATIENCE_S)) == ("a", "b")


@pytest.mark.usefixtures("switching")
def test_a_stage_never_works_on_two_items_at_once() -> None:
    alone = threading.Lock()

    def work(item: int) -> int:
        assert alone.acquire(blocking=False)
        total = sum(range(200))  # long enough for another thread's turn
        alone.release()
        return item + total - 19_900

    pipeline = Pipeline([FunctionStage(work)])
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(pipeline, range(400))) == list(range(400))


@pytest.mark.usefixtures("switching")
def test_every_caller_gets_its_own_items_result() -> None:
    pipeline = Pipeline([FunctionStage(lambda x: x + 1), FunctionStage(lambda x: x * 2), FunctionStage(lambda x: x - 2)])
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(pipeline, range(400))) == [2 * item for item in range(400)]


def test_a_stage_that_fails_is_free_for_the_next_item() -> None:
    pipeline = Pipeline([FunctionStage(lambda x: 1 / x)])
    with pytest.raises(ZeroDivisionError):
        pipeline(0)
    assert pipeline(1) == 1
