"""What is compared, how closely, and how our networks come to their outputs.

Both `compare.py`, which runs the published classes beside ours, and `test_parity.py`, which has only their outputs, go by it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from matting.fba import FBA
from matting.imagenet import normalise
from matting.trimap import two_channels
from matting.u2net import U2Net
from matting.weights import load_matting_network, load_trimap_network, standardise_weights
from parity import seeds

GOLDEN = Path(__file__).parent / "golden"
# Golden arrays hold each third row and column: 3 has no factor in common with the networks' steps of 2, so that pixels at
# every place within a step are among them.
STEP = 3

# Largest differences of outputs, all of them in [0, 1].
#
# In float32 the order of adding up matters, and each CPU has its own. From the same networks in float64, ours are up to 2e-6
# away in U²-Net and 2.5e-5 in FBA, whose fusion divides by small numbers, with 1 or 2 threads, with oneDNN and without, and
# with instruction sets from SSE4.1 to AVX-512: eight times that is allowed.
U2NET_TOLERANCE = 2e-5
FBA_TOLERANCE = 2e-4
# In float64 rounding explains next to nothing: found are 4e-14.
EXACT_TOLERANCE = 1e-9
# A distance feature: the published code squares a distance in float32 and takes the exponential in float64, ours in float32.
FEATURE_TOLERANCE = 1e-6
# Golden arrays come from float64, are kept as float32, and FBA's have the published features behind them.
GOLDEN_TOLERANCE = 1e-5


class U2NetCase(NamedTuple):
    """U²-Net on a picture of one size."""

    variant: str
    channels: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """The golden array's name."""
        return f"{self.variant} {self.channels} {self.height}x{self.width}"


# Odd sizes, as a pooling then rounds up. At 289 rows the deepest maps have 10, more than the largest dilation, 8: below that, a
# wrong dilation could not be seen.
U2NET_CASES = (
    U2NetCase("small", 1, 65, 49),
    U2NetCase("small", 3, 65, 49),
    U2NetCase("small", 1, 289, 33),
    U2NetCase("full", 1, 289, 33),
)
FBA_SIZES = ((64, 64), (72, 56))  # height, width


def u2net_input(height: int, width: int) -> Tensor:
    """A normalised picture, float [1, 3, H, W]."""
    return normalise(torch.from_numpy(seeds.picture(height, width)))


def fba_input(height: int, width: int, *, foreground: bool = True) -> tuple[Tensor, Tensor]:
    """A picture, float [1, 3, H, W] in [0, 1], and its two-channel trimap, float [1, 2, H, W]."""
    trimap = torch.from_numpy(seeds.trimap(height, width, foreground=foreground))
    return torch.from_numpy(seeds.picture(height, width)), two_channels(trimap)[None]


def fusion_input() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A picture and estimates of alpha, foreground and background: float [1, 3 or 1, 24, 24] in [0, 1].

    Alpha is 0 and 1 in many places, and foreground and background are the same in some.
    """
    image, foreground, background = (
        torch.from_numpy(seeds.uniform(name, (1, 3, 24, 24)) / 2 + 0.5) for name in ("image", "foreground", "background")
    )
    alpha = torch.from_numpy(seeds.uniform("alpha", (1, 1, 24, 24))).add(0.5).clamp(0, 1)
    background[..., :4] = foreground[..., :4]
    return image, alpha, foreground, background


def seeded_state(network: nn.Module) -> dict[str, Tensor]:
    """The seeded state dict for a network's keys and shapes; the network may be on the meta device."""
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    return {key: torch.from_numpy(np.asarray(value)) for key, value in seeds.seeded_weights(shapes).items()}


def load_u2net(state: Mapping[str, Tensor]) -> U2Net:
    """Load stage 1's network as a replica does, from a file."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(dict(state), Path(folder) / "checkpoint.pth")
        return load_trimap_network(folder)


def load_fba(state: Mapping[str, Tensor]) -> FBA:
    """Load stage 2's network as a replica does, from a file, which standardises its convolutions."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(dict(state), Path(folder) / "checkpoint_2.pth")
        return load_matting_network(folder)


def exact_fba(state: Mapping[str, Tensor]) -> FBA:
    """Stage 2's network in float64, in which its convolutions are standardised too."""
    with torch.device("meta"):
        network = FBA()
    standardised = standardise_weights({key: value.double() for key, value in state.items()})
    network.load_state_dict(standardised, strict=True, assign=True)
    return network.eval()


def u2net_maps(network: U2Net, height: int, width: int) -> Tensor:
    """Our seven maps, the fused one first, as the published class gives them: sigmoids, [7, C, H, W].

    In the number format of the network's weights.
    """
    with torch.inference_mode():
        return torch.cat(network(u2net_input(height, width).to(network.outconv.weight.dtype))).sigmoid()


def fba_estimate(network: FBA, height: int, width: int) -> Tensor:
    """Our alpha, foreground and background, [1, 7, H, W], in the number format of the network's weights."""
    dtype = network.encoder.conv1.weight.dtype
    image, trimap = fba_input(height, width)
    with torch.inference_mode():
        estimate: Tensor = network(image.to(dtype), trimap.to(dtype))
        return estimate


def sample(values: Tensor) -> Tensor:
    """What a golden array keeps of an output [..., H, W]."""
    return values[..., ::STEP, ::STEP]


def largest_difference(one: Tensor, other: Tensor) -> float:
    """The largest difference of two tensors of one shape; infinite where their shapes differ or one is not a number."""
    if one.shape != other.shape:
        return float("inf")
    difference = (one.double() - other.double()).abs().max().item()
    return difference if difference == difference else float("inf")


def read_golden(name: str) -> dict[str, Tensor]:
    """The golden arrays of one file, by their names."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def write_golden(name: str, arrays: Mapping[str, Tensor]) -> None:
    """Keep the published classes' outputs, sampled already, as one file."""
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(
        GOLDEN / f"{name}.npz", allow_pickle=False, **{key: value.float().numpy() for key, value in arrays.items()}
    )
