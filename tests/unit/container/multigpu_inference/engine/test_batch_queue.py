from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from multigpu_inference.engine.batch_queue import BatchQueue, Entry, next_batch
from support import wait_until
from unit.container.multigpu_inference.engine.waiting import waits_in

PATIENCE_S = 10.0
LONG_S = 3600.0


def entries(text: str, limit: int = 8, since: float | None = None) -> list[Entry[str]]:
    """An entry for each word, of the key that is its first letter."""
    now = time.monotonic() if since is None else since
    return [Entry(word, now, word[0], limit) for word in text.split()]


def words(batch: Sequence[Entry[str]]) -> str:
    return " ".join(entry.item for entry in batch)


def take(queue: BatchQueue[str]) -> list[Entry[str]]:
    """A batch, once there is one; nothing at the end."""
    return queue.take() if queue.wait_for_batch() else []


class Taking:
    """A thread that takes one batch."""

    def __init__(self, queue: BatchQueue[str]) -> None:
        self.taken: Future[str] = Future()
        self.thread = threading.Thread(target=lambda: self.taken.set_result(words(take(queue))), daemon=True)
        self.thread.start()

    def until_it_waits(self) -> Taking:
        wait_until(lambda: waits_in(threading.Condition.wait, self.thread), PATIENCE_S)
        return self


@pytest.mark.parametrize(
    ("waiting", "limit", "batch", "rest"),
    [
        ("a1", 8, "a1", ""),
        ("a1 a2 a3", 8, "a1 a2 a3", ""),
        ("a1 a2 a3", 2, "a1 a2", "a3"),
        ("a1 b1 a2 b2", 8, "a1 a2", "b1 b2"),
        ("b1 a1 a2 a3", 8, "b1", "a1 a2 a3"),
        ("a1 b1 a2 b2 a3", 2, "a1 a2", "b1 b2 a3"),
    ],
)
def test_a_batch_is_the_oldest_item_and_others_of_its_key(waiting: str, limit: int, batch: str, rest: str) -> None:
    taken, left = next_batch(entries(waiting), limit)
    assert (words(taken), words(left)) == (batch, rest)


def test_keys_that_cannot_be_compared_share_no_batch() -> None:
    keys: list[Hashable] = [(torch.zeros(2),), (torch.zeros(2),)]
    taken, left = next_batch([Entry(str(i), 0.0, key, 8) for i, key in enumerate(keys)], 8)
    assert (words(taken), words(left)) == ("0", "1")


def test_items_of_a_rare_key_are_not_passed_over() -> None:
    queue = BatchQueue[str]()
    queue.put(entries("a1 a2 b1 a3 a4", 2))
    taken = []
    for number in range(5, 9):
        taken.append(words(take(queue)))
        queue.put(entries(f"a{number} a{number}", 2))  # the other key never ends
    assert taken == ["a1 a2", "b1", "a3 a4", "a5 a5"]


def test_what_waits_is_taken_at_once() -> None:
    queue = BatchQueue[str]()
    queue.put(entries("a1"))
    assert words(take(queue)) == "a1"


def test_an_empty_queue_is_waited_at() -> None:
    queue = BatchQueue[str]()
    taking = Taking(queue).until_it_waits()
    queue.put(entries("a1"))
    assert taking.taken.result(PATIENCE_S) == "a1"


def test_with_a_delay_a_full_batch_goes_at_once() -> None:
    queue = BatchQueue[str](LONG_S)
    queue.put(entries("a1 a2", 2))
    assert words(take(queue)) == "a1 a2"


def test_with_a_delay_a_batch_is_waited_for() -> None:
    queue = BatchQueue[str](LONG_S)
    queue.put(entries("a1", 2))
    taking = Taking(queue).until_it_waits()
    queue.put(entries("b1", 2))
    queue.put(entries("a2", 2))
    assert taking.taken.result(PATIENCE_S) == "a1 a2"


def test_the_delay_counts_from_when_the_oldest_item_came() -> None:
    queue = BatchQueue[str](LONG_S)
    queue.put(entries("a1", since=time.monotonic() - LONG_S))
    queue.put(entries("a2"))
    assert words(take(queue)) == "a1 a2"


def test_after_the_delay_a_batch_goes_as_it_is() -> None:
    queue = BatchQueue[str](0.05)
    put = time.monotonic()
    queue.put(entries("a1", since=put))
    assert words(take(queue)) == "a1"
    assert time.monotonic() - put >= 0.05


def test_a_limit_that_was_lowered_holds_for_its_key_only() -> None:
    queue = BatchQueue[str]()
    queue.lower_limit("a", 2)
    queue.put(entries("a1 a2 a3 b1 b2 b3"))
    assert [words(take(queue)) for _ in range(3)] == ["a1 a2", "a3", "b1 b2 b3"]


