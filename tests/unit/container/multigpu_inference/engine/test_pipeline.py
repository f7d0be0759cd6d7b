from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from multigpu_inference.engine import hops, interest
from multigpu_inference.engine.hops import Span
from multigpu_inference.engine.interest import Interest, Withdrawals
from multigpu_inference.engine.pipeline import Pipeline
from multigpu_inference.engine.stage_runner import StageRunner
from multigpu_inference.errors import ClientGone
from support import wait_until

PATIENCE_S = 10.0


class FunctionStage:
    """A stage of one function."""

    max_batch_size = 1

    def __init__(self, function: Callable[[Any], Any], device: torch.device | str = "cpu") -> None:
        self.function = function
        self.device = device

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        return [self.function(item) for item in items]


class Watching(FunctionStage):
    """A stage that remembers its batches."""

    def __init__(self, function: Callable[[Any], Any] = lambda item: item, max_batch_size: int = 1) -> None:
        super().__init__(function)
        self.max_batch_size = max_batch_size
        self.batches: list[list[Any]] = []

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        self.batches.append(list(items))
        return super().__call__(items)


class Held(Watching):
    """A stage that works until it may go on."""

    def __init__(self, max_batch_size: int = 1) -> None:
        super().__init__(max_batch_size=max_batch_size)
        self.go_on = threading.Event()

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        results = super().__call__(items)
        assert self.go_on.wait(PATIENCE_S)
        return results

    def until_it_works_on(self, item: Any) -> None:
        wait_until(lambda: [item] in self.batches, PATIENCE_S)


def runners_of(pipeline: Pipeline) -> list[StageRunner]:
    (runners,) = pipeline._runners.values()
    return [runner for runner in runners if isinstance(runner, StageRunner)]


def until_waiting(pipeline: Pipeline, count: int) -> None:
    """Wait until so many items wait for the first stage."""
    first = runners_of(pipeline)[0]
    wait_until(lambda: len(first._queue._waiting) == count, PATIENCE_S)


def threads_of(pipeline: Pipeline) -> list[threading.Thread]:
    return [thread for runner in runners_of(pipeline) for thread in runner._threads]


def until_ended(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_an_item_passes_the_stages_in_order() -> None:
    assert Pipeline([FunctionStage(lambda x: x + 1), FunctionStage(lambda x: x * 10)])(1) == 20


def test_it_is_what_the_stages_give_one_after_another() -> None:
    torch.manual_seed(0)
    first, second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)
    x = torch.rand(3, 8)
    pipeline = Pipeline([FunctionStage(first), FunctionStage(torch.relu), FunctionStage(second)])
    assert torch.equal(pipeline(x), second(torch.relu(first(x))))


def test_batches_of_one_give_the_same_bits_as_the_stages_one_after_another() -> None:
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 3)
    items = [torch.rand(1, 3, 16 + i % 3, 16) for i in range(40)]
    with torch.no_grad():
        expected = [second(first(item)) for item in items]
    pipeline = Pipeline([FunctionStage(first), FunctionStage(second)])
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(pipeline, items))
    assert all(torch.equal(result, reference) for result, reference in zip(results, expected, strict=True))


def test_a_caller_alone_does_not_wait_for_a_batch() -> None:
    stage = Watching(max_batch_size=8)
    assert Pipeline([stage])("x") == "x"
    assert stage.batches == [["x"]]


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
    assert [span.name for span in recorded] == ["stage_1_ms", "stage_2_ms"]
    assert recorded[0].started <= recorded[0].ended <= recorded[1].started <= recorded[1].ended


def test_waiting_in_a_queue_is_not_the_stages_time() -> None:
    stage = Held()
    pipeline = Pipeline([stage])

    def call(item: str) -> Span:
        with hops.recording() as recorded:
            pipeline(item)
        return recorded[0]

    with ThreadPoolExecutor(2) as threads:
        a = threads.submit(call, "a")
        stage.until_it_works_on("a")
        b = threads.submit(call, "b")
        until_waiting(pipeline, 1)
        stage.go_on.set()
        assert b.result(PATIENCE_S).started >= a.result(PATIENCE_S).ended


def test_a_span_says_how_many_were_in_the_batch() -> None:
    pipeline = Pipeline([Watching(max_batch_size=2)], max_batch_delay_ms=PATIENCE_S * 1e3)

    def call(item: str) -> Span:
        with hops.recording() as recorded:
            pipeline(item)
        return recorded[0]

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(call, "ab")
    assert one == other
    assert one.batch_size == 2


