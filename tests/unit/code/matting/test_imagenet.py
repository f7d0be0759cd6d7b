from __future__ import annotations

import torch

from matting.imagenet import normalise


def test_normalises_each_channel_with_its_own_numbers() -> None:
    image = torch.tensor([0.485, 0.456 + 0.224, 0.406 - 0.225]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    expected = torch.tensor([0.0, 1.0, -1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    torch.testing.assert_close(normalise(image), expected)
