from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import pytest
import torch

from multigpu_inference.planner.stage_clock import batch_sizes, time_stage
from unit.container.multigpu_inference.engine.simulated_cuda import SimulatedCuda, SimulatedTensor


class Silent:
    """Takes what a profiler would tell."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def begin(self, text: str) -> None:
        self.texts.append(text)

    def tick(self) -> None:
        pass


class Sleeper:
    device = "cpu:0"

    def __init__(self, base_ms: float, item_ms: float, limit: int, fits: int = 1000) -> None:
        self.base_ms, self.item_ms, self.max_batch_size, self.fits = base_ms, item_ms, limit, fits
        self.sizes: list[int] = []

    def __call__(self, items: Sequence[str]) -> list[str]:
        self.sizes.append(len(items))
        if len(items) > self.fits:
            raise MemoryError
        time.sleep((self.base_ms + self.item_ms * len(items)) / 1e3)
        return list(items)


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (6, [1, 2, 4, 6])])
def test_sizes_are_powers_of_two_and_the_limit(limit: int, sizes: list[int]) -> None:
    assert batch_sizes(limit) == sizes


def test_a_stage_is_timed_batch_by_batch_up_to_its_limit() -> None:
    said = Silent()
    costs = time_stage(Sleeper(10, 1, 4), 2, ["a"], said)  # type: ignore[arg-type]
    assert list(costs) == [1, 2, 4]
    assert [costs[size].cost.wall_ms for size in costs] == pytest.approx([11, 12, 14], abs=3)
    assert said.texts == ["stage 2, batch 1", "stage 2, batch 2", "stage 2, batch 4"]


def test_it_ends_where_a_batch_does_not_fit() -> None:
    assert list(time_stage(Sleeper(10, 1, 16, fits=4), 1, ["a"], Silent())) == [1, 2, 4]  # type: ignore[arg-type]


def test_a_stage_that_cannot_take_a_single_item_is_an_error() -> None:
    with pytest.raises(MemoryError):
        time_stage(Sleeper(1, 1, 4, fits=0), 1, ["a"], Silent())  # type: ignore[arg-type]


def test_it_ends_where_larger_batches_are_of_no_use() -> None:
    stage = Sleeper(0, 5, 64)
    assert max(time_stage(stage, 1, ["a"], Silent())) < 64  # type: ignore[arg-type]  # 4, but for other work on these cores


def test_the_stages_own_limit_for_its_items_is_kept() -> None:
    class Limited(Sleeper):
        def batch_limit(self, key: object) -> int:
            return 2

    assert list(time_stage(Limited(10, 1, 16), 1, ["a"], Silent())) == [1, 2]  # type: ignore[arg-type]


def test_its_room_is_held_while_it_works() -> None:
    class Locked(Sleeper):
        held = False

        @contextlib.contextmanager
        def room(self) -> Iterator[None]:
            self.held = True
            yield
            self.held = False

        def __call__(self, items: Sequence[str]) -> list[str]:
            assert self.held
            return super().__call__(items)

    assert list(time_stage(Locked(1, 1, 1), 1, ["a"], Silent())) == [1]  # type: ignore[arg-type]


def test_on_a_gpu_the_device_is_timed_by_its_own_clock_and_its_memory_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimulatedCuda(monkeypatch)
    peaks = iter([7000, 9000])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: next(peaks))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    streams = list[object]()

    class OnGpu:
        device = "cuda:0"
        max_batch_size = 2

        def __call__(self, items: Sequence[SimulatedTensor]) -> list[SimulatedTensor]:
            stream = cuda.current_stream(self.device)
            for item in items:
                item.read(stream)
            streams.append(stream)
            return list(items)

    made = cuda.current_stream("cuda:0").issue("an item")
    costs = time_stage(OnGpu(), 1, [cuda.tensor("item", "cuda:0", made)], Silent())  # type: ignore[arg-type]
    assert [(size, batch.cost.wall_ms, batch.peak_bytes) for size, batch in costs.items()] == [
        (1, 250.0, 2000),
        (2, 250.0, 4000),
    ]
    assert cuda.current_stream("cuda:0") not in streams