def test_what_came_meanwhile_is_the_next_batch() -> None:
    stage = Held(max_batch_size=3)
    pipeline = Pipeline([stage])
    with ThreadPoolExecutor(5) as threads:
        calls = [threads.submit(pipeline, "a")]
        stage.until_it_works_on("a")
        for number, item in enumerate("bcde", 1):
            calls.append(threads.submit(pipeline, item))
            until_waiting(pipeline, number)
        stage.go_on.set()
        assert [call.result(PATIENCE_S) for call in calls] == list("abcde")
    assert stage.batches == [["a"], ["b", "c", "d"], ["e"]]


@pytest.mark.parametrize(("of_stage", "of_pipeline", "expected"), [(8, None, 8), (8, 2, 2), (2, 8, 2)])
def test_the_smaller_limit_counts(of_stage: int, of_pipeline: int | None, expected: int) -> None:
    stage = Held(max_batch_size=of_stage)
    pipeline = Pipeline([stage], max_batch_size=of_pipeline)
    with ThreadPoolExecutor(11) as threads:
        calls = [threads.submit(pipeline, "a")]
        stage.until_it_works_on("a")
        calls += [threads.submit(pipeline, "b") for _ in range(10)]
        until_waiting(pipeline, 10)
        stage.go_on.set()
        for call in calls:
            call.result(PATIENCE_S)
    assert len(stage.batches[1]) == expected


@pytest.mark.parametrize(("of_stage", "of_pipeline"), [(0, None), (8, 0), (-1, 8)])
def test_a_limit_below_one_is_refused(of_stage: int, of_pipeline: int | None) -> None:
    with pytest.raises(ValueError, match="Watching would take"):
        Pipeline([Watching(max_batch_size=of_stage)], max_batch_size=of_pipeline)


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
def test_every_caller_gets_its_own_result_out_of_batches() -> None:
    stages = [FunctionStage(lambda x: (x[0] + 1, x[1])), FunctionStage(lambda x: (x[0] * 2, x[1]))]
    for stage, limit in zip(stages, (5, 3), strict=True):
        stage.max_batch_size = limit
    shapes = [torch.zeros(1 + i % 3) for i in range(400)]
    pipeline = Pipeline(stages)
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(pipeline, enumerate(shapes)))
    assert [number for number, _ in results] == [2 * (item + 1) for item in range(400)]
    assert all(got is given for (_, got), given in zip(results, shapes, strict=True))


@pytest.mark.usefixtures("switching")
def test_every_bad_item_among_many_fails_alone() -> None:
    def work(item: int) -> int:
        if item % 7 == 0:
            raise LookupError(item)
        return item

    stages = [FunctionStage(work), FunctionStage(lambda item: item)]
    for stage in stages:
        stage.max_batch_size = 4

    def call(item: int) -> int | str:
        try:
            result: int = pipeline(item)
            return result
        except LookupError as error:
            return str(error)

    pipeline = Pipeline(stages)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(call, range(400))) == [str(i) if i % 7 == 0 else i for i in range(400)]


@pytest.mark.usefixtures("switching")
def test_every_caller_gets_its_own_items_result() -> None:
    pipeline = Pipeline([FunctionStage(lambda x: x + 1), FunctionStage(lambda x: x * 2), FunctionStage(lambda x: x - 2)])
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(pipeline, range(150))) == [2 * item for item in range(150)]


def test_a_stage_that_fails_is_free_for_the_next_item() -> None:
    pipeline = Pipeline([FunctionStage(lambda x: 1 / x)])
    with pytest.raises(ZeroDivisionError):
        pipeline(0)
    assert pipeline(1) == 1


def test_no_thread_is_there_before_the_first_call() -> None:
    assert Pipeline([FunctionStage(str)])._runners == {}


def test_the_stages_keep_nothing_of_an_item_that_is_done() -> None:
    class Item:
        pass

    pipeline = Pipeline([FunctionStage(lambda item: [item]), FunctionStage(lambda items: items[0])])
    item = Item()
    gone = weakref.ref(item)
    pipeline(item)
    del item
    wait_until(lambda: gone() is None, PATIENCE_S)  # the last stage's thread lets go of it just after the caller has it


def test_an_error_does_not_keep_its_item_once_it_is_dropped() -> None:
    class Item:
        pass

    def fail(item: Item) -> None:
        raise LookupError

    pipeline = Pipeline([FunctionStage(lambda item: item), FunctionStage(fail)])
    item = Item()
    gone = weakref.ref(item)
    gc.disable()  # what a cycle holds would stay until a collection
    try:
        with contextlib.suppress(LookupError):
            pipeline(item)
        del item
        wait_until(lambda: gone() is None, PATIENCE_S)
    finally:
        gc.enable()


def test_a_pipeline_that_is_dropped_ends_its_threads() -> None:
    pipeline = Pipeline([FunctionStage(str), FunctionStage(str)])
    pipeline("x")
    threads = threads_of(pipeline)
    assert len(threads) == 2
    del pipeline
    until_ended(threads)


