"""What has killed workers, and is not let near one again: the content of requests that were answered 422 for it.

    answered 422 ──► remember(its source) ──► the same source again ──► 422 at once, no worker touched

Known by a hash of what `input_fn` would be given: the body, or what `fetch_fn` gave in its place, and what goes with it, such
as a form's other fields: they may be what kills, and must not keep a photo out for all others. So a photo that kills is known
by its bytes, whichever URL it came from: such a request is refused when it has been fetched, and costs no worker. Requests are
hashed only where something of the same type and length is remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeAlias

from multigpu_inference.ipc import Blob, Buffer, size_of

# A hundred bytes each. Who sends more different ones pays with two dead workers for each that falls out.
_MAX_ENTRIES = 1024
# What a worker could not bear may have been the machine's doing, such as memory that others had: it gets another chance, and
# two workers an hour are no cost.
_MAX_AGE_S = 3600.0
# 0.3 ms of the engine's loop; a body of 25 MB takes 34 ms, on a thread.
_HASHED_AT_ONCE_BYTES = 256 << 10

Key: TypeAlias = tuple[str, int, bytes]


class PoisonList:
    """A bounded number of contents, each for a limited time."""

    def __init__(
        self,
        max_entries: int = _MAX_ENTRIES,
        max_age_s: float = _MAX_AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is known yet.

        Args:
            max_entries: The oldest goes when one more comes.
            max_age_s: How long each is remembered, in seconds.
            clock: The monotonic clock, in seconds.
        """
        self._max_entries = max_entries
        self._max_age_s = max_age_s
        self._clock = clock
        self._entries: OrderedDict[Key, float] = OrderedDict()  # when they were remembered, the oldest first
        self._alike: Counter[tuple[str, int]] = Counter()  # how many of a type and length there are

    def __len__(self) -> int:
        """How many contents are known."""
        self._forget_old()
        return len(self._entries)

    async def remember(self, content_type: str, source: Sequence[Blob], read: Callable[[], Sequence[Buffer]]) -> None:
        """Take note of what has killed; the arguments are those of `knows`."""
        key = await _key(content_type, source, read())
        if self._entries.pop(key, None) is None:
            self._alike[key[:2]] += 1
        self._entries[key] = self._clock()
        if len(self._entries) > self._max_entries:
            self._forget_oldest()

    async def knows(self, content_type: str, source: Sequence[Blob], read: Callable[[], Sequence[Buffer]]) -> bool:
        """Whether the same content has been remembered.

        Args:
            content_type: The request's.
            source: What `input_fn` would be given, wherever it is.
            read: Gives its bytes, and last what goes with them; called only where something is remembered that is as long.
        """
        if not self._entries:
            return False
        self._forget_old()
        if not self._alike[content_type, sum(map(size_of, source))]:
            return False
        return await _key(content_type, source, read()) in self._entries

    def _forget_old(self) -> None:
        oldest = self._clock() - self._max_age_s
        while self._entries and next(iter(self._entries.values())) < oldest:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        key, _ = self._entries.popitem(last=False)
        self._alike[key[:2]] -= 1
        if not self._alike[key[:2]]:
            del self._alike[key[:2]]


async def _key(content_type: str, source: Sequence[Blob], given: Sequence[Buffer]) -> Key:
    at_once = sum(map(size_of, given)) <= _HASHED_AT_ONCE_BYTES
    digest = _digest(given) if at_once else await asyncio.to_thread(_digest, given)
    return content_type, sum(map(size_of, source)), digest


def _digest(given: Sequence[Buffer]) -> bytes:
    """Of all parts one after another, each with its length: where one ends is content, too."""
    digest = hashlib.blake2b(digest_size=32)
    for part in given:
        raw = memoryview(part).cast("B")
        digest.update(raw.nbytes.to_bytes(8, "little"))
        digest.update(raw)
    return digest.digest()
