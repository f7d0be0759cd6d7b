from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest
import torch

from multigpu_inference.engine.interest import Interest
from multigpu_inference.engine.job import Job
from multigpu_inference.engine.stage_runner import StageRunner
from multigpu_inference.errors import DeadlineExceeded
from support import wait_until
from unit.container.multigpu_inference.engine.waiting import waits_in

PATIENCE_S = 10.0


class BatchStage:
    """A stage of one function, which remembers the batches that it was given."""

    device = "cpu"
    max_batch_size = 8

    def __init__(self, function: Callable[[list[Any]], Sequence[Any]]) -> None:
        self._function = function
        self.batches: list[list[Any]] = []

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        self.batches.append(list(items))
        return self._function(list(items))


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class AcceleratorError(RuntimeError):
    """As torch names it."""


def fit(most: int, error: type[BaseException] = OutOfMemoryError) -> Callable[[list[Any]], list[Any]]:
    """Work for at most so many items."""

    def work(items: list[Any]) -> list[Any]:
        if len(items) > most:
            raise error
        return items

    return work


def fail_on(bad: Any, error: BaseException) -> Callable[[list[Any]], list[Any]]:
    def work(items: list[Any]) -> list[Any]:
        if bad in items:
            raise error
        return [item * 10 for item in items]

    return work


def outcome(job: Job) -> Any:
    """A job's result, or the class of its error."""
    try:
        return job.result()
    except BaseException as error:
        return type(error)


def run(stage: Any, *rounds: Sequence[Any], limit: int = 8) -> list[Any]:
    """Hand in the items of each round together, once those of the one before are through."""
    runner = StageRunner(stage, 1, limit, 0.0, None)
    outcomes: list[Any] = []
    for items in rounds:
        jobs = [Job(item) for item in items]
        runner.hand(jobs)
        runner.start()
        outcomes += [outcome(job) for job in jobs]
    runner.close()
    return outcomes


def test_items_that_come_together_are_one_batch() -> None:
    stage = BatchStage(lambda items: [item * 10 for item in items])
    assert run(stage, [1, 2, 3]) == [10, 20, 30]
    assert stage.batches == [[1, 2, 3]]


def test_an_item_that_nobody_waits_for_takes_no_place_in_a_batch() -> None:
    stage = BatchStage(list)
    runner = StageRunner(stage, 2, 8, 0.0, None)
    late, wanted = Job("late", Interest(time.monotonic() - 1)), Job("wanted", Interest(time.monotonic() + 60))
    runner.hand([late, wanted])
    runner.start()
    with pytest.raises(DeadlineExceeded) as dropped:
        late.result()
    assert wanted.result() == "wanted"
    assert (stage.batches, dropped.value.spared) == ([["wanted"]], "stage_2")
    runner.close()


def test_a_batch_has_at_most_as_many_as_the_limit() -> None:
    stage = BatchStage(list)
    run(stage, [1, 2, 3, 4, 5], limit=2)
    assert stage.batches == [[1, 2], [3, 4], [5]]


def test_items_of_other_shapes_go_into_another_batch() -> None:
    stage = BatchStage(list)
    small, large = torch.zeros(1), torch.zeros(2)
    run(stage, [small, large, small])
    assert [len(batch) for batch in stage.batches] == [2, 1]


def test_a_stages_own_key_and_limit_are_followed() -> None:
    class Own(BatchStage):
        def batch_key(self, item: Any) -> Hashable:
            return bool(item % 2)

        def batch_limit(self, key: Hashable) -> int:
            return 3 if key else 2

    stage = Own(list)
    run(stage, [0, 1, 2, 3, 4, 5])
    assert stage.batches == [[0, 2], [1, 3, 5], [4]]


@pytest.mark.parametrize("name", ["batch_key", "batch_limit"])
def test_an_item_whose_key_or_limit_cannot_be_had_fails_alone(name: str) -> None:
    def own(value: Any) -> int:
        if value == "bad":
            raise KeyError
        return 1

    stage = BatchStage(list)
    setattr(stage, name, own)
    if name == "batch_limit":
        stage.batch_key = lambda item: item  # type: ignore[attr-defined]
    assert run(stage, ["a", "bad", "b"], ["c"]) == ["a", KeyError, "b", "c"]


def test_a_bad_item_fails_alone() -> None:
    stage = BatchStage(fail_on(3, ValueError()))
    assert run(stage, [1, 2, 3, 4, 5]) == [10, 20, ValueError, 40, 50]


def test_a_failed_batch_is_tried_again_in_halves() -> None:
    stage = BatchStage(fail_on(3, ValueError()))
    run(stage, [1, 2, 3, 4, 5])
    assert stage.batches == [[1, 2, 3, 4, 5], [1, 2, 3], [1, 2], [3], [4, 5]]


def test_what_is_no_exception_reaches_its_item_too() -> None:
    stage = BatchStage(fail_on(2, SystemExit()))
    assert run(stage, [1, 2], [3]) == [10, SystemExit, 30]


def test_another_number_of_results_fails_only_the_items_it_is_about() -> None:
    stage = BatchStage(lambda items: [item for item in items if item != "lost"])
    assert run(stage, ["a", "lost", "b"]) == ["a", ValueError, "b"]


def test_what_has_no_number_of_results_is_an_error_of_the_items() -> None:
    stage = BatchStage(lambda items: 5)  # type: ignore[arg-type,return-value]
    assert run(stage, [1, 2]) == [TypeError, TypeError]


def test_an_error_that_lost_the_device_is_not_tried_again() -> None:
    stage = BatchStage(fail_on(2, AcceleratorError()))
    assert run(stage, [1, 2, 3]) == [AcceleratorError] * 3
    assert stage.batches == [[1, 2, 3]]


