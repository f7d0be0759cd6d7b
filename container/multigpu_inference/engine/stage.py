"""What a stage of a chain is: any callable with a device. No base class is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

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
        """How many items it takes at a time, at least 1."""
        ...

    def __call__(self, items: Sequence[Any], /) -> Sequence[Any]:
        """Turn items into as many results, in order.

        On CUDA it only issues work, on the stream that is current when it is called, and waits for nothing: what its
        items are made of is ready on that stream, and whoever called it waits for what it returns.
        """
        ...
