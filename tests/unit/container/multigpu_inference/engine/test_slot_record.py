from __future__ import annotations

from multigpu_inference.engine.slot_record import GIVE_UP_AFTER, GIVE_UP_AFTER_S, LONGEST_PAUSE_S, STABLE_AFTER_S, SlotRecord


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lose(record: SlotRecord, times: int) -> None:
    for _ in range(times):
        record.ended(1.0, from_outside=False, lost_device=True)


def crash(record: SlotRecord, lived_s: float = 1.0) -> None:
    record.ended(lived_s, from_outside=False, lost_device=False)


def test_five_failures_in_a_row_and_it_is_given_up() -> None:
    record = SlotRecord()
    lose(record, GIVE_UP_AFTER - 2)
    record.failed_to_start()
    assert not record.given_up
    record.failed_to_start()
    assert (record.given_up, record.failures) == (True, GIVE_UP_AFTER)


def test_an_answer_in_between_begins_the_count_anew() -> None:
    clock = Clock()
    record = SlotRecord(clock)
    for _ in range(10):
        lose(record, GIVE_UP_AFTER - 1)
        record.answered()
        clock.now += 1000
    assert not record.given_up


def test_one_that_has_answered_within_a_minute_is_not_given_up_whatever_comes() -> None:
    clock = Clock()
    record = SlotRecord(clock)
    record.answered()
    lose(record, 10 * GIVE_UP_AFTER)
    clock.now += GIVE_UP_AFTER_S
    record.ended(1.0, from_outside=True, lost_device=False)
    assert not record.given_up  # nothing has failed since
    record.failed_to_start()
    assert record.given_up


def test_ends_from_outside_and_crashes_give_nothing_up() -> None:
    record = SlotRecord()
    for _ in range(100):
        record.ended(0.0, from_outside=True, lost_device=False)
    assert record.pause_s == 0
    for _ in range(100):
        crash(record)
    assert not record.given_up


def test_the_first_new_start_is_at_once_and_later_ones_come_after_ever_longer_pauses() -> None:
    record = SlotRecord()
    pauses = []
    for _ in range(8):
        crash(record)
        pauses.append(record.pause_s)
    assert pauses == [0, 1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_a_request_found_to_end_workers_by_itself_makes_nobody_wait_and_saves_no_device() -> None:
    record = SlotRecord()
    for _ in range(GIVE_UP_AFTER):
        lose(record, 1)
        record.excuse()
        assert record.pause_s == 0
    assert record.given_up


def test_one_that_has_answered_is_followed_at_once() -> None:
    record = SlotRecord()
    for _ in range(8):
        crash(record)
        crash(record)
        assert record.pause_s == 1
        record.answered()
        assert record.pause_s == 0


def test_one_that_has_lived_for_long_is_followed_at_once() -> None:
    record = SlotRecord()
    for _ in range(5):
        crash(record)
    crash(record, STABLE_AFTER_S + 1)
    assert record.pause_s == 0
