from __future__ import annotations

import os
import time

from multigpu_inference.engine import interest
from multigpu_inference.engine.interest import Interest, Withdrawals
from multigpu_inference.errors import ClientGone, DeadlineExceeded

FOR_EVER = float("inf")


def test_a_page_begins_without_marks() -> None:
    page = Withdrawals.create(3)
    assert [page[slot] for slot in range(len(page))] == [False, False, False]


def test_a_mark_is_seen_by_who_has_the_same_page_mapped() -> None:
    ours = Withdrawals.create(4096)
    theirs = Withdrawals(os.dup(ours.fileno()))
    ours.mark(7, withdrawn=True)
    assert theirs[7]
    assert not theirs[6]
    ours.mark(7, withdrawn=False)
    assert not theirs[7]


def test_interest_is_lost_when_the_task_is_withdrawn() -> None:
    page = Withdrawals.create(2)
    somebody = Interest(FOR_EVER, page, 1)
    assert somebody.lost() is None
    page.mark(1, withdrawn=True)
    assert isinstance(somebody.lost(), ClientGone)


def test_interest_is_lost_at_the_deadline() -> None:
    assert isinstance(Interest(time.monotonic() - 0.001).lost(), DeadlineExceeded)
    assert Interest(time.monotonic() + 60).lost() is None


def test_what_is_not_begun_because_of_it_stands_in_the_error() -> None:
    lost = Interest(time.monotonic() - 0.001).lost("output_fn")
    assert lost is not None
    assert lost.spared == "output_fn"


def test_a_task_that_the_engine_has_withdrawn_at_its_deadline_is_late_and_its_client_is_still_there() -> None:
    page = Withdrawals.create(1)
    page.mark(0, withdrawn=True)
    assert isinstance(Interest(time.monotonic() - 0.001, page, 0).lost(), DeadlineExceeded)


def test_it_is_held_within_the_block_only() -> None:
    somebody = Interest(FOR_EVER)
    assert interest.current() is None
    with interest.held(somebody):
        assert interest.current() is somebody
    assert interest.current() is None
