"""Arenas as pinned memory, with the real runtime."""

from __future__ import annotations

import gc

import pytest
import torch

from multigpu_inference.arena import KEPT_BYTES, Arena, Views, end_of
from multigpu_inference.engine import codec
from multigpu_inference.engine.pinned import PinnedArenas, clear_last_error


@pytest.fixture
def pinning() -> PinnedArenas:
    torch.cuda.init()
    return PinnedArenas(torch.cuda.cudart(), clear_last_error)


def test_what_another_process_wrote_is_read_from_pinned_memory(pinning: PinnedArenas) -> None:
    arena = Arena.create()
    pinning.pin(arena)
    made = torch.randint(0, 256, (1024, 768, 3), dtype=torch.uint8)
    tensor = codec.decode(Views(arena, arena.write(codec.encode(made), 0)).blobs)
    assert tensor.is_pinned()
    assert torch.equal(tensor.to("cuda", non_blocking=True).cpu(), made)


@pytest.mark.parametrize("megabytes", [15, 18, 40, 70])
def test_a_tensor_of_any_size_reaches_the_device(pinning: PinnedArenas, megabytes: int) -> None:
    """CUDA refuses to copy from memory that is pinned in part: nothing may lie across the end of what is."""
    arena = Arena.create()
    pinning.pin(arena)
    made = torch.randint(0, 256, (megabytes << 20,), dtype=torch.uint8)
    first = arena.write([bytes(200_000)], 0)
    tensor = codec.decode(Views(arena, arena.write(codec.encode(made), end_of(first))).blobs)
    assert torch.equal(tensor.to("cuda", non_blocking=True).cpu(), made)


def test_an_arena_that_cannot_be_pinned_costs_no_launch(pinning: PinnedArenas) -> None:
    arena = Arena.create()
    pinning.pin(arena)
    pinning.pin(arena)  # it is pinned already: an error, which stays behind in this thread unless it is taken back
    assert pinning.bytes == KEPT_BYTES
    assert torch.ones(1000, device="cuda").sum().item() == 1000


def test_an_arena_that_has_gone_is_pinned_no_more(pinning: PinnedArenas) -> None:
    for _ in range(3):
        arena = Arena.create()
        pinning.pin(arena)
        del arena
        gc.collect()
        assert pinning.bytes == 0
