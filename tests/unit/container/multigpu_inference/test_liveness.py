from __future__ import annotations

import pytest

from multigpu_inference.liveness import PINGED_TICKS, SILENT_TICKS, STOPPED_TICKS, TICK_S, Liveness
from multigpu_inference.proc_stat import ProcStat


def ticks_until_given_up(
    state: str, cpu_share: float = 0.0, *, silent_ticks: int = SILENT_TICKS, heard_every: int = 0
) -> int | None:
    """After how many ticks it is given up; None where that is not within a hundred."""
    liveness = Liveness(silent_ticks)
    liveness.tick(ProcStat("S", 7.0), heard=True)
    for tick in range(1, 101):
        heard = heard_every > 0 and tick % heard_every == 0
        if liveness.tick(ProcStat(state, 7.0 + tick * TICK_S * cpu_share), heard=heard) is not None:
            return tick
    return None


@pytest.mark.parametrize("heard_every", [0, 1])
def test_one_that_is_stopped_is_given_up_soon(heard_every: int) -> None:
    assert ticks_until_given_up("T", heard_every=heard_every) == STOPPED_TICKS


def test_one_that_a_debugger_holds_is_not_stopped() -> None:
    assert ticks_until_given_up("t") == SILENT_TICKS


def test_one_that_sleeps_and_says_nothing_is_hung() -> None:
    assert ticks_until_given_up("S") == SILENT_TICKS


def test_one_that_goes_round_in_circles_is_hung() -> None:
    assert ticks_until_given_up("R", cpu_share=0.9) == SILENT_TICKS


@pytest.mark.parametrize("state", ["R", "D"])
def test_one_that_does_not_get_to_the_cpu_has_twice_as_long(state: str) -> None:
    assert ticks_until_given_up(state, cpu_share=0.1) == 2 * SILENT_TICKS


def test_one_that_is_heard_of_now_and_then_lives() -> None:
    assert ticks_until_given_up("S", heard_every=SILENT_TICKS - 1) is None


def test_one_that_is_asked_has_longer() -> None:
    assert ticks_until_given_up("S", silent_ticks=PINGED_TICKS) == PINGED_TICKS


def test_one_that_is_stopped_and_continued_lives() -> None:
    liveness = Liveness()
    for state in "TTSTTSTTS":
        assert liveness.tick(ProcStat(state, 0.0), heard=True) is None


def test_what_has_ended_is_not_hung() -> None:
    liveness = Liveness()
    assert [liveness.tick(None, heard=False) for _ in range(50)] == [None] * 50


def test_found_within_five_seconds_and_never_for_one_late_word() -> None:
    assert SILENT_TICKS * TICK_S <= 5
    assert STOPPED_TICKS * TICK_S <= 2
