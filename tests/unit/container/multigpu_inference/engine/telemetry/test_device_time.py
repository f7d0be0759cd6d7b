from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterable

import pytest

from multigpu_inference.engine.telemetry.device_time import _MOST_PENDING, DeviceTime
from multigpu_inference.engine.telemetry.finished_request import HopSpan
from multigpu_inference.engine.telemetry.idle_causes import Timeline

HOP = "predict_ms"


def of(seconds: dict[str, float]) -> dict[str, float]:
    """Without what is nothing."""
    return {state: value for state, value in seconds.items() if value}


def work(device: DeviceTime, began: float, ended: float, arrived: float, *spans: HopSpan, replica: str = "0") -> bool:
    ready = max([arrived, *(end for _, _, end, _ in spans)])
    return device.worked(began, ended, replica, HOP, Timeline(ready, arrived, (*spans, (HOP, began, ended, 1))))


def test_nothing_is_known_before_it_is_settled() -> None:
    device = DeviceTime(0.0)
    work(device, 1.0, 2.0, 0.5)
    assert of(device.seconds) == {}


def test_a_device_without_requests_has_no_traffic() -> None:
    device = DeviceTime(10.0)
    device.settle(12.5)
    assert of(device.seconds) == {"no_traffic": 2.5}


def test_work_and_the_gap_before_it() -> None:
    device = DeviceTime(0.0)
    work(device, 5.0, 7.0, 1.0, ("preprocess_ms", 1.0, 4.0, 1))
    device.settle(8.0)
    assert of(device.seconds) == pytest.approx({"no_traffic": 2.0, "decode": 3.0, "batch_wait": 1.0, "busy": 2.0})


def test_requests_of_one_batch_are_one_piece_of_work() -> None:
    device = DeviceTime(0.0)
    assert [work(device, 1.0, 3.0, arrived) for arrived in (0.2, 0.4, 0.6)] == [True, False, False]
    device.settle(3.0)
    assert device.seconds["busy"] == 2.0


def test_a_batch_is_charged_to_the_request_that_could_have_begun_first() -> None:
    device = DeviceTime(0.0)
    work(device, 5.0, 6.0, 0.0, ("preprocess_ms", 0.0, 4.0, 1))
    work(device, 5.0, 6.0, 0.0, ("preprocess_ms", 0.0, 2.0, 1))
    work(device, 5.0, 6.0, 0.0, ("preprocess_ms", 0.0, 5.0, 1))
    device.settle(6.0)
    assert of(device.seconds) == pytest.approx({"decode": 2.0, "batch_wait": 3.0, "busy": 1.0})


def test_two_replicas_that_overlap_on_a_device_keep_it_busy_once() -> None:
    device = DeviceTime(0.0)
    work(device, 0.0, 3.0, 0.0, replica="0")
    work(device, 2.0, 5.0, 0.0, replica="1")
    work(device, 2.5, 2.6, 0.0, replica="1")
    device.settle(5.0)
    assert of(device.seconds) == pytest.approx({"busy": 5.0})


def test_what_lies_beyond_the_horizon_is_left_for_later() -> None:
    device = DeviceTime(0.0)
    work(device, 0.0, 4.0, 0.0)
    work(device, 6.0, 7.0, 5.0)
    device.settle(3.0)
    assert of(device.seconds) == {"busy": 3.0}
    device.settle(7.0)
    assert of(device.seconds) == pytest.approx({"busy": 5.0, "no_traffic": 1.0, "batch_wait": 1.0})


def test_a_horizon_that_goes_back_changes_nothing() -> None:
    device = DeviceTime(0.0)
    device.settle(5.0)
    device.settle(4.0)
    assert (device.settled, of(device.seconds)) == (5.0, {"no_traffic": 5.0})


def test_a_replaced_replica_takes_the_blame_while_it_is_away() -> None:
    device = DeviceTime(0.0)
    device.replacing(2.0, is_so=True)
    device.settle(4.0)
    device.replacing(5.0, is_so=True)
    device.replacing(6.0, is_so=False)
    device.settle(8.0)
    assert of(device.seconds) == pytest.approx({"no_traffic": 4.0, "replacing": 4.0})


def test_work_during_an_outage_is_work() -> None:
    device = DeviceTime(0.0)
    device.replacing(0.0, is_so=True)
    work(device, 1.0, 2.0, 0.5)
    device.settle(3.0)
    assert of(device.seconds) == pytest.approx({"replacing": 2.0, "busy": 1.0})


def test_recent_is_what_has_come_since_the_oldest_mark() -> None:
    device = DeviceTime(0.0)
    for second in range(1, 100):
        device.settle(second)
        device.mark()
    assert of(device.recent()) == pytest.approx({"no_traffic": 60.0})


def test_a_horizon_that_stands_still_costs_no_more_memory_than_a_limit() -> None:
    device = DeviceTime(0.0)
    for i in range(20 * _MOST_PENDING):
        work(device, i + 0.25, i + 0.75, i)
    assert len(device._pending) <= _MOST_PENDING
    device.settle(20 * _MOST_PENDING)
    assert device.seconds["busy"] == pytest.approx(10 * _MOST_PENDING)
    assert sum(device.seconds.values()) == pytest.approx(20 * _MOST_PENDING)


def test_the_limit_holds_where_all_batches_begin_together() -> None:
    device = DeviceTime(0.0)
    for i in range(3 * _MOST_PENDING):
        work(device, 1.0, 2.0 + i / 1000, 0.0)
    assert len(device._pending) <= _MOST_PENDING + 1


