"""The two networks as files that other runtimes run, and as they are exported into them.

    checkpoint.onnx, checkpoint.pt2        U²-Net's fused map: image [N, 3, 320, 320] ──► logits [N, 1 or 3, 320, 320]
    checkpoint_2.onnx, checkpoint_2.pt2    FBA: image [N, 3, H, W], trimap [N, 2, H, W], distances [N, 6, H, W] ──► [N, 7, H, W]

`python -m multigpu_inference export` makes them of a model folder's checkpoints, and a replica that finds one takes it in the
checkpoint's place. The distances stay outside: on the CPU they are a library's work, which no runtime knows.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from matting.distance import distance_features
from matting.fba import FBA, POOL_SCALES, SIZE_MULTIPLE
from matting.u2net import U2Net
from matting.weights import load_matting_network, load_trimap_network
from multigpu_inference import Exportable, Size, load_network

Network: TypeAlias = Callable[..., Any]

TRIMAP, MATTING = "checkpoint", "checkpoint_2"
TRIMAP_SIZE = 320  # pixels; U²-Net was trained on squares of it
_ENDINGS = (".onnx", ".pt2")
_MAX_BATCH, _MAX_SIDE = 64, 16_384  # of exported networks

_log = logging.getLogger(__name__)


class FusedMap(nn.Module):
    """U²-Net without its side maps, which are for training: there is no need to copy them out of a graph."""

    def __init__(self, network: U2Net) -> None:
        """Wrap a network."""
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """The fused map's logits, [N, C, 320, 320], of the network's input."""
        fused: Tensor = self.network(image)[0]
        return fused


class _Estimate(nn.Module):
    """FBA behind its distance features, for any height and width."""

    def __init__(self, network: FBA) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        for scale, branch in zip(POOL_SCALES, self.network.decoder.ppm, strict=True):
            assert isinstance(branch, nn.Sequential)
            branch[0] = _AveragePool(scale)

    def forward(self, image: Tensor, trimap: Tensor, distances: Tensor) -> Tensor:
        return self.network.estimate(image, trimap, distances)


class _AveragePool(nn.Module):
    """`nn.AdaptiveAvgPool2d` for square outputs as two products, which exporters know for sizes that vary."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self._means(x.shape[-2], x) @ x @ self._means(x.shape[-1], x).T

    def _means(self, length: int, like: Tensor) -> Tensor:
        """[scale, length]: in each row the weights of what one output is the mean of."""
        at = torch.arange(length, device=like.device)[None]
        part = torch.arange(self.scale, device=like.device)[:, None]
        starts, ends = part * length // self.scale, ((part + 1) * length + self.scale - 1) // self.scale
        inside = ((at >= starts) & (at < ends)).to(like.dtype)
        return inside / inside.sum(dim=1, keepdim=True)


def export_networks(model_dir: str) -> dict[str, Exportable]:
    """The networks of a model folder's checkpoints, by the name of the file that each becomes.

    Raises:
        CheckpointError: a checkpoint is missing or does not fit.
    """
    batch = Size("batch", 1, _MAX_BATCH)
    side = {"smallest": 2, "largest": _MAX_SIDE // SIZE_MULTIPLE, "multiple": SIZE_MULTIPLE}
    sizes = {0: batch, 2: Size("height", **side), 3: Size("width", **side)}
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(2, 3, TRIMAP_SIZE, TRIMAP_SIZE, generator=generator)
    image = torch.rand(2, 3, 12 * SIZE_MULTIPLE, 16 * SIZE_MULTIPLE, generator=generator)
    trimap = (torch.rand(2, 2, *image.shape[2:], generator=generator) > 0.7).float()
    inputs = {"image": image, "trimap": trimap, "distances": distance_features(trimap)}
    return {
        TRIMAP: Exportable(FusedMap(load_trimap_network(model_dir)).eval(), {"image": picture}, {"image": {0: batch}}),
        MATTING: Exportable(_Estimate(load_matting_network(model_dir)).eval(), inputs, dict.fromkeys(inputs, sizes)),
    }


class Exported:
    """A network that another runtime runs: called as the eager one, and prepared for serving already."""

    def __init__(self, run: Network) -> None:
        """Keep what is called."""
        self._run = run

    def __call__(self, *inputs: Tensor) -> Any:
        """Run a batch."""
        return self._run(*inputs)


def load_exported_trimap_network(model_dir: str | Path, device: torch.device) -> Exported | None:
    """U²-Net's fused map out of an exported file; None where there is none. ModelError where it does not load."""
    network = _load(Path(model_dir), TRIMAP, device)
    return None if network is None else Exported(network)


def load_exported_matting_network(model_dir: str | Path, device: torch.device) -> Exported | None:
    """FBA out of an exported file, called as the network itself; None where there is none. ModelError as above."""
    network = _load(Path(model_dir), MATTING, device)
    if network is None:
        return None
    return Exported(lambda image, trimap: network(image, trimap, distance_features(trimap)))


def _load(folder: Path, name: str, device: torch.device) -> Network | None:
    path = next((folder / f"{name}{ending}" for ending in _ENDINGS if (folder / f"{name}{ending}").is_file()), None)
    if path is None:
        return None
    _log.info("%s serves in place of a checkpoint", path.name)
    return load_network(path, device)
