"""The colour normalisation that both networks were trained with. Runs on the stage's device."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(image: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation, per channel.

    Args:
        image: RGB in [0, 1], float [N, 3, H, W].

    Returns:
        The normalised image, same shape, device and type.
    """
    # Python numbers instead of a tensor of three: no copy to the device, no buffer that a state dict must
    # not have.
    channels = zip(image.unbind(1), MEAN, STD, strict=True)
    return torch.stack([(channel - mean) / std for channel, mean, std in channels], dim=1)
