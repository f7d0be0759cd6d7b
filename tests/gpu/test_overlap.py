"""Two stages of one device at work at the same time, each on its own stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from multigpu_inference import Pipeline

KERNEL_S = 0.02
REQUESTS = 8


class Sleeping:
    """A kernel that only passes time: it fills no part of the device that another one could need."""

    max_batch_size = 1

    def __init__(self, device: torch.device, cycles: int) -> None:
        self.device = device
        self._cycles = cycles

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        torch.cuda._sleep(self._cycles)
        return list(items)


def cycles_of(seconds: float) -> int:
    """Of `torch.cuda._sleep`, on the current device."""
    trial = 10_000_000
    torch.cuda._sleep(trial)
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    torch.cuda._sleep(trial)
    end.record()
    torch.cuda.synchronize()
    return int(trial * seconds * 1e3 / begin.elapsed_time(end))


def seconds_of(work: Callable[[], None]) -> float:
    work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def test_overlapped_stages_take_less_than_three_quarters_of_the_time(device: torch.device) -> None:
    cycles = cycles_of(KERNEL_S)
    stages = [Sleeping(device, cycles), Sleeping(device, cycles)]
    pipeline = Pipeline(stages)

    def serial() -> None:
        for item in range(REQUESTS):
            stages[1](stages[0]([item]))
            torch.cuda.synchronize()

    def overlapped() -> None:
        threads = [threading.Thread(target=pipeline, args=(item,)) for item in range(REQUESTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert seconds_of(overlapped) < 0.75 * seconds_of(serial)


def test_a_stage_issues_its_work_and_does_not_wait(device: torch.device) -> None:
    stage = Sleeping(device, cycles_of(0.2))
    torch.cuda.synchronize()
    began = time.perf_counter()
    stage([1])
    assert time.perf_counter() - began < 0.1
    torch.cuda.synchronize()
