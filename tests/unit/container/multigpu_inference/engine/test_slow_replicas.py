"""Simulated replicas with a clock of their own: who is taken out, who is not, and how it comes back."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterable, Sequence

import pytest

from multigpu_inference.engine.slow_replicas import Finding, SlowReplicas, Verdict


class Traffic:
    """Requests in turn over replicas of given speeds, one after another: the time of each is a request's size by its factor."""

    def __init__(self, factors: Sequence[float], at_least: int = 1, slack_s: float = 0.0) -> None:
        self.factors = list(factors)
        self.now = 0.0
        self.slow = SlowReplicas(len(self.factors), at_least, slack_s, lambda: self.now, random.Random(0).randrange)
        self.verdicts: list[Verdict] = []

    def turn(self, size_s: float, waiting: int = 0) -> None:
        """One request to each replica that takes any; in those that are not probed, behind so many others."""
        for slot, factor in enumerate(self.factors):
            limit = self.slow.limit(slot)
            if limit > 0:
                queued = 1 + min(waiting, limit - 1)
                verdict = self.slow.answered(slot, size_s * factor * queued, probe=self.slow.is_probed(slot))
                self.verdicts += [verdict] if verdict is not None else []
        self.now += 0.01

    def run(self, turns: int, size: Callable[[], float] = lambda: 0.1, waiting: int = 0) -> list[tuple[int, Finding]]:
        for _ in range(turns):
            self.turn(size(), waiting)
        return self.found

    @property
    def found(self) -> list[tuple[int, Finding]]:
        return [(verdict.slot, verdict.finding) for verdict in self.verdicts]


def test_one_that_is_much_slower_is_taken_out_and_gets_nothing() -> None:
    traffic = Traffic([1, 1, 5, 1])
    assert traffic.run(40) == [(2, Finding.TAKEN_OUT)]
    assert [traffic.slow.limit(slot) for slot in range(4)] == [sys.maxsize, sys.maxsize, 0, sys.maxsize]
    assert traffic.slow.is_out(2)
    (verdict,) = traffic.verdicts
    assert [verdict.median_s, verdict.peers_median_s] == pytest.approx([0.5, 0.1])
    assert verdict.rest_s == 10


@pytest.mark.parametrize("factors", [[1, 1, 1, 1], [1, 2.5, 1, 1], [1, 5], [5]])
def test_who_is_as_the_others_or_a_little_slower_stays(factors: list[float]) -> None:
    found = Traffic(factors).run(200)
    assert found == ([(1, Finding.TAKEN_OUT)] if factors == [1, 5] else [])


def test_requests_of_all_sizes_make_nobody_slow() -> None:
    chance = random.Random(1)
    assert Traffic([1, 1, 1, 1]).run(5000, lambda: chance.choice([0.01, 0.05, 0.2, 5.0])) == []


def test_each_request_of_another_size_makes_nobody_slow() -> None:
    chance = random.Random(2)
    traffic = Traffic([1] * 4)
    for _ in range(3000):
        traffic.factors = [chance.choice([0.1, 1, 1, 10]) for _ in range(4)]
        traffic.turn(0.1)
    assert traffic.found == []


class InTurn:
    """Requests one after another over replicas that are all as quick, each to the next in turn that takes any."""

    def __init__(self, count: int, at_least: int = 1) -> None:
        self.count = count
        self.now = 0.0
        self.slow = SlowReplicas(count, at_least, 0.0, lambda: self.now, random.Random(0).randrange)

    def run(self, sizes_s: Iterable[float]) -> list[Finding]:
        found, turn = [], 0
        for size_s in sizes_s:
            slot = next(slot % self.count for slot in itertools.count(turn) if self.slow.limit(slot % self.count) > 0)
            turn, probe = slot + 1, self.slow.is_probed(slot)
            self.now += size_s / self.count
            verdict = self.slow.answered(slot, size_s, probe=probe)
            found += [verdict.finding] if verdict is not None else []
        return found


@pytest.mark.parametrize("count", [2, 4, 8])
def test_small_and_large_requests_that_alternate_and_so_meet_each_replica_with_always_the_same_make_nobody_slow(
    count: int,
) -> None:
    assert InTurn(count).run([0.05, 1.0] * 2000) == []


@pytest.mark.parametrize("large", [0.1, 0.3, 0.4, 0.5, 0.6])
@pytest.mark.parametrize("count", [2, 4])
def test_small_and_large_requests_by_chance_make_nobody_slow(count: int, large: float) -> None:
    chance = random.Random(3)
    assert InTurn(count).run(1.0 if chance.random() < large else 0.05 for _ in range(10_000)) == []


