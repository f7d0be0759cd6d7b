"""An exported network beside eager PyTorch: how far its answers are, and how long it takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multigpu_inference.export.exportable import Exportable
from multigpu_inference.runtimes.load_network import load_network

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Attributes:
        name: The network's.
        difference: The largest difference between two numbers of an output, over the whole example, one item of it, and one of
            another size.
        tolerance: The largest that is allowed.
        eager_ms: Of one item, by eager PyTorch: the median.
        exported_ms: The same by the exported network, in turn with it.
    """

    name: str
    difference: float
    tolerance: float
    eager_ms: float
    exported_ms: float

    @property
    def is_close(self) -> bool:
        """Whether the answers are the same as far as they must be."""
        return self.difference <= self.tolerance


def compare(name: str, exportable: Exportable, path: Path) -> Comparison:
    """Load an exported network and run both, by turns, with as many threads as torch has here."""
    import torch

    network = load_network(path, "cpu")
    whole = list(exportable.inputs.values())
    single = [x[:1].contiguous() for x in whole]
    with torch.inference_mode():
        compared = (whole, single, _of_another_size(exportable, single))
        difference = max(_difference(exportable.network(*given), network(*given)) for given in compared)
        eager, exported = [], []
        for _ in range(_ROUNDS):
            eager.append(_milliseconds(exportable.network, single))
            exported.append(_milliseconds(network, single))
    return Comparison(name, difference, exportable.tolerance, statistics.median(eager), statistics.median(exported))


def _of_another_size(exportable: Exportable, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs with one more, or one less, of all that varies but the batch: what a graph has fixed shows."""
    import torch

    others = []
    for name, x in zip(exportable.inputs, inputs, strict=True):
        for place, size in exportable.sizes.get(name, {}).items():
            length = x.shape[place]
            other = length + size.multiple if length < size.largest * size.multiple else length - size.multiple
            if place != 0 and other >= size.smallest * size.multiple:
                x = x.index_select(place, torch.arange(other, device=x.device) % length)
        others.append(x.contiguous())
    return others


def _difference(wanted: Tensor, given: Tensor) -> float:
    if wanted.shape != given.shape:
        return float("inf")
    return float((wanted.float() - given.float()).abs().nan_to_num(nan=float("inf")).max())


def _milliseconds(network: Callable[..., Any], inputs: Sequence[Tensor]) -> float:
    started = time.perf_counter()
    network(*inputs)
    return (time.perf_counter() - started) * 1e3
