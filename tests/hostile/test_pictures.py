"""Every odd, broken or malicious picture through either front end, beside good traffic; each says what is right for it."""

from __future__ import annotations

import time

import pytest

from hostile.good_traffic import GoodTraffic
from integration import test_odd_photos as odd
from integration.endpoint import Endpoint
from integration.odd.photo import OddPhoto

SHORT, LONG = 1, 200  # times each
EVERY = 3  # of which the short form takes one; all go through one front end in `tests/integration`


@pytest.mark.hostile
def test_each_is_answered_rightly_and_good_requests_meanwhile(strangers: Endpoint) -> None:
    all_are_right(strangers, odd.PHOTOS[::EVERY], SHORT)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_each_two_hundred_times(strangers: Endpoint) -> None:
    quiet_p99_s, p99_s = all_are_right(strangers, odd.PHOTOS, LONG)
    assert p99_s < 2 * quiet_p99_s


def all_are_right(matting: Endpoint, photos: list[OddPhoto], times: int) -> tuple[float, float]:
    """Send each so many times; the 99th percentiles of good requests' seconds, without them and beside them."""
    wrong = set[str]()
    with GoodTraffic(matting) as quiet:
        time.sleep(2 if times == SHORT else 20)
    with GoodTraffic(matting) as beside:
        for number, photo in enumerate(photos):
            data = photo.make()
            for turn in range(times):
                answer = odd.WAYS[(number + turn) % len(odd.WAYS)](matting, number, data)
                wrong.add(odd._judged(photo, answer))
    kind = matting.environment["MULTIGPU_FRONT_END"]
    print(f"\n{kind}: {len(photos)} pictures {times} times; good p99 {quiet.p99_s() * 1e3:.0f} ms without, ", end="")  # noqa: T201
    print(f"{beside.p99_s() * 1e3:.0f} ms beside them")  # noqa: T201
    assert wrong <= {""}
    assert (quiet.failed, beside.failed) == ([], [])
    assert matting.events("worker_died") == []
    return quiet.p99_s(), beside.p99_s()