def test_what_becomes_known_too_late_is_left_out() -> None:
    device = DeviceTime(0.0)
    device.settle(10.0)
    work(device, 8.0, 12.0, 7.0)
    device.settle(12.0)
    assert of(device.seconds) == {"no_traffic": 10.0, "busy": 2.0}


# Any timelines at all

Batch = tuple[float, float, str, str]


class Scene:
    """Requests over three devices, some of which share batches, some of which overlap; with their answers out of order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.requests: list[tuple[float, float, list[tuple[str, Batch]], tuple[HopSpan, ...]]] = []
        batches: list[Batch] = []
        for _ in range(self.random.randint(1, 60)):
            now = arrived = self.random.uniform(0, 40)
            spans: list[HopSpan] = []
            work: list[tuple[str, Batch]] = []
            for hop in ("fetch_ms", "preprocess_ms", "copy_ms", "stage_1_ms", "stage_2_ms", "postprocess_ms"):
                if self.random.random() < 0.2:
                    continue
                began = now + self.random.choice([0.0, self.random.uniform(0, 1)])
                ended = began + self.random.uniform(0.01, 2)
                if hop.startswith("stage"):
                    replica = self.random.choice("01")
                    later = [b for b in batches if b[0] >= now and b[3] == hop]
                    if later and self.random.random() < 0.5:  # one batch with another
                        began, ended, replica, _ = self.random.choice(later)
                    batches.append((began, ended, replica, hop))
                    work.append((f"device-{(int(replica) + int(hop[6])) % 3}", batches[-1]))
                spans.append((hop, began, ended, 1))
                now = ended
            self.requests.append((arrived, now + self.random.uniform(0, 1), work, tuple(spans)))
        self.end = max(answered for _, answered, _, _ in self.requests)

    def report(self, devices: dict[str, DeviceTime], request: int) -> None:
        arrived, _, work, spans = self.requests[request]
        for device, (began, ended, replica, hop) in work:
            ready = max([arrived, *(end for _, _, end, _ in spans if end <= began)])
            devices[device].worked(began, ended, replica, hop, Timeline(ready, arrived, spans))

    def at_the_end(self) -> dict[str, dict[str, float]]:
        """All reports in any order, then settled at once."""
        devices = self.devices()
        for request in self.random.sample(range(len(self.requests)), len(self.requests)):
            self.report(devices, request)
        return self.settled(devices, self.end)

    def as_it_goes(self) -> dict[str, dict[str, float]]:
        """Each report when its answer is there, settled now and then up to the oldest request without one."""
        devices = self.devices()
        waiting = sorted(range(len(self.requests)), key=lambda r: self.requests[r][1])
        now = 0.0
        while waiting:
            now += self.random.uniform(0, 3)
            while waiting and self.requests[waiting[0]][1] <= now:
                self.report(devices, waiting.pop(0))
            in_flight = [self.requests[r][0] for r in waiting if self.requests[r][0] <= now]
            self.settled(devices, min([now, *in_flight, self.end]))
        return self.settled(devices, self.end)

    def devices(self) -> dict[str, DeviceTime]:
        devices = {f"device-{i}": DeviceTime(0.0) for i in range(3)}
        for device in devices.values():
            device.decode_share = 0.7
        return devices

    def settled(self, devices: dict[str, DeviceTime], until: float) -> dict[str, dict[str, float]]:
        for device in devices.values():
            device.settle(until)
        return {name: device.seconds for name, device in devices.items()}

    def busy(self) -> dict[str, float]:
        """By counting millisecond by millisecond what `DeviceTime` adds up."""
        by_device: dict[str, list[Batch]] = defaultdict(list)
        for _, _, work, _ in self.requests:
            for device, batch in work:
                by_device[device].append(batch)
        return {device: union((b[0], b[1]) for b in batches) for device, batches in by_device.items()}


def union(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of what intervals cover: the plain way, by all their ends."""
    intervals = list(intervals)
    ends = sorted({end for interval in intervals for end in interval})
    pieces = itertools.pairwise(ends)
    return sum(high - low for low, high in pieces if any(began <= low and high <= ended for began, ended in intervals))


@pytest.mark.parametrize("seed", range(60))
def test_all_time_is_charged_once_and_nothing_is_negative(seed: int) -> None:
    scene = Scene(seed)
    for seconds in scene.at_the_end().values():
        assert sum(seconds.values()) == pytest.approx(scene.end, abs=1e-6)
        assert min(seconds.values()) >= 0.0


@pytest.mark.parametrize("seed", range(60))
def test_busy_is_what_the_batches_cover(seed: int) -> None:
    scene = Scene(seed)
    settled = scene.at_the_end()
    for device, busy in scene.busy().items():
        assert settled[device]["busy"] == pytest.approx(busy, abs=1e-6)


@pytest.mark.parametrize("seed", range(60))
def test_neither_order_nor_moment_of_the_reports_matters(seed: int) -> None:
    scene = Scene(seed)
    first = scene.at_the_end()
    for other in (scene.at_the_end(), scene.as_it_goes(), scene.as_it_goes()):
        for device, seconds in first.items():
            assert other[device] == pytest.approx(seconds, abs=1e-6)


def test_scenes_are_worth_looking_at() -> None:
    """They have work that overlaps, and every cause that requests can be charged with."""
    total: dict[str, float] = defaultdict(float)
    for seed in range(60):
        for seconds in Scene(seed).at_the_end().values():
            for state, value in seconds.items():
                total[state] += value
    assert {state for state, value in total.items() if value > 1.0} == {
        "busy", "no_traffic", "fetch", "decode", "encode", "copy", "batch_wait", "other_stage",
    }  # fmt: skip
    assert math.isfinite(sum(total.values()))
