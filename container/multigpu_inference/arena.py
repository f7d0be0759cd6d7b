"""The bytes of one request in a memory file that every process on its way has mapped: they are written once, never sent.

    front-end worker: body ──► pool worker: input_fn's tensors ──► replica worker: prediction ──► pool worker: answer
          [0, a)                       [a, b)                            [b, c)                     [c, d)

A front-end worker makes one for each request that it may have in flight and uses it again for the next; its descriptor is
passed once to each process that needs it. One process at a time writes, behind what is there: a worker that holds the
request's task. Not `/dev/shm`: containers have been seen with 64 MB there and no way to change it.

Whoever takes bytes out of it holds a `View`, so that it can be seen when user code keeps some beyond its call: such an
arena is not used again (`Views.kept`).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from multigpu_inference.ipc import Blob, Buffer, Slice, size_of

# A file's first size: address space, not memory, which comes with what is written. A mapping rarely has to be made anew.
_FIRST_BYTES = 64 << 20
MAX_BYTES = 4 << 30
# What a request used beyond this goes back to the machine behind it; what is below stays for the next one.
KEPT_BYTES = 16 << 20
# Up to this all of a frame's blobs travel in its packet, which costs less than reaching for shared memory.
INLINE_BYTES = 64 << 10
_SMALL_BYTES = 4096
_ALIGNMENT = 64  # bytes; a cache line, and what vector loads like


class ArenaFull(ValueError):
    """More bytes than one request may have; nothing was written."""


class Arena:
    """One memory file as this process has it mapped."""

    def __init__(self, descriptor: int) -> None:
        """Take over a memory file's descriptor; it is mapped when it is first used."""
        self._descriptor = descriptor
        self._mapping: mmap.mmap | None = None

    @classmethod
    def create(cls) -> Arena:
        """A new memory file, empty."""
        return cls(os.memfd_create("multigpu-arena"))

    def __del__(self) -> None:
        """Close the file. Its memory goes when the last process has, and the last view in this one."""
        os.close(self._descriptor)

    def fileno(self) -> int:
        """Its descriptor, to be passed on."""
        return self._descriptor

    def size(self) -> int:
        """The file's length, in bytes: no more can have been used."""
        return os.fstat(self._descriptor).st_size

    def buffer(self, offset: int, length: int) -> memoryview:
        """A part to write to; the file grows where that is needed.

        Raises:
            ArenaFull: beyond `MAX_BYTES`.
        """
        return memoryview(self._map(offset + length, grow=True))[offset : offset + length]

    def array(self, piece: Slice) -> Any:
        """A part to read, as an object that each tensor, array or view made over it holds a reference to (`View`)."""
        return (ctypes.c_char * piece.length).from_buffer(self._map(piece.end), piece.offset)

    def read(self, blob: Blob) -> bytes:
        """A blob's bytes, copied, wherever they are."""
        return bytes(memoryview(self._map(blob.end))[blob.offset : blob.end] if isinstance(blob, Slice) else blob)

    def write(self, blobs: Sequence[Buffer], offset: int) -> list[Blob]:
        """Put blobs behind `offset` where together they are too large for a packet; what stands for them in a frame.

        Raises:
            ArenaFull: beyond `MAX_BYTES`.
        """
        if sum(map(size_of, blobs)) <= INLINE_BYTES:
            # Copies: who reads the answer must not wait for whom these bytes belong to.
            return [blob if isinstance(blob, bytes) else bytearray(blob) for blob in blobs]
        pieces: list[Blob] = []
        for blob in blobs:
            raw = memoryview(blob).cast("B")
            if raw.nbytes <= _SMALL_BYTES:  # a pickle beside its tensors; of an empty one there is nothing to map
                pieces.append(bytes(raw))
                continue
            piece = Slice(_place(offset, raw.nbytes), raw.nbytes)
            self.buffer(*piece)[:] = raw
            pieces.append(piece)
            offset = piece.end
        return pieces

    def release(self, used: int) -> None:
        """Give memory beyond `KEPT_BYTES` back after a request that used bytes up to `used`."""
        if used > KEPT_BYTES:
            self._map(used).madvise(mmap.MADV_REMOVE, KEPT_BYTES, -(-used // mmap.PAGESIZE) * mmap.PAGESIZE - KEPT_BYTES)

    def _map(self, size: int, *, grow: bool = False) -> mmap.mmap:
        """The mapping, at least `size` long: made anew where another process, or this one, has let the file grow."""
        if self._mapping is not None and len(self._mapping) >= size:
            return self._mapping
        length = self.size()
        if length < size:
            if size > MAX_BYTES:
                raise ArenaFull(f"{size} bytes for one request are over the limit of {MAX_BYTES}")
            if not grow:
                raise ValueError(f"there are {length} bytes, not {size}")
            length = max(_FIRST_BYTES, 1 << (size - 1).bit_length())
            os.ftruncate(self._descriptor, length)
        self._mapping = mmap.mmap(self._descriptor, length)
        return self._mapping


def aligned(offset: int) -> int:
    """The next place at which bytes may begin."""
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _place(offset: int, length: int) -> int:
    """Where to put so many bytes behind an offset: not across the end of what is kept.

    Only what is kept is ever pinned (`pinned`), and CUDA refuses to copy from memory that is so in part.
    """
    offset = aligned(offset)
    return KEPT_BYTES if offset < KEPT_BYTES < offset + length else offset


def end_of(blobs: Iterable[Blob]) -> int:
    """Where the bytes of blobs end in the arena; 0 where none of them is in it."""
    return max((blob.end for blob in blobs if isinstance(blob, Slice)), default=0)


class Views:
    """What a task reads of an arena, and whether something made over it is still there when the task is done."""

    def __init__(self, arena: Arena | None, blobs: Sequence[Blob]) -> None:
        """Reach a frame's blobs, without a copy."""
        self.blobs: list[Any] = []
        self._arrays: list[Any] = []
        for blob in blobs:
            if not isinstance(blob, Slice):
                self.blobs.append(blob)
                continue
            if arena is None:
                raise ValueError("a slice came without its arena")
            array = arena.array(blob)
            self._arrays.append(array)
            self.blobs.append(array)

    def kept(self) -> bool:
        """Whether anything but this object refers to what it reads: a tensor, an array, a view. Ask when the task is done."""
        self.blobs = []
        return _most_references(self._arrays) > _OWN_REFERENCES


def _most_references(arrays: Sequence[Any]) -> int:
    return max((sys.getrefcount(array) for array in arrays), default=0)


# What counting finds where nothing but the list refers to an array: its own, which differ between versions of Python.
_OWN_REFERENCES = _most_references([(ctypes.c_char * 1)()])
