"""What the GPU benchmark runs on and how long: sizes, number formats, random networks, the clock.

Needs torch, NumPy and Pillow beside the package and `code/`, and nothing that is downloaded.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
# Neither the package nor the application need be installed where a GPU has been lent for an hour.
sys.path[:0] = [str(ROOT / folder) for folder in ("container", "code") if str(ROOT / folder) not in sys.path]

from matting.fba import FBA  # noqa: E402
from matting.pipeline import MattingStage, TrimapStage  # noqa: E402
from matting.u2net import U2Net  # noqa: E402
from multigpu_inference.config import AccelerationSettings  # noqa: E402

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Precision:
    """A number format. TF32 rounds the factors of float32's convolutions to 10 bits; it is torch's default for them."""

    name: str
    dtype: str
    tf32: bool


FLOAT32 = Precision("float32", "float32", False)
TF32 = Precision("float32, TF32", "float32", True)
FLOAT16 = Precision("float16", "float16", True)
BFLOAT16 = Precision("bfloat16", "bfloat16", True)


@dataclass(frozen=True)
class Setup:
    """How the benchmark runs.

    Attributes:
        device: Such as `cuda`.
        networks: The variant of both networks.
        height: Of the pictures, in pixels.
        width: Of the pictures, in pixels.
        trimap_size: Height and width of the first network's input, where it is measured alone.
        batch_size: The larger of the two batch sizes; the other is 1.
        precisions: Number formats of single networks.
        chain_precisions: Number formats of the whole chain.
        callers: Threads that call a pipeline, by the largest batch that it may form.
        replicas: Numbers of processes on the one device.
        seconds: Least length of a sample.
        samples: How many samples a figure is the median of.
    """

    device: torch.device
    networks: str
    height: int
    width: int
    trimap_size: int
    batch_size: int
    precisions: tuple[Precision, ...]
    chain_precisions: tuple[Precision, ...]
    callers: tuple[tuple[int, int], ...]
    replicas: tuple[int, ...]
    seconds: float
    samples: int

    @classmethod
    def make(cls, device: str, quick: bool) -> Setup:
        """The full benchmark on a GPU, or its plumbing on the CPU with the small networks; `quick` shortens either."""
        if torch.device(device).type == "cuda":
            return cls(
                device=torch.device(device),
                networks="full",
                height=768,
                width=1024,
                trimap_size=320,
                batch_size=8,
                precisions=(FLOAT32, TF32, FLOAT16, BFLOAT16),
                chain_precisions=(FLOAT16,) if quick else (TF32, FLOAT16),
                callers=((1, 6), (8, 32)),
                replicas=(1, 2) if quick else (1, 2, 4),
                seconds=0.15 if quick else 0.5,
                samples=1 if quick else 3,
            )
        return cls(
            device=torch.device(device),
            networks="small",
            height=40,
            width=56,
            trimap_size=64,
            batch_size=2,
            precisions=(FLOAT32, BFLOAT16),
            chain_precisions=(FLOAT32,),
            callers=((1, 2), (2, 4)),
            replicas=(1, 2),
            seconds=0.02 if quick else 0.2,
            samples=1 if quick else 3,
        )

    def trimap_network(self) -> U2Net:
        """U²-Net with random weights."""
        return randomise(U2Net(self.networks, out_channels=3))

    def matting_network(self) -> FBA:
        """FBA with random weights."""
        return randomise(FBA(self.networks))

    def stages(
        self, precision: Precision, max_batch_size: int, *, cuda_graphs: bool = False
    ) -> tuple[TrimapStage, MattingStage]:
        """Both stages of a replica on the device."""
        settings = self.settings(precision, cuda_graphs=cuda_graphs and self.device.type == "cuda")
        return (
            TrimapStage(self.trimap_network(), self.device, max_batch_size, settings),
            MattingStage(self.matting_network(), self.device, 0, max_batch_size, settings),
        )

    def settings(
        self, precision: Precision, *, channels_last: bool | None = None, cuda_graphs: bool = False
    ) -> AccelerationSettings:
        """What `accelerate` is told."""
        return AccelerationSettings(precision.dtype, channels_last, cuda_graphs, compile=False)

    def pictures(self, number: int, *, pinned: bool = True) -> list[Tensor]:
        """Pictures on the host, uint8 [H, W, 3], soft and different from each other."""
        generator = torch.Generator().manual_seed(5)
        coarse = torch.rand(number, 3, 12, 16, generator=generator)
        fine = nn.functional.interpolate(coarse, size=(self.height, self.width), mode="bicubic").clamp(0, 1)
        pictures = [picture.permute(1, 2, 0).mul(255).to(torch.uint8).contiguous() for picture in fine]
        return [picture.pin_memory() for picture in pictures] if pinned and self.device.type == "cuda" else pictures

    def take_threads(self) -> None:
        """On the CPU one computes: only the plumbing is tried there, and the machine may be busy."""
        if self.device.type == "cpu":
            torch.set_num_threads(1)

    def synchronise(self) -> None:
        """Wait until the device has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def rate(self, work: Callable[[], object], items: int) -> float:
        """Items a second of `work`, which handles `items` of them: the median of the samples."""
        for _ in range(2):  # the first call chooses kernels and takes memory
            began = time.perf_counter()
            work()
            self.synchronise()
            once_s = time.perf_counter() - began
        repeats = max(1, math.ceil(self.seconds / once_s))
        return statistics.median(self._sample(work, repeats) * items for _ in range(self.samples))

    def _sample(self, work: Callable[[], object], repeats: int) -> float:
        self.synchronise()
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        self.synchronise()
        return repeats / (time.perf_counter() - began)


def randomise(network: Network) -> Network:
    """Give a network the same random weights each time, which keep its activations near one, and return it."""
    generator = torch.Generator().manual_seed(20)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        if norms:
            for norm in norms:
                norm.momentum = 1.0  # take over this one batch's mean and variance instead of approaching them
            network.train()(torch.randn(2, 3, 64, 64, generator=generator))
    return network.eval().requires_grad_(False)


@contextmanager
def number_format(precision: Precision) -> Iterator[None]:
    """Allow TF32 in convolutions, or do not, within the block."""
    before = _allow_tf32(precision.tf32)
    try:
        yield
    finally:
        _allow_tf32(before)


def _allow_tf32(allowed: bool) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch would have it said in another way, which older ones lack
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = allowed
    return before


def free_memory() -> None:
    """Give back what a section has used, for the next one."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
