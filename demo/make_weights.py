"""Makes two checkpoints for tests and benchmarks: seeded random weights of the small networks.

    python demo/make_weights.py build/model

They have learnt nothing, so the mattes mean nothing; what they show is that every part of a request's way
works. So that all of it has work to do, the random numbers are levelled: on the sample photos each layer's
activations stay near one, the trimap has all three classes, and the alpha is not constant.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

# Started as a script, from anywhere: the reference application is a folder, not an installed package.
_ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT / folder) for folder in ("code", "container") if str(_ROOT / folder) not in sys.path]

from matting.decode import decode  # noqa: E402
from matting.fba import FBA  # noqa: E402
from matting.pipeline import network_input  # noqa: E402
from matting.u2net import U2Net  # noqa: E402

PHOTOS = Path(__file__).resolve().parent / "photos"
_SEED = 20
# Measured values are rounded to this many decimal places: the last digits of a convolution, which differ with
# the number of threads, hardly ever reach the file.
_DECIMALS = 2


def make_weights(folder: str | Path, photos: Path = PHOTOS) -> tuple[Path, Path]:
    """Write `checkpoint.safetensors` (U²-Net) and `checkpoint_2.safetensors` (FBA matting).

    The same bytes each time.

    Args:
        folder: made if missing.
        photos: folder of the pictures on which activations are levelled.

    Returns:
        The two files.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    pictures = torch.cat([network_input(decode(path.read_bytes()).pixels) for path in sorted(photos.iterdir())])
    first, second = target / "checkpoint.safetensors", target / "checkpoint_2.safetensors"
    save_file(random_trimap_network(pictures).state_dict(), first)
    save_file(random_matting_network().state_dict(), second)
    return first, second


def random_trimap_network(pictures: Tensor) -> U2Net:
    """A small three-channel U²-Net whose classes share the pictures among them.

    Args:
        pictures: the network's input, float [N, 3, 320, 320].

    Returns:
        The network in evaluation mode.
    """
    network = U2Net("small", out_channels=3)
    _randomise(network)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # take over this one batch's mean and variance instead of approaching them
    with torch.no_grad():
        network.train()(pictures)
        for key, values in network.state_dict().items():
            if key.endswith(("running_mean", "running_var")):
                values.copy_(_rounded(values))
        # Each class's scores get the same mean and spread, so that none of the three wins everywhere.
        scores = network.eval()(pictures)[0]
        spread = scores.std(dim=(0, 2, 3))
        fusion = network.outconv.state_dict()
        fusion["weight"].copy_(_rounded(fusion["weight"] / spread.view(-1, 1, 1, 1)))
        fusion["bias"].copy_(_rounded(-scores.mean(dim=(0, 2, 3)) / spread))
    return network


def random_matting_network() -> FBA:
    """A small FBA network, its alpha around one half and its colours near grey.

    Its group normalisation levels the activations by itself.
    """
    network = FBA("small")
    _randomise(network)
    state = network.state_dict()
    state["decoder.conv_up4.4.weight"][0] *= 0.5
    state["decoder.conv_up4.4.weight"][1:] *= 0.15
    state["decoder.conv_up4.4.bias"][0] = 0.5
    return network.eval()


def _randomise(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(_SEED)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _rounded(values: Tensor) -> Tensor:
    return torch.round(values, decimals=_DECIMALS)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python demo/make_weights.py FOLDER")
    for path in make_weights(sys.argv[1]):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
