from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from multigpu_inference import arena as arenas
from multigpu_inference.arena import INLINE_BYTES, KEPT_BYTES, Arena, ArenaFull, Views, aligned, end_of
from multigpu_inference.engine import codec
from multigpu_inference.ipc import Slice

LARGE = np.random.default_rng(0).bytes(INLINE_BYTES + 1)


def other_process(arena: Arena) -> Arena:
    """The same file, mapped as another process would."""
    return Arena(os.dup(arena.fileno()))


def memory_bytes(arena: Arena) -> int:
    return os.fstat(arena.fileno()).st_blocks * 512


def test_what_fits_a_packet_stays_in_it() -> None:
    arena = Arena.create()
    assert arena.write([b"a", bytearray(b"b"), memoryview(b"c")], 0) == [b"a", b"b", b"c"]
    assert memory_bytes(arena) == 0


def test_what_is_inline_is_a_copy() -> None:
    mine = bytearray(b"mine")
    (blob,) = Arena.create().write([memoryview(mine)], 0)
    mine[0] = 0
    assert blob == b"mine"


def test_large_bytes_are_read_where_another_process_wrote_them() -> None:
    arena = Arena.create()
    theirs = other_process(arena)
    blobs = theirs.write([b"small", LARGE, b"", LARGE[::-1]], 0)
    assert [type(blob) for blob in blobs] == [bytes, Slice, bytes, Slice]
    assert [arena.read(blob) for blob in blobs] == [b"small", LARGE, b"", LARGE[::-1]]


def test_bytes_stand_behind_those_before_and_begin_at_a_cache_line() -> None:
    arena = Arena.create()
    first = arena.write([LARGE, LARGE], 0)
    second = arena.write([LARGE], end_of(first))
    places = [blob for blob in first + second if isinstance(blob, Slice)]
    assert all(place.offset % 64 == 0 for place in places)
    assert all(a.end <= b.offset for a, b in pairwise(places))
    assert end_of(second) == places[-1].end


def test_nothing_lies_across_the_end_of_what_may_be_pinned() -> None:
    arena = Arena.create()
    for begin in (KEPT_BYTES - 200_000, KEPT_BYTES - 64, KEPT_BYTES - len(LARGE), KEPT_BYTES, KEPT_BYTES + 64):
        (piece,) = arena.write([LARGE], begin)
        assert isinstance(piece, Slice)
        assert piece.end <= KEPT_BYTES or piece.offset >= KEPT_BYTES
        assert piece.offset >= begin
        assert arena.read(piece) == LARGE


def test_the_file_grows_and_others_see_it() -> None:
    arena = Arena.create()
    theirs = other_process(arena)
    arena.write([LARGE], 0)
    assert theirs.read(Slice(0, len(LARGE))) == LARGE
    (far,) = arena.write([LARGE], 100 << 20)
    assert theirs.read(far) == LARGE  # mapped anew
    assert arena.read(Slice(0, len(LARGE))) == LARGE


def test_what_lies_over_a_mapping_outlives_its_growth() -> None:
    arena = Arena.create()
    arena.write([LARGE], 0)
    array = arena.array(Slice(0, len(LARGE)))
    arena.write([LARGE], 100 << 20)
    assert bytes(array) == LARGE


def test_there_is_an_end_to_it() -> None:
    arena = Arena.create()
    with pytest.raises(ArenaFull, match="over the limit"):
        arena.buffer(arenas.MAX_BYTES - 10, 100)
    assert os.fstat(arena.fileno()).st_size == 0


def test_reading_what_nobody_wrote_is_an_error() -> None:
    with pytest.raises(ValueError, match="there are 0 bytes, not 10"):
        Arena.create().array(Slice(0, 10))


def test_a_large_requests_memory_goes_back_and_a_small_ones_stays() -> None:
    arena = Arena.create()
    body = bytes(KEPT_BYTES + (5 << 20))
    arena.buffer(0, len(body))[:] = body  # received where it begins
    pieces = arena.write([LARGE], len(body))
    assert memory_bytes(arena) > KEPT_BYTES
    arena.release(end_of(pieces))
    assert memory_bytes(arena) == KEPT_BYTES
    arena.release(1000)
    assert memory_bytes(arena) == KEPT_BYTES


def test_its_descriptor_goes_with_it() -> None:
    arena = Arena.create()
    arena.write([LARGE], 0)
    number = arena.fileno()
    del arena
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_the_end_of_blobs_that_are_elsewhere_is_the_beginning() -> None:
    assert end_of([]) == end_of([b"inline"]) == 0
    assert aligned(0) == 0
    assert aligned(1) == aligned(64) == 64


# What user code keeps


def a_view(made: Any) -> tuple[Views, Any]:
    """An object that another worker wrote, as it is read, and the views it is read through."""
    arena = Arena.create()
    blobs = arena.write(codec.encode(made), 0)
    assert any(isinstance(blob, Slice) for blob in blobs)
    views = Views(arena, blobs)
    return views, codec.decode(views.blobs)


def test_objects_are_read_without_a_copy() -> None:
    arena = Arena.create()
    blobs = arena.write(codec.encode(torch.zeros(100_000)), 0)
    (place,) = (blob for blob in blobs if isinstance(blob, Slice))
    tensor = codec.decode(Views(arena, blobs).blobs)
    arena.buffer(*place)[:4] = np.float32(7).tobytes()
    assert tensor[0] == 7


@pytest.mark.parametrize("made", [torch.zeros(100_000), np.zeros(100_000), {"a": [torch.zeros(50_000), np.zeros(50_000)]}])
def test_what_is_dropped_is_not_kept(made: Any) -> None:
    views, value = a_view(made)
    del value
    assert not views.kept()


def test_nothing_inline_is_ever_kept() -> None:
    views = Views(None, [b"x"])
    mine = views.blobs[0]
    assert not views.kept()
    assert mine == b"x"


@pytest.mark.parametrize(
    "part",
    [lambda v: v["t"], lambda v: v["t"][3:], lambda v: v["t"].numpy(), lambda v: v["n"], lambda v: v["n"][::2],
     lambda v: memoryview(v["n"]), lambda v: torch.from_numpy(v["n"]).untyped_storage()],
    ids=["tensor", "slice", "tensor's array", "array", "array's part", "memory view", "storage"],
)  # fmt: skip
def test_any_part_that_is_kept_is_noticed(part: Any) -> None:
    views, value = a_view({"t": torch.zeros(100_000), "n": np.zeros(100_000)})
    mine = part(value)
    del value
    assert views.kept()
    del mine
    assert not views.kept()


def test_a_slice_without_its_arena_is_an_error() -> None:
    with pytest.raises(ValueError, match="without its arena"):
        Views(None, [Slice(0, 1)])
