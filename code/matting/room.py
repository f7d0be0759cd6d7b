"""How much memory what is fetched may take together. Used in the fetch process, by all of its threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Self, TypeAlias

from multigpu_inference.errors import ServingError

Reserve: TypeAlias = Callable[[int], None]  # takes so many bytes; raises where there is no room for them


class Room:
    """Room for so many bytes, perhaps within a larger room that others have a part in as well."""

    def __init__(self, max_bytes: int, full: Callable[[], ServingError], within: Room | None = None) -> None:
        """Make an empty room.

        Args:
            max_bytes: most bytes in it at a time.
            full: the error of one that does not fit.
            within: where it takes its bytes from; None: from nowhere.
        """
        self._max_bytes = max_bytes
        self._full = full
        self._within = within
        self._taken = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Use it for the length of a block, at whose end all is given back."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give back what is still taken."""
        self.give_back(self._taken)

    def take(self, count: int) -> None:
        """Take room for so many bytes, or none at all and raise where they do not fit."""
        with self._lock:
            if self._taken + count > self._max_bytes:
                raise self._full()
            if self._within is not None:
                self._within.take(count)
            self._taken += count

    def give_back(self, count: int) -> None:
        """Give back so many of the bytes that were taken."""
        with self._lock:
            self._taken -= count
            if self._within is not None:
                self._within.give_back(count)

    @contextlib.contextmanager
    def reserving(self) -> Iterator[Reserve]:
        """Take bytes bit by bit; all of these are given back where the block does not come to its end."""
        taken = 0

        def reserve(count: int) -> None:
            nonlocal taken
            self.take(count)
            taken += count

        try:
            yield reserve
        except BaseException:
            self.give_back(taken)
            raise


def unbounded(count: int) -> None:
    """Take nothing: of a photo that is fetched alone, the limit of its own bytes is enough."""
