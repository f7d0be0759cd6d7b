from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from bench.image_steps import InOrder, Step, Steps
from support import wait_until


def test_every_item_goes_through_every_step_once_and_comes_as_it_is_ready() -> None:
    first_may_go = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert first_may_go.wait(5)
        return item * 10

    with Steps([Step("work", 4, work), Step("more", 2, lambda item: item + 1)], bound=8) as steps:
        outcomes = steps.outcomes(range(200))
        seen = [next(outcomes) for _ in range(199)]  # the first one holds up nobody
        first_may_go.set()
        seen.append(next(outcomes))
    assert seen[-1] == 1
    assert sorted(seen) == [item * 10 + 1 for item in range(200)]


def test_outcomes_come_in_the_items_order_where_that_is_wanted() -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item

    with Steps([Step("work", 8, work)], bound=12) as steps:
        assert list(steps.outcomes(range(100), ordered=True)) == list(range(100))


@pytest.mark.parametrize("ordered", [False, True])
def test_no_more_items_are_under_way_than_the_bound_says(ordered: bool) -> None:
    taken: list[int] = []
    held = threading.Event()

    def work(item: int) -> int:
        taken.append(item)
        if item == 0:
            assert held.wait(5)
        return item

    with Steps([Step("read", 2, work)], bound=5) as steps:
        outcomes = steps.outcomes(range(50), ordered=ordered)
        if not ordered:
            assert next(outcomes) == 1
        else:
            threading.Timer(0.3, held.set).start()
            began = time.monotonic()
            assert next(outcomes) == 0
            assert time.monotonic() - began > 0.2
        wait_until(lambda: len(taken) >= 5, 5)
        assert len(taken) <= 6  # what has been handed on leaves its place when the next one is asked for
        held.set()


def test_what_a_step_raises_ends_the_run() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise OSError("the disk is full")
        return item

    with Steps([Step("work", 2, work)], bound=4) as steps, pytest.raises(OSError, match="the disk is full"):
        list(steps.outcomes(range(100)))


def test_leaving_half_way_ends_all_threads() -> None:
    ended = threading.Event()
    before = threading.active_count()

    def work(item: Any) -> Any:
        if item == 20:
            ended.wait(30)
        return item

    with Steps([Step("work", 3, work)], bound=8, ended=ended) as steps:
        outcomes = steps.outcomes(range(1000))
        assert sorted(next(outcomes) for _ in range(10)) == list(range(10))
    wait_until(lambda: threading.active_count() == before, 5)


def test_in_order_holds_back_what_comes_before_its_turn() -> None:
    order = InOrder()
    assert order.add(1, "b") == []
    assert order.add(2, "c") == []
    assert order.add(0, "a") == ["a", "b", "c"]
    assert order.add(3, "d") == ["d"]
