"""U²-Net: the network of stage 1, from a 320 x 320 picture to saliency (one channel) or a trimap (three).

The modules' names give the state-dict keys of the public checkpoints `u2net.pth` and `u2netp.pth`. Runs in
the replica workers.

Source: Qin et al., "U²-Net: Going deeper with nested U-structure for salient object detection", 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class RSUSizes:
    """Sizes of a residual U-block: depth and channels; dilated blocks keep their resolution."""

    height: int
    in_channels: int
    mid_channels: int
    out_channels: int
    dilated: bool = False


# The blocks in the order of the data: six going down, five coming up (deepest first).
STAGES = (
    "stage1",
    "stage2",
    "stage3",
    "stage4",
    "stage5",
    "stage6",
    "stage5d",
    "stage4d",
    "stage3d",
    "stage2d",
    "stage1d",
)

VARIANTS: dict[str, tuple[RSUSizes, ...]] = {
    "full": (
        RSUSizes(7, 3, 32, 64),
        RSUSizes(6, 64, 32, 128),
        RSUSizes(5, 128, 64, 256),
        RSUSizes(4, 256, 128, 512),
        RSUSizes(4, 512, 256, 512, dilated=True),
        RSUSizes(4, 512, 256, 512, dilated=True),
        RSUSizes(4, 1024, 256, 512, dilated=True),
        RSUSizes(4, 1024, 128, 256),
        RSUSizes(5, 512, 64, 128),
        RSUSizes(6, 256, 32, 64),
        RSUSizes(7, 128, 16, 64),
    ),
    "small": (
        RSUSizes(7, 3, 16, 64),
        RSUSizes(6, 64, 16, 64),
        RSUSizes(5, 64, 16, 64),
        RSUSizes(4, 64, 16, 64),
        RSUSizes(4, 64, 16, 64, dilated=True),
        RSUSizes(4, 64, 16, 64, dilated=True),
        RSUSizes(4, 128, 16, 64, dilated=True),
        RSUSizes(4, 128, 16, 64),
        RSUSizes(5, 128, 16, 64),
        RSUSizes(6, 128, 16, 64),
        RSUSizes(7, 128, 16, 64),
    ),
}


def _upsample_like(x: Tensor, target: Tensor) -> Tensor:
    return F.interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=False)


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)


class ConvUnit(nn.Module):
    """3 x 3 convolution, batch normalisation, ReLU: [N, in, H, W] to [N, out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        """Build the unit; padding equals dilation, so that sizes stay."""
        super().__init__()
        self.conv_s1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit to [N, in, H, W]."""
        return F.relu(self.bn_s1(self.conv_s1(x)), inplace=not self.training)


class RSU(nn.Module):
    """Residual U-block: a small encoder and decoder, added to its own input unit. Any H and W."""

    def __init__(self, sizes: RSUSizes) -> None:
        """Build the units: `rebnconvin`, down to `rebnconvL` at the bottom, and up from `rebnconv{L-1}d`."""
        super().__init__()
        self.sizes = sizes
        mid, out = sizes.mid_channels, sizes.out_channels
        self.rebnconvin = ConvUnit(sizes.in_channels, out)
        for level in range(1, sizes.height):
            dilation = 2 ** (level - 1) if sizes.dilated else 1
            self.add_module(f"rebnconv{level}", ConvUnit(out if level == 1 else mid, mid, dilation))
            self.add_module(f"rebnconv{level}d", ConvUnit(2 * mid, out if level == 1 else mid, dilation))
        bottom_dilation = 2 ** (sizes.height - 1) if sizes.dilated else 2
        self.add_module(f"rebnconv{sizes.height}", ConvUnit(mid, mid, bottom_dilation))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: [N, in, H, W] to [N, out, H, W]."""
        residual: Tensor = self.rebnconvin(x)
        h, skips, height = residual, [], self.sizes.height
        for level in range(1, height):
            # The bottom unit works at the last level's resolution: there is one pooling less than there are
            # levels.
            h = self.get_submodule(f"rebnconv{level}")(h if level == 1 or self.sizes.dilated else _pool(h))
            skips.append(h)
        h = self.get_submodule(f"rebnconv{height}")(h)
        for level in range(height - 1, 0, -1):
            skip = skips[level - 1]
            if h.shape[-2:] != skip.shape[-2:]:
                h = _upsample_like(h, skip)
            h = self.get_submodule(f"rebnconv{level}d")(torch.cat((h, skip), dim=1))
        total: Tensor = h + residual
        return total


class U2Net(nn.Module):
    """The whole network: six blocks down, five up, a side map from each level, and their fusion."""

    def __init__(self, variant: str = "full", out_channels: int = 1) -> None:
        """Build a network with fresh weights.

        Args:
            variant: a key of `VARIANTS`: `full` (44 million parameters) or `small` (1.1 million).
            out_channels: 1 for saliency, 3 for a trimap (background, unknown, foreground).
        """
        super().__init__()
        self.variant = variant
        self.out_channels = out_channels
        sizes = dict(zip(STAGES, VARIANTS[variant], strict=True))
        for name, block in sizes.items():
            self.add_module(name, RSU(block))
        for level, name in enumerate(("stage1d", "stage2d", "stage3d", "stage4d", "stage5d", "stage6"), start=1):
            self.add_module(f"side{level}", nn.Conv2d(sizes[name].out_channels, out_channels, kernel_size=3, padding=1))
        self.outconv = nn.Conv2d(6 * out_channels, out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the fused map and the six side maps, as logits.

        Serving uses the first alone, training all seven.

        Args:
            image: normalised RGB, float [N, 3, H, W]; any H and W.

        Returns:
            Seven tensors [N, out_channels, H, W], the fused one first. `sigmoid` of them is what the paper
            draws.
        """
        encoded: list[Tensor] = []
        h = image
        for level in range(1, 7):
            h = self.get_submodule(f"stage{level}")(h if level == 1 else _pool(h))
            encoded.append(h)
        decoded = {6: h}
        for level in range(5, 0, -1):
            skip = encoded[level - 1]
            h = self.get_submodule(f"stage{level}d")(torch.cat((_upsample_like(h, skip), skip), dim=1))
            decoded[level] = h
        sides = [self.get_submodule(f"side{level}")(decoded[level]) for level in range(1, 7)]
        sides = [sides[0], *(_upsample_like(side, sides[0]) for side in sides[1:])]
        return (self.outconv(torch.cat(sides, dim=1)), *sides)
