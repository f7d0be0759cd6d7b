"""A network that can be exported, as a script's `export_networks` describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Size:
    """A dimension that may have another size in each call.

    Attributes:
        name: Dimensions of one name have one size; that of an output has the name of an input's.
        smallest: Its smallest size, in multiples.
        largest: Its largest, in multiples.
        multiple: What it is a multiple of.
    """

    name: str
    smallest: int = 1
    largest: int = 64
    multiple: int = 1


@dataclass(frozen=True, slots=True)
class Exportable:
    """A network with what its export needs to know.

    Attributes:
        network: In evaluation mode, on the CPU, in float32. Takes tensors, returns one.
        inputs: By name, in the order of its arguments: an example of each, with at least two items.
        sizes: By input: the dimensions that vary, by their place. The answers are compared at another size of these, too.
        tolerance: How far an output's number may be from eager PyTorch's.
    """

    network: nn.Module
    inputs: Mapping[str, Tensor]
    sizes: Mapping[str, Mapping[int, Size]] = field(default_factory=dict)
    tolerance: float = 1e-3
