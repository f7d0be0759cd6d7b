from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from matting.room import Room
from multigpu_inference.errors import PayloadTooLarge, ServingError, Unavailable


def fits(room: Room, count: int) -> bool:
    try:
        room.take(count)
    except ServingError:
        return False
    return True


def test_what_does_not_fit_takes_nothing() -> None:
    room = Room(10, PayloadTooLarge)
    assert [fits(room, count) for count in (6, 5, 3, 2, 1, 1)] == [True, False, True, False, True, False]


def test_what_is_given_back_is_free_again() -> None:
    room = Room(10, PayloadTooLarge)
    room.take(10)
    room.give_back(4)
    assert [fits(room, count) for count in (5, 4)] == [False, True]


def test_a_room_within_another_takes_from_both() -> None:
    whole = Room(10, Unavailable)
    with Room(8, PayloadTooLarge, whole) as first, Room(8, PayloadTooLarge, whole) as second:
        first.take(6)
        with pytest.raises(Unavailable):
            second.take(5)
        second.take(4)  # of what failed, nothing is taken
        with pytest.raises(PayloadTooLarge):
            first.take(3)
    assert [fits(whole, count) for count in (10, 1)] == [True, False]


def test_what_is_reserved_is_kept_only_where_all_goes_well() -> None:
    whole = Room(10, Unavailable)
    room = Room(10, PayloadTooLarge, whole)
    with room.reserving() as reserve:
        reserve(1)
        reserve(2)

    def too_much() -> None:
        with room.reserving() as reserve:
            reserve(7)
            reserve(1)

    with pytest.raises(PayloadTooLarge):
        too_much()
    assert [fits(whole, count) for count in (8, 7)] == [False, True]


def test_threads_take_no_more_than_there_is() -> None:
    room = Room(1000, PayloadTooLarge)
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(lambda _: fits(room, 1), range(3000))) == 1000
