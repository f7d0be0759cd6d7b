"""The encoder of FBA matting: a ResNet with group normalisation and output stride 8.

Its convolutions are plain: the weight standardisation they were trained under is done once, at load (see
`weights`). Runs in the replica workers.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4


class Bottleneck(nn.Module):
    """Convolutions 1 x 1, 3 x 3, 1 x 1 and a shortcut: [N, in, H, W] to [N, 4 * planes, H/s, W/s]."""

    def __init__(self, in_channels: int, planes: int, *, stride: int, dilation: int, groups: int, first: bool) -> None:
        """Build the block; a layer's first has a convolution in its shortcut and the layer's stride."""
        super().__init__()
        out_channels = planes * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, planes, kernel_size=1, bias=False)
        self.bn1 = nn.GroupNorm(groups, planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.GroupNorm(groups, planes)
        self.conv3 = nn.Conv2d(planes, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.GroupNorm(groups, out_channels)
        self.downsample: nn.Sequential | None = None
        if first:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.GroupNorm(groups, out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to [N, in, H, W]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        return F.relu(self.bn3(self.conv3(h)) + shortcut)


class ResNet(nn.Module):
    """The encoder: every layer's output, for a decoder that goes back up to the full size."""

    def __init__(self, in_channels: int, stem: int, planes: tuple[int, ...], blocks: tuple[int, ...], groups: int) -> None:
        """Build four layers of bottleneck blocks behind a 7 x 7 stem.

        Args:
            in_channels: channels of the input.
            stem: channels after the stem.
            planes: inner width of the blocks of the four layers; their output has four times as many
                channels.
            blocks: number of blocks in each of the four layers.
            groups: groups of every normalisation.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, stem, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.GroupNorm(groups, stem)
        channels = stem
        # Layers 3 and 4 dilate instead of striding; their first block still has the dilation of the layer
        # before.
        for layer, (stride, first_dilation, dilation) in enumerate(((1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4))):
            layer_blocks = []
            for index in range(blocks[layer]):
                first = index == 0
                layer_blocks.append(
                    Bottleneck(
                        channels,
                        planes[layer],
                        stride=stride if first else 1,
                        dilation=first_dilation if first else dilation,
                        groups=groups,
                        first=first,
                    )
                )
                channels = planes[layer] * EXPANSION
            self.add_module(f"layer{layer + 1}", nn.Sequential(*layer_blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Encode [N, in, H, W].

        Returns:
            The stem's output at 1/2 of the size, then the four layers' at 1/4, 1/8, 1/8 and 1/8.
        """
        features = [F.relu(self.bn1(self.conv1(x)))]
        h = F.max_pool2d(features[0], kernel_size=3, stride=2, padding=1)
        for layer in range(1, 5):
            h = self.get_submodule(f"layer{layer}")(h)
            features.append(h)
        return features
