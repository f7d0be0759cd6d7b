from __future__ import annotations

import pytest

from multigpu_inference.engine.service_rate import ServiceRate, retry_after_s


class House:
    """Full from the beginning; requests leave when told, others have their places at once."""

    def __init__(self, places: int = 4) -> None:
        self.now = 0.0
        self.rate = ServiceRate(places, lambda: self.now)
        self.rate.full(is_so=True)

    def leave_after(self, *gaps: float) -> House:
        for gap in gaps:
            self.now += gap
            self.rate.left()
            self.rate.full(is_so=True)
        return self

    def idle(self, seconds: float) -> House:
        self.rate.full(is_so=False)
        self.now += seconds
        self.rate.full(is_so=True)
        return self


def test_nothing_is_said_before_enough_has_been_seen() -> None:
    house = House().leave_after(*[30.0] * 7)
    assert house.rate.seconds_until(5) == 0.0
    assert house.leave_after(30.0).rate.seconds_until(5) == pytest.approx(150.0)


def test_the_wait_is_a_gap_for_each_that_has_to_leave_before() -> None:
    house = House().leave_after(*[0.02] * 20)
    assert [house.rate.seconds_until(count) for count in (0, 1, 5)] == pytest.approx([0.0, 0.02, 0.1])


def test_one_slow_request_among_quick_ones_says_nothing_about_the_next() -> None:
    quick = House().leave_after(*[0.01] * 40)
    slow = House().leave_after(*[0.01] * 20, 50.0, *[0.01] * 19)
    assert slow.rate.seconds_until(8) == pytest.approx(quick.rate.seconds_until(8))


def test_a_standstill_is_taken_to_last_as_long_again() -> None:
    house = House().leave_after(*[0.01] * 20)
    house.now += 20.0
    assert house.rate.seconds_until(1) == pytest.approx(20.0)
    assert house.rate.seconds_until(3) == pytest.approx(20.02)


def test_a_batch_that_leaves_together_counts_as_its_items() -> None:
    house = House(places=32).leave_after(*[0.8, *[0.0] * 7] * 16)
    assert house.rate.seconds_until(8) == pytest.approx(0.8, rel=0.1)


def test_time_with_a_free_place_counts_for_nothing() -> None:
    house = House().leave_after(*[0.01] * 20).idle(3600.0)
    assert house.rate.seconds_until(10) == pytest.approx(0.1)
    house.leave_after(0.01)
    assert house.rate.seconds_until(10) == pytest.approx(0.1)


def test_who_leaves_while_places_are_free_says_nothing() -> None:
    house = House().leave_after(*[0.01] * 20)
    house.rate.full(is_so=False)
    for _ in range(100):
        house.now += 5.0
        house.rate.left()
    house.rate.full(is_so=True)
    assert house.rate.seconds_until(10) == pytest.approx(0.1)


def test_half_of_the_replicas_lost_doubles_the_wait_as_soon_as_it_shows() -> None:
    house = House().leave_after(*[0.01] * 64).leave_after(*[0.02] * 64)
    assert house.rate.seconds_until(10) == pytest.approx(0.2)


def test_a_mix_is_known_by_its_mean() -> None:
    house = House().leave_after(*[0.01, 0.03] * 32)
    assert house.rate.seconds_until(100) == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize(("wait_s", "told"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.01, 2), (59.5, 60), (1e9, 60)])
def test_when_to_come_again_is_rounded_up_within_a_minute(wait_s: float, told: int) -> None:
    assert retry_after_s(wait_s) == told
