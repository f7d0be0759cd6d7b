from __future__ import annotations

from multigpu_inference.engine.patience import Patience


def test_a_first_task_may_warm_up_a_later_one_may_not() -> None:
    patience = Patience(first_task_s=600, task_s=20)
    assert patience.limit_s(first=True) == 600
    assert patience.limit_s(first=False) == 20


def test_once_it_is_known_what_a_first_task_takes_the_next_ones_limit_follows_from_it() -> None:
    patience = Patience(first_task_s=600, task_s=20)
    patience.first_task_took(0.5)
    assert patience.limit_s(first=True) == 21
    patience.first_task_took(30)
    patience.first_task_took(1)
    assert patience.limit_s(first=True) == 80


def test_no_limit_is_over_that_of_a_start_or_under_that_of_any_task() -> None:
    patience = Patience(first_task_s=60, task_s=20)
    patience.first_task_took(50)
    assert patience.limit_s(first=True) == 60
    assert Patience(first_task_s=5, task_s=20).limit_s(first=True) == 20
