"""A batch that does not fit is halved, and the ceiling remembered."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from multigpu_inference import Pipeline

ITEM_BYTES = 256 << 20
ROOM = 3  # items


@pytest.fixture
def little_memory(device: torch.device) -> Iterator[None]:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    room = torch.cuda.memory_reserved(device) + (ROOM * 2 + 1) * ITEM_BYTES // 2
    torch.cuda.set_per_process_memory_fraction(room / total, device)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, device)


class Hungry:
    max_batch_size = 8

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.attempts: list[int] = []

    def batch_key(self, item: int) -> Hashable:
        return "all"

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.attempts.append(len(items))
        torch.empty(len(items) * ITEM_BYTES, dtype=torch.uint8, device=self.device).zero_()
        return [item + 1 for item in items]


@pytest.mark.usefixtures("little_memory")
def test_a_batch_that_does_not_fit_is_halved_and_not_tried_again(device: torch.device) -> None:
    stage = Hungry(device)
    pipeline = Pipeline([stage], max_batch_delay_ms=300)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(pipeline, range(8))) == list(range(1, 9))
        first = list(stage.attempts)
        assert max(first) > ROOM
        stage.attempts.clear()
        assert list(threads.map(pipeline, range(8))) == list(range(1, 9))
    assert max(stage.attempts) <= max(ROOM, max(first) // 2 + 1)
    assert max(stage.attempts) < max(first)