@pytest.mark.parametrize("error", [OutOfMemoryError, MemoryError])
def test_a_batch_that_does_not_fit_is_halved(error: type[BaseException]) -> None:
    stage = BatchStage(fit(2, error))
    assert run(stage, [1, 2, 3, 4]) == [1, 2, 3, 4]
    assert stage.batches == [[1, 2, 3, 4], [1, 2], [3, 4]]


def test_what_did_not_fit_is_not_tried_again() -> None:
    stage = BatchStage(fit(2))
    run(stage, [1, 2, 3, 4], [5, 6, 7, 8])
    assert stage.batches[3:] == [[5, 6], [7, 8]]


def test_a_ceiling_holds_for_items_of_its_shape() -> None:
    def work(items: list[Any]) -> list[Any]:
        if len(items) > 1 and len(items[0]) > 1:
            raise OutOfMemoryError
        return items

    stage = BatchStage(work)
    small, large = torch.zeros(1), torch.zeros(2)
    run(stage, [large] * 2, [large] * 2, [small] * 4)
    assert [len(batch) for batch in stage.batches] == [2, 1, 1, 1, 1, 4]


def test_an_item_that_does_not_fit_by_itself_fails() -> None:
    assert run(BatchStage(fit(0)), [1, 2], [3]) == [OutOfMemoryError] * 3


def test_a_ceiling_is_logged_once(capfd: pytest.CaptureFixture[str]) -> None:
    run(BatchStage(fit(2)), [1, 2, 3, 4], [5, 6, 7, 8])
    (line,) = [json.loads(text) for text in capfd.readouterr().out.splitlines()]
    assert (line["event"], line["stage"], line["device"], line["max_batch_size"]) == ("batch_ceiling", 1, "cpu", 2)


def test_a_failed_attempt_is_gone_before_the_next() -> None:
    class Large:
        """What an attempt allocates."""

    attempts: list[weakref.ref[Large]] = []

    def work(items: list[Any]) -> list[Any]:
        assert not attempts or attempts[-1]() is None
        large = Large()
        attempts.append(weakref.ref(large))
        if len(items) > 1:
            raise OutOfMemoryError
        return items

    gc.disable()  # what a cycle holds is not gone
    try:
        assert run(BatchStage(work), [1, 2, 3, 4]) == [1, 2, 3, 4]
    finally:
        gc.enable()


def test_gradients_are_off_as_a_server_needs_no_others() -> None:
    layer = torch.nn.Linear(2, 2)
    (result,) = run(BatchStage(lambda items: [layer(item) for item in items]), [torch.zeros(2)])
    assert not result.requires_grad


def test_a_stage_that_is_closed_fails_what_comes_later() -> None:
    runner = StageRunner(BatchStage(list), 1, 8, 0.0, None)
    runner.close()
    job = Job(1)
    runner.hand([job])
    with pytest.raises(RuntimeError, match="closed"):
        job.result()


def test_a_stage_ends_after_those_before_it() -> None:
    second = StageRunner(BatchStage(list), 2, 8, 0.0, None)
    first = StageRunner(BatchStage(list), 1, 8, 0.0, second)
    job = Job(1)
    first.hand([job])
    first.close()
    second.start()
    first.start()
    assert job.result() == 1
    for runner in (first, second):
        (thread,) = runner._threads
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_starting_twice_is_starting_once() -> None:
    runner = StageRunner(BatchStage(list), 1, 8, 0.0, None)
    runner.start()
    threads = runner._threads
    runner.start()
    assert runner._threads is threads
    runner.close()


def test_a_stage_does_not_run_far_ahead_of_the_next() -> None:
    go_on = threading.Event()

    def wait(items: list[Any]) -> list[Any]:
        assert go_on.wait(PATIENCE_S)
        return items

    slow, quick = BatchStage(wait), BatchStage(list)
    second = StageRunner(slow, 2, 1, 0.0, None)
    first = StageRunner(quick, 1, 1, 0.0, second)
    jobs = [Job(item) for item in range(8)]
    first.hand(jobs)
    first.start()
    second.start()
    # One that the second stage works on and two that wait for it.
    wait_until(lambda: len(quick.batches) == 3 and waits_in(threading.Condition.wait, first._threads[0]), PATIENCE_S)
    assert (len(quick.batches), len(slow.batches)) == (3, 1)
    go_on.set()
    assert [job.result() for job in jobs] == list(range(8))
    first.close()


# What a stage holds while it works


class Door:
    """Raises where it is told to: on the way in, or out."""

    def __init__(self, entering: BaseException | None = None, leaving: BaseException | None = None) -> None:
        self._entering, self._leaving = entering, leaving

    def __enter__(self) -> None:
        error, self._entering = self._entering, None
        if error is not None:
            raise error

    def __exit__(self, *_: Any) -> None:
        error, self._leaving = self._leaving, None
        if error is not None:
            raise error


def with_door(door: Door) -> StageRunner:
    stage = BatchStage(lambda items: items)
    stage.room = lambda: door  # type: ignore[attr-defined]
    runner = StageRunner(stage, 1, 8, 0.0, None)
    runner.start()
    return runner


def test_an_error_on_the_way_in_fails_who_waits_and_not_the_thread() -> None:
    runner = with_door(Door(entering=PermissionError("no lock")))
    first, second = Job(1), Job(2)
    runner.hand([first])
    with pytest.raises(PermissionError, match="no lock"):
        first.result()
    runner.hand([second])
    assert second.result() == 2
    runner.close()


def test_an_error_on_the_way_out_loses_no_result() -> None:
    runner = with_door(Door(leaving=PermissionError("no lock")))
    for number in (1, 2):
        job = Job(number)
        runner.hand([job])
        assert job.result() == number
    runner.close()