def test_closing_ends_the_threads() -> None:
    pipeline = Pipeline([FunctionStage(str), FunctionStage(str)])
    pipeline("x")
    pipeline.close()
    until_ended(threads_of(pipeline))


@pytest.mark.parametrize("used", [False, True])
def test_after_closing_a_call_is_refused(used: bool) -> None:
    pipeline = Pipeline([FunctionStage(str)])
    if used:
        pipeline("x")
    pipeline.close()
    with pytest.raises(RuntimeError, match="closed"):
        pipeline("x")
    until_ended(threads_of(pipeline))


def test_who_waits_while_it_is_closed_gets_an_answer() -> None:
    first, second = Held(), Watching()
    pipeline = Pipeline([first, second])
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(pipeline, "a")]
        first.until_it_works_on("a")
        calls.append(threads.submit(pipeline, "b"))
        until_waiting(pipeline, 1)
        pipeline.close()
        first.go_on.set()
        assert [call.result(PATIENCE_S) for call in calls] == ["a", "b"]
    until_ended(threads_of(pipeline))


def run_script(text: str) -> subprocess.CompletedProcess[str]:
    """Run a script that may use `Pipeline` and `Echo`."""
    lines = f"""
        import os, sys, threading
        sys.path[:0] = {sys.path!r}
        from multigpu_inference.engine.pipeline import Pipeline
        class Echo:
            device, max_batch_size = "cpu", 1
            def __call__(self, items):
                return items
    """
    script = textwrap.dedent(lines) + textwrap.dedent(text)
    return subprocess.run([sys.executable, "-c", script], timeout=30, capture_output=True, text=True, check=False)


def test_a_forked_child_has_threads_of_its_own() -> None:
    ended = run_script("""
        pipeline = Pipeline([Echo(), Echo()])
        pipeline(1)
        child = os.fork()
        if child == 0:
            sys.exit(7 if pipeline(2) == 2 else 1)  # through what runs at an interpreter's exit as well
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert pipeline(3) == 3
    """)
    assert ended.returncode == 0, ended.stderr


def test_a_stage_that_never_ends_does_not_keep_the_process() -> None:
    ended = run_script("""
        begun = threading.Event()
        class Endless(Echo):
            def __call__(self, items):
                begun.set()
                threading.Event().wait()
        pipeline = Pipeline([Endless()])
        threading.Thread(target=pipeline, args=(1,), daemon=True).start()
        begun.wait()
    """)
    assert ended.returncode == 0, ended.stderr


def test_a_batch_is_formed_when_the_stage_has_its_device() -> None:
    device = threading.Lock()

    class Exclusive(Watching):
        def room(self) -> threading.Lock:
            return device

    stage = Exclusive(max_batch_size=8)
    pipeline = Pipeline([stage])
    with ThreadPoolExecutor(3) as threads:
        with device:  # another replica has it
            calls = []
            for number, item in enumerate("abc", 1):
                calls.append(threads.submit(pipeline, item))
                wait_until(lambda: pipeline._runners, PATIENCE_S)
                until_waiting(pipeline, number)
        assert [call.result(PATIENCE_S) for call in calls] == list("abc")
    assert stage.batches == [["a", "b", "c"]]


def test_an_item_that_nobody_waits_for_any_more_costs_the_next_stage_nothing() -> None:
    first, second = Held(), Watching()
    page = Withdrawals.create(1)
    with ThreadPoolExecutor(1) as caller, contextlib.closing(Pipeline([first, second])) as pipeline:

        def call() -> Any:
            with interest.held(Interest(float("inf"), page, 0)):
                return pipeline("left")

        answer = caller.submit(call)
        first.until_it_works_on("left")
        page.mark(0, withdrawn=True)
        first.go_on.set()
        with pytest.raises(ClientGone):
            answer.result(PATIENCE_S)
        assert pipeline("next") == "next"
    assert second.batches == [["next"]]


def test_a_withdrawn_item_leaves_its_batch_and_the_others_go_on() -> None:
    first, second = Held(), Watching(max_batch_size=2)
    page = Withdrawals.create(2)
    with ThreadPoolExecutor(2) as callers, contextlib.closing(Pipeline([first, second])) as pipeline:

        def call(slot: int) -> Any:
            with interest.held(Interest(float("inf"), page, slot)):
                return pipeline(slot)

        stays = callers.submit(call, 0)
        first.until_it_works_on(0)
        leaves = callers.submit(call, 1)
        until_waiting(pipeline, 1)
        page.mark(1, withdrawn=True)
        first.go_on.set()
        assert stays.result(PATIENCE_S) == 0
        with pytest.raises(ClientGone):
            leaves.result(PATIENCE_S)
    assert first.batches == [[0]]
    assert second.batches == [[0]]