def test_with_a_delay_a_batch_of_the_lowered_limit_is_full() -> None:
    queue = BatchQueue[str](LONG_S)
    queue.lower_limit("a", 1)
    queue.put(entries("a1"))
    assert words(take(queue)) == "a1"


@pytest.mark.parametrize("waiting", [entries("a1 a2 a3", 2), entries("a1 a2 b1", 2), [*entries("a1", 1), *entries("b1", 2)]])
def test_there_is_room_while_less_than_two_full_batches_wait(waiting: list[Entry[str]]) -> None:
    queue = BatchQueue[str]()
    queue.put(waiting)
    queue.wait_for_room()


@pytest.mark.parametrize("waiting", [entries("a1 a2 a3 a4", 2), entries("a1 b1", 1)])
def test_room_is_made_by_taking(waiting: list[Entry[str]]) -> None:
    queue = BatchQueue[str]()
    queue.put(waiting)
    thread = threading.Thread(target=queue.wait_for_room, daemon=True)
    thread.start()
    wait_until(lambda: waits_in(threading.Condition.wait, thread), PATIENCE_S)
    take(queue)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_closed_queue_takes_no_more() -> None:
    queue = BatchQueue[str]()
    queue.close()
    with pytest.raises(RuntimeError, match="closed"):
        queue.put(entries("a1"))


def test_a_closed_queue_gives_out_what_waits_without_delay() -> None:
    queue = BatchQueue[str](LONG_S)
    queue.put(entries("a1 b1"))
    queue.close()
    assert [words(take(queue)) for _ in range(3)] == ["a1", "b1", ""]


def test_closing_wakes_who_waits() -> None:
    queue = BatchQueue[str]()
    taking = Taking(queue).until_it_waits()
    queue.close()
    assert taking.taken.result(PATIENCE_S) == ""


@pytest.mark.parametrize(("takers", "delay_s"), [(1, 0.0), (4, 0.0), (4, 0.001)])
def test_nothing_is_lost_or_given_twice_between_many_threads(takers: int, delay_s: float) -> None:
    queue = BatchQueue[str](delay_s, takers)
    taken: list[str] = []

    def take_all() -> None:
        while queue.wait_for_batch():
            taken.extend(entry.item for entry in queue.take())

    taking = [threading.Thread(target=take_all) for _ in range(takers)]
    for thread in taking:
        thread.start()
    expected = [f"{key}{i}" for key in "abcdefgh" for i in range(100)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda word: queue.put(entries(word, 3)), expected))
    queue.close()
    for thread in taking:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert sorted(taken) == sorted(expected)


def test_a_taker_that_comes_second_finds_nothing_and_does_not_wait() -> None:
    queue = BatchQueue[str](takers=2)
    queue.put(entries("a1"))
    assert words(queue.take()) == "a1"
    assert queue.take() == []


def test_what_another_taker_has_left_is_not_taken_before_its_time() -> None:
    queue = BatchQueue[str](LONG_S, takers=2)
    queue.put(entries("a1 a2 a3", 2))
    assert words(queue.take()) == "a1 a2"
    assert queue.take() == []


def test_each_item_wakes_one_taker() -> None:
    queue = BatchQueue[str](takers=3)
    takings = [Taking(queue).until_it_waits() for _ in range(3)]
    for word in ("a1", "b1", "c1"):
        queue.put(entries(word))
    assert sorted(taking.taken.result(PATIENCE_S) for taking in takings) == ["a1", "b1", "c1"]


def test_a_full_batch_that_is_left_behind_another_wakes_a_taker() -> None:
    queue = BatchQueue[str](LONG_S, takers=2)
    takings = [Taking(queue).until_it_waits() for _ in range(2)]
    queue.put(entries("c1", 2))
    queue.put(entries("a1 a2", 2))  # full, but not the oldest
    for taking in takings:
        taking.until_it_waits()
    queue.put(entries("c2", 2))
    assert sorted(taking.taken.result(PATIENCE_S) for taking in takings) == ["a1 a2", "c1 c2"]


def test_with_more_takers_a_batch_more_may_wait_for_each() -> None:
    queue = BatchQueue[str](takers=4)
    queue.put(entries("a1 a2 a3 a4", 1))
    queue.wait_for_room()


def test_a_ceiling_is_only_ever_lowered() -> None:
    queue = BatchQueue[str]()
    queue.lower_limit("a", 2)
    queue.lower_limit("a", 4)  # of a larger batch, which another thread had under way
    queue.put(entries("a1 a2 a3 a4"))
    assert words(queue.take()) == "a1 a2"
