from __future__ import annotations

import asyncio

from multigpu_inference.engine.minimum import Minimum, recovery_limit_s


def lost_after(*lives: tuple[int, float]) -> bool:
    """Whether a minimum of two is missed for too long, where so many live, each count given with its limit."""

    async def run() -> bool:
        lost = asyncio.Event()
        minimum = Minimum(2, lost.set)
        for count, limit_s in lives:
            minimum.lives(count, limit_s)
        await asyncio.sleep(0.02)
        minimum.stop()
        return lost.is_set()

    return asyncio.run(run())


def test_a_replacement_has_three_times_the_longest_load_and_ten_seconds() -> None:
    assert recovery_limit_s(0.0) == 10
    assert recovery_limit_s(100.0) == 310


def test_fewer_for_too_long_is_a_loss() -> None:
    assert lost_after((2, 0.0), (1, 0.001))


def test_fewer_for_a_while_is_none() -> None:
    assert not lost_after((1, 60.0))
    assert not lost_after((1, 0.001), (2, 0.001))


def test_the_time_counts_from_when_there_were_too_few() -> None:
    assert lost_after((1, 0.001), (0, 60.0))
