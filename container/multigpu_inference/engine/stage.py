"""What a stage of a chain is: any callable with a device. No base class is needed.

A stage may say three things more about its batches, all optional:

    batch_key(item) -> Hashable   only items of one key share a batch; by default items share one whose arrays and
                                  tensors have the same shapes and types
    batch_limit(key) -> int       how many items of this key fit, where that depends on it (on their pixels, say); more
                                  than `max_batch_size` are never taken, and one always is
    room() -> context manager     entered before a batch is formed and left when the stage has returned: for a device that
                                  the stage has to itself while it works, such as a lock that another replica takes too

The first two are asked in whatever thread hands an item to the stage, so they must be quick and must not touch the device.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from multigpu_inference.engine import structure

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Stage(Protocol):
    """One model of a chain on one device."""

    @property
    def device(self) -> torch.device | str:
        """Where it computes."""
        ...

    @property
    def max_batch_size(self) -> int:
        """How many items it takes at a time, at least 1; read once, when it is put into a pipeline."""
        ...

    def __call__(self, items: Sequence[Any], /) -> Sequence[Any]:
        """Turn items into as many results, in order.

        A pipeline calls it from one thread of its own, without gradients; from several at a time where it is told so
        (`MULTIGPU_STREAMS_PER_STAGE`). Where it raises, it is called again with fewer of the same items, so it leaves them
        as they are.

        On CUDA it only issues work, on the stream that is current when it is called, and waits for nothing: the tensors
        of its items are on its device and ready on that stream, and whoever called it waits for what it returns.
        """
        ...


def batch_key(stage: Stage, item: Any) -> Hashable:
    """What an item must have in common with those that it shares a batch with.

    Raises:
        TypeError: where the stage's own key is not hashable.
    """
    of_stage = getattr(stage, "batch_key", None)
    key: Hashable = _shapes(item) if of_stage is None else of_stage(item)
    hash(key)
    return key


def batch_limit(stage: Stage, key: Hashable, limit: int) -> int:
    """How many items of a key the stage takes at a time: at least one, at most `limit`."""
    of_stage = getattr(stage, "batch_limit", None)
    return limit if of_stage is None else max(1, min(limit, int(of_stage(key))))


def room(stage: Stage) -> AbstractContextManager[Any]:
    """What the stage holds while it works on a batch."""
    of_stage = getattr(stage, "room", None)
    held: AbstractContextManager[Any] = nullcontext() if of_stage is None else of_stage()
    return held


def _shapes(item: Any) -> Hashable:
    """The outermost container's type, and where within it arrays of which shape and type stand; nothing else counts."""
    leaves = list(structure.leaves(item))
    container = type(item) if any(path for path, _ in leaves) else None
    arrays = ((path, leaf) for path, leaf in leaves if structure.is_tensor(leaf) or isinstance(leaf, np.ndarray))
    return container, tuple((path, type(leaf), tuple(leaf.shape), leaf.dtype) for path, leaf in arrays)
