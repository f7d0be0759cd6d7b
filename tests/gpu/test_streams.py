"""Several threads of one stage, each with a stream of its own, on one copy of its weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from multigpu_inference import Branch, Branches, Pipeline

STREAMS = 4


class Network:
    """A stage of some convolutions."""

    max_batch_size = 1

    def __init__(self, device: torch.device, channels: int = 32) -> None:
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, channels, 3), nn.ReLU(), nn.Conv2d(channels, channels, 3), nn.ReLU(), nn.Conv2d(channels, 1, 3)]
        self.device = device
        self._network = nn.Sequential(*layers).to(device).eval()

    def __call__(self, items: Sequence[Tensor]) -> list[Tensor]:
        return [self._network(item) for item in items]


@pytest.fixture
def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, 32 + 8 * (i % 3), 40, generator=generator).pin_memory() for i in range(50)]


def serial(stage: Network, pictures: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        results = [stage([picture.to(stage.device)])[0] for picture in pictures]
    torch.cuda.synchronize()
    return results


@pytest.mark.usefixtures("exact")
def test_10_000_answers_under_64_threads_are_those_of_serial_calls_bit_for_bit(
    device: torch.device, pictures: list[Tensor]
) -> None:
    stage = Network(device)
    expected = serial(stage, pictures)
    pipeline = Pipeline([stage], streams=STREAMS)
    with ThreadPoolExecutor(64) as threads:
        same = threads.map(lambda i: torch.equal(pipeline(pictures[i % 50]), expected[i % 50]), range(10_000))
        assert all(same)


def test_the_batches_of_a_stage_overlap_on_the_device(device: torch.device) -> None:
    cycles = 200_000_000
    ended: list[int] = []

    class Sleeping:
        max_batch_size = 1

        def __init__(self) -> None:
            self.device = device

        def __call__(self, items: Sequence[int]) -> list[int]:
            torch.cuda._sleep(cycles)
            return list(items)

    def milliseconds(streams: int) -> float:
        pipeline = Pipeline([Sleeping()], streams=streams)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        pipeline(0)
        torch.cuda.synchronize()
        begin.record()
        threads = [threading.Thread(target=lambda: ended.append(pipeline(1))) for _ in range(STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    assert milliseconds(STREAMS) < 0.5 * milliseconds(1)


def test_its_weights_are_there_once(device: torch.device, pictures: list[Tensor]) -> None:
    stage = Network(device, channels=512)
    torch.cuda.synchronize()
    weights = torch.cuda.memory_allocated(device)
    pipeline = Pipeline([stage], streams=STREAMS)
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(pipeline, pictures))
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated(device) < 1.1 * weights + (1 << 20)


@pytest.mark.usefixtures("exact")
def test_branches_on_the_gpu_and_the_cpu_give_what_they_give_one_after_another(
    device: torch.device, pictures: list[Tensor]
) -> None:
    heavy, light = Network(device), Network(torch.device("cpu"), channels=4)
    expected = list(zip(serial(heavy, pictures), serial(light, pictures), strict=True))
    pipeline = Pipeline([Branches({"heavy": Branch(heavy), "light": Branch(light, threads=2)})])
    with ThreadPoolExecutor(16) as threads:
        for result, (on_gpu, on_cpu) in zip(threads.map(pipeline, pictures), expected, strict=True):
            assert torch.equal(result["heavy"], on_gpu)
            assert torch.equal(result["light"], on_cpu)
