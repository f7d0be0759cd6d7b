"""Whether anybody still waits for what a worker works on: a client may have gone, or its time be over.

    engine: withdraw(slot) ──► one byte that both have mapped ──► worker: before each function, and before each stage

A message would not do: a worker reads its next one when it has room for it, and by then the work is done. Each task in a
worker has a slot of the page for as long as the worker holds it.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from multigpu_inference.errors import ClientGone, DeadlineExceeded, ServingError


class Withdrawals:
    """A page of marks, one byte for each task that a worker may hold."""

    def __init__(self, descriptor: int) -> None:
        """Map a memory file; its descriptor is closed with this object."""
        self._descriptor = descriptor
        self._marks = mmap.mmap(descriptor, 0)

    @classmethod
    def create(cls, slots: int) -> Withdrawals:
        """A new page with so many slots, none of them marked."""
        descriptor = os.memfd_create("multigpu-withdrawals")
        os.ftruncate(descriptor, slots)
        return cls(descriptor)

    def __del__(self) -> None:
        """Close the file, where nobody has."""
        self.close()

    def close(self) -> None:
        """Give the page back; nothing can be marked any more."""
        if self._descriptor >= 0:
            self._marks.close()
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Its descriptor, to be passed on."""
        return self._descriptor

    def __len__(self) -> int:
        """How many slots it has."""
        return len(self._marks)

    def mark(self, slot: int, *, withdrawn: bool) -> None:
        """Say whether the task of a slot is still wanted."""
        self._marks[slot] = withdrawn

    def __getitem__(self, slot: int) -> bool:
        """Whether the task of a slot has been withdrawn."""
        return bool(self._marks[slot])


class Interest:
    """Somebody's interest in the answer to one task."""

    def __init__(self, deadline: float, withdrawals: Withdrawals | None = None, slot: int = 0) -> None:
        """Somebody waits until a deadline, in monotonic seconds, unless it is withdrawn."""
        self._deadline = deadline
        self._withdrawals = withdrawals
        self._slot = slot

    def lost(self, before: str = "") -> ServingError | None:
        """Why nobody waits any more; None while somebody does.

        Args:
            before: The function or stage that is not begun then; the engine counts it as spared.
        """
        error: ServingError
        if time.monotonic() > self._deadline:
            error = DeadlineExceeded()
        elif self._withdrawals is not None and self._withdrawals[self._slot]:
            error = ClientGone()
        else:
            return None
        error.spared = before
        return error

    def seconds_left(self) -> float:
        """For how long somebody still waits; 0.0 where nobody does."""
        return 0.0 if self.lost() is not None else max(0.0, self._deadline - time.monotonic())


_current: ContextVar[Interest | None] = ContextVar("interest", default=None)


@contextmanager
def held(interest: Interest) -> Iterator[None]:
    """Let what this thread does within the block be for this interest."""
    token = _current.set(interest)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Interest | None:
    """What this thread's work is for; None outside a worker, in a notebook, where it is always wanted."""
    return _current.get()