def test_requests_of_all_sizes_by_chance_make_nobody_slow() -> None:
    chance = random.Random(4)
    assert InTurn(4).run(chance.lognormvariate(-2, 2) for _ in range(20_000)) == []


def test_one_that_is_slow_is_found_whatever_the_sizes() -> None:
    chance = random.Random(5)
    traffic = Traffic([1, 1, 8, 1])
    for _ in range(200):
        traffic.turn(chance.choice([0.1, 0.2, 0.2, 0.4]))
    assert traffic.found[0] == (2, Finding.TAKEN_OUT)


def test_a_few_milliseconds_are_nobodys_loss() -> None:
    assert Traffic([1, 1, 10, 1]).run(200, lambda: 0.001) == []


def test_one_whose_queue_is_what_is_slow_goes_on() -> None:
    traffic = Traffic([1, 1.3, 1, 1])
    for _ in range(400):
        for slot in range(4):
            limit = traffic.slow.limit(slot)
            waits = 8 if slot == 1 and limit > 1 else 1  # it is just too slow for the load, so that it is always full
            traffic.slow.answered(slot, 0.1 * traffic.factors[slot] * waits, probe=traffic.slow.is_probed(slot))
        traffic.now += 1
        assert not traffic.slow.is_out(1)
    assert not traffic.found


def test_a_replica_that_is_checked_has_one_request_at_a_time() -> None:
    traffic = Traffic([1, 1, 5])
    limits = set()
    while not traffic.found:
        traffic.turn(0.1)
        limits.add(traffic.slow.limit(2))
    assert limits == {sys.maxsize, 1, 0}


def test_one_that_is_well_again_comes_back_after_its_rest() -> None:
    traffic = Traffic([1, 1, 5, 1])
    traffic.run(40)
    traffic.factors[2] = 1.4
    assert traffic.run(20)[1:] == []
    traffic.now += 10
    traffic.run(20)
    assert traffic.found[1:] == [(2, Finding.BACK)]
    assert traffic.slow.limit(2) == sys.maxsize


def test_one_that_stays_slow_rests_ever_longer_and_gets_a_new_process() -> None:
    traffic = Traffic([1, 1, 5, 1])
    traffic.run(40)
    for _ in range(3):
        traffic.now += traffic.verdicts[-1].rest_s or 0
        traffic.run(25)
    assert [finding for _, finding in traffic.found] == [
        Finding.TAKEN_OUT, Finding.STILL_SLOW, Finding.STILL_SLOW, Finding.REPLACE,
    ]  # fmt: skip
    assert [verdict.rest_s for verdict in traffic.verdicts] == [10, 20, 40, 80]
    traffic.slow.replaced(2)
    assert traffic.slow.limit(2) == sys.maxsize
    traffic.run(60)  # no better
    assert traffic.verdicts[-1].rest_s == 160


def test_it_never_rests_longer_than_five_minutes() -> None:
    traffic = Traffic([1, 1, 5, 1])
    while len(traffic.verdicts) < 12:
        traffic.run(10)
        traffic.now += 300
    assert max(verdict.rest_s or 0 for verdict in traffic.verdicts) == 300


def test_of_four_never_more_than_two_are_taken_out() -> None:
    traffic = Traffic([1, 1, 5, 5])
    traffic.run(200)
    traffic.factors = [1, 30, 5, 5]
    traffic.run(200)
    assert sorted(slot for slot, _ in traffic.found) == [2, 3]


def test_no_more_than_the_minimum_allows() -> None:
    assert Traffic([1, 1, 1, 5], at_least=4).run(200) == []


def test_when_the_others_die_it_comes_back_at_once() -> None:
    traffic = Traffic([1, 5])
    traffic.run(60)
    assert traffic.slow.limit(1) == 0
    traffic.slow.lives([1])
    assert traffic.slow.limit(1) == sys.maxsize
    traffic.slow.lives([0, 1])
    assert len(traffic.run(60)) == 1  # and is left in peace for a while


def test_what_a_batch_waits_for_is_allowed_for() -> None:
    assert Traffic([1, 1, 5], slack_s=0.5).run(100) == []


def test_it_costs_little() -> None:
    """No more than a tenth of a millisecond a task, over eight replicas, on a slow machine."""
    import time

    traffic = Traffic([1] * 8)
    traffic.run(20)
    started = time.process_time()
    traffic.run(500)
    assert (time.process_time() - started) / 4000 < 1e-4
