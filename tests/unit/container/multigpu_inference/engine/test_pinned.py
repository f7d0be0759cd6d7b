from __future__ import annotations

import gc

import pytest

from multigpu_inference.arena import KEPT_BYTES, Arena
from multigpu_inference.engine import pinned
from multigpu_inference.engine.pinned import PinnedArenas
from multigpu_inference.ipc import Slice


class Runtime:
    """Stands for the CUDA runtime: keeps what is registered."""

    def __init__(self, error: int = 0) -> None:
        self.registered: dict[int, int] = {}
        self._error = error
        self.calls = 0
        self.cleared = 0

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        self.calls += 1
        if not self._error:
            self.registered[address] = size
        return self._error

    def clear_error(self) -> None:
        self.cleared += 1

    def cudaHostUnregister(self, address: int) -> int:
        del self.registered[address]
        return 0


def test_an_arena_is_pinned_from_its_beginning_and_for_as_long_as_it_is_there() -> None:
    runtime = Runtime()
    arenas = PinnedArenas(runtime, runtime.clear_error)
    arena = Arena.create()
    arenas.pin(arena)
    assert list(runtime.registered.values()) == [KEPT_BYTES]
    assert arenas.bytes == KEPT_BYTES
    del arena
    gc.collect()
    assert runtime.registered == {}
    assert arenas.bytes == 0


def test_it_is_the_memory_that_tensors_are_read_from() -> None:
    runtime = Runtime()
    arena = Arena.create()
    PinnedArenas(runtime, runtime.clear_error).pin(arena)
    import ctypes

    (start,) = runtime.registered
    assert ctypes.addressof(arena.array(Slice(4096, 10))) == start + 4096


def test_no_more_is_pinned_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "MAX_BYTES", 2 * KEPT_BYTES)
    runtime = Runtime()
    arenas = PinnedArenas(runtime, runtime.clear_error)
    opened = [Arena.create() for _ in range(3)]
    for arena in opened:
        arenas.pin(arena)
    assert len(runtime.registered) == 2


def test_where_pinning_fails_it_is_said_once_and_not_tried_again(capfd: pytest.CaptureFixture[str]) -> None:
    runtime = Runtime(error=2)
    arenas = PinnedArenas(runtime, runtime.clear_error)
    for _ in range(3):
        arenas.pin(Arena.create())
    assert runtime.calls == 1
    assert runtime.cleared == 1  # or the next launch in this thread would fail with it
    assert capfd.readouterr().out.count("arena_not_pinned") == 1
    assert arenas.bytes == 0
