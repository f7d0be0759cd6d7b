from __future__ import annotations

import time

import pytest

from multigpu_inference.planner.stopwatch import time_calls


def test_sleep_is_wall_time_and_computing_is_both() -> None:
    def compute(_: object) -> None:
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass

    slept = time_calls(lambda _: time.sleep(0.02), lambda: None, lambda: None)
    computed = time_calls(compute, lambda: None, lambda: None)
    assert slept.wall_ms >= 20
    assert slept.cpu_ms < 5
    assert computed.cpu_ms == pytest.approx(20, abs=3)


def test_the_first_call_is_a_warm_up_and_the_rest_give_the_median() -> None:
    pauses = iter([0.5, 0.01, 0.3, 0.01, 0.01] + [0.01] * 100)
    cost = time_calls(lambda _: time.sleep(next(pauses)), lambda: None, lambda: None)
    assert 10 <= cost.wall_ms < 100


def test_each_call_gets_an_argument_of_its_own_made_outside_its_time() -> None:
    made, got = list[int](), list[int]()

    def make() -> int:
        made.append(len(made))
        time.sleep(0.05)
        return made[-1]

    cost = time_calls(got.append, make, lambda: None)
    assert got == made
    assert len(got) > 5
    assert cost.wall_ms < 10


def test_every_call_is_announced() -> None:
    ticks, calls = list[int](), list[int]()
    time_calls(lambda _: calls.append(1), lambda: None, lambda: ticks.append(1))
    assert len(ticks) == len(calls)
