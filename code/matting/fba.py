"""FBA matting: the network of stage 2, from a picture and its trimap to alpha, foreground and background.

The modules' names give the state-dict keys of the public checkpoint `FBA.pth`. Runs in the replica workers.
Source: Forte and Pitié, "F, B, Alpha Matting", 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matting.distance import distance_features
from matting.imagenet import normalise
from matting.resnet import EXPANSION, ResNet

SIZE_MULTIPLE = 8
_INPUT_CHANNELS = 3 + 6 + 2  # normalised RGB, distance features, two-channel trimap
POOL_SCALES = (1, 2, 3, 6)
_LEAK = 0.01
_FUSION_PRIOR = 0.1  # weight of the network's own alpha in the least-squares alpha


@dataclass(frozen=True)
class FBASizes:
    """Channels and block counts of one variant: the encoder's, then the decoder's on its way up."""

    stem: int
    planes: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]
    pyramid: int
    up: tuple[int, int, int]
    head: tuple[int, int]
    groups: int


VARIANTS: dict[str, FBASizes] = {
    "full": FBASizes(64, (64, 128, 256, 512), (3, 4, 6, 3), 256, (256, 256, 64), (32, 16), 32),
    # Not a public one: sized so that the demo's request on a CPU stays well under a second.
    "small": FBASizes(16, (8, 16, 24, 32), (1, 1, 2, 1), 32, (32, 24, 8), (8, 8), 4),
}


class Decoder(nn.Module):
    """Pyramid pooling at 1/8, then three steps up to the full size, where the picture comes in again."""

    def __init__(self, sizes: FBASizes) -> None:
        """Build the decoder for an encoder of the same sizes."""
        super().__init__()
        deep = sizes.planes[3] * EXPANSION
        up1, up2, up3 = sizes.up
        head1, head2 = sizes.head

        def unit(in_channels: int, out_channels: int, kernel_size: int = 3) -> list[nn.Module]:
            return [
                nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
                nn.GroupNorm(sizes.groups, out_channels),
                nn.LeakyReLU(_LEAK),
            ]

        self.ppm = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), *unit(deep, sizes.pyramid, kernel_size=1)) for scale in POOL_SCALES
        )
        self.conv_up1 = nn.Sequential(*unit(deep + len(POOL_SCALES) * sizes.pyramid, up1), *unit(up1, up1))
        self.conv_up2 = nn.Sequential(*unit(up1 + sizes.planes[0] * EXPANSION, up2))
        self.conv_up3 = nn.Sequential(*unit(up2 + sizes.stem, up3))
        self.conv_up4 = nn.Sequential(
            nn.Conv2d(up3 + 3 + 3 + 2, head1, kernel_size=3, padding=1),
            nn.LeakyReLU(_LEAK),
            nn.Conv2d(head1, head2, kernel_size=3, padding=1),
            nn.LeakyReLU(_LEAK),
            nn.Conv2d(head2, 7, kernel_size=1),
        )

    def forward(self, features: list[Tensor], full_size: Tensor) -> Tensor:
        """Decode the encoder's features.

        Args:
            features: what `ResNet` returns.
            full_size: normalised RGB, RGB and two-channel trimap, [N, 8, H, W].

        Returns:
            Raw scores of alpha (1), foreground (3) and background (3), [N, 7, H, W].
        """
        stem, shallow, deep = features[0], features[1], features[4]
        pooled = [_resize_like(branch(deep), deep) for branch in self.ppm]
        h = self.conv_up1(torch.cat((deep, *pooled), dim=1))
        h = self.conv_up2(torch.cat((_resize_like(h, shallow), shallow), dim=1))
        h = self.conv_up3(torch.cat((_resize_like(h, stem), stem), dim=1))
        scores: Tensor = self.conv_up4(torch.cat((_resize_like(h, full_size), full_size), dim=1))
        return scores


class FBA(nn.Module):
    """The whole network with its fusion."""

    def __init__(self, variant: str = "full") -> None:
        """Build a network with fresh weights.

        Args:
            variant: a key of `VARIANTS`: `full` (34.7 million parameters, the public checkpoint's) or
            `small`.
        """
        super().__init__()
        sizes = VARIANTS[variant]
        self.variant = variant
        self.encoder = ResNet(_INPUT_CHANNELS, sizes.stem, sizes.planes, sizes.blocks, sizes.groups)
        self.decoder = Decoder(sizes)

    def forward(self, image: Tensor, trimap: Tensor) -> Tensor:
        """Estimate alpha, foreground and background.

        Args:
            image: RGB in [0, 1], float32 [N, 3, H, W]; H and W multiples of 8.
            trimap: two channels, 1 where background and 1 where foreground, float32 [N, 2, H, W].

        Returns:
            Alpha (1), foreground (3) and background (3) in [0, 1], float32 [N, 7, H, W].
        """
        return self.estimate(image, trimap, distance_features(trimap))

    def estimate(self, image: Tensor, trimap: Tensor, distances: Tensor) -> Tensor:
        """The same with the trimap's distance features, [N, 6, H, W], already known."""
        # The convolutions alone run in the weights' number format. Distances reach beyond float16, and a
        # fusion in bfloat16 would give an alpha of 8 bits another rounding error of its last one.
        dtype = self.encoder.conv1.weight.dtype
        normalised = normalise(image)
        features = self.encoder(torch.cat((normalised, distances, trimap), dim=1).to(dtype))
        scores = self.decoder(features, torch.cat((normalised, image, trimap), dim=1).to(dtype)).to(image.dtype)
        alpha = scores[:, :1].clamp(0, 1)
        return fuse(image, alpha, scores[:, 1:4].sigmoid(), scores[:, 4:].sigmoid())


def fuse(image: Tensor, alpha: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Bring the three estimates into agreement with the picture they explain (the paper's fusion).

    Args:
        image: RGB in [0, 1], [N, 3, H, W].
        alpha: [N, 1, H, W] in [0, 1].
        foreground: [N, 3, H, W] in [0, 1].
        background: [N, 3, H, W] in [0, 1].

    Returns:
        Alpha (1), foreground (3) and background (3) in [0, 1], [N, 7, H, W].
    """
    overlap = alpha * (1 - alpha)
    foreground = alpha * image + (1 - alpha**2) * foreground - overlap * background
    # The background's step takes the foreground just computed, not the network's, and before it is clamped.
    background = (1 - alpha) * image + (2 * alpha - alpha**2) * background - overlap * foreground
    foreground, background = foreground.clamp(0, 1), background.clamp(0, 1)
    difference = foreground - background
    explained = ((image - background) * difference).sum(dim=1, keepdim=True)
    alpha = (_FUSION_PRIOR * alpha + explained) / (difference.square().sum(dim=1, keepdim=True) + _FUSION_PRIOR)
    return torch.cat((alpha.clamp(0, 1), foreground, background), dim=1)


def _resize_like(x: Tensor, target: Tensor) -> Tensor:
    return F.interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=False)
