from __future__ import annotations

import pytest
import torch

from matting.fba import FBA, VARIANTS, fuse


def test_has_the_public_checkpoints_keys_and_parameters() -> None:
    with torch.device("meta"):
        network = FBA("full")
    assert len(network.state_dict()) == 197
    assert sum(parameter.numel() for parameter in network.parameters()) == 34_693_031


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("encoder.conv1.weight", (64, 11, 7, 7)),
        ("encoder.bn1.bias", (64,)),
        ("encoder.layer3.5.conv2.weight", (256, 256, 3, 3)),
        ("encoder.layer4.0.downsample.0.weight", (2048, 1024, 1, 1)),
        ("encoder.layer4.0.downsample.1.weight", (2048,)),
        ("decoder.ppm.3.1.weight", (256, 2048, 1, 1)),
        ("decoder.ppm.0.1.bias", (256,)),
        ("decoder.ppm.0.2.weight", (256,)),
        ("decoder.conv_up1.0.weight", (256, 3072, 3, 3)),
        ("decoder.conv_up1.3.bias", (256,)),
        ("decoder.conv_up1.4.weight", (256,)),
        ("decoder.conv_up2.0.weight", (256, 512, 3, 3)),
        ("decoder.conv_up3.0.weight", (64, 320, 3, 3)),
        ("decoder.conv_up4.0.weight", (32, 72, 3, 3)),
        ("decoder.conv_up4.2.weight", (16, 32, 3, 3)),
        ("decoder.conv_up4.4.weight", (7, 16, 1, 1)),
    ],
)
def test_full_variant_has_the_public_shapes(key: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert FBA("full").state_dict()[key].shape == shape


def test_gives_seven_channels_between_zero_and_one() -> None:
    trimap = torch.zeros(2, 2, 48, 40)
    trimap[:, 0, :8] = 1
    trimap[:, 1, 40:] = 1
    with torch.inference_mode():
        result = FBA("small").eval()(torch.rand(2, 3, 48, 40), trimap)
    assert result.shape == (2, 7, 48, 40)
    assert result.min() >= 0
    assert result.max() <= 1


def test_variants_tell_apart_by_their_stem() -> None:
    assert len({sizes.stem for sizes in VARIANTS.values()}) == len(VARIANTS)


def colours(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def test_fusion_by_hand() -> None:
    alpha = torch.full((1, 1, 1, 1), 0.5)
    # F = 0.5 * 0.6 + 0.75 * 0.8 - 0.25 * 0.2 = 0.85
    # B = 0.5 * 0.6 + 0.75 * 0.2 - 0.25 * 0.85 = 0.2375 (the new F)
    # alpha = (0.1 * 0.5 + 3 * 0.3625 * 0.6125) / (3 * 0.6125² + 0.1)
    result = fuse(colours(0.6, 0.6, 0.6), alpha, colours(0.8, 0.8, 0.8), colours(0.2, 0.2, 0.2)).flatten()
    torch.testing.assert_close(result[1:4], torch.full((3,), 0.85))
    torch.testing.assert_close(result[4:], torch.full((3,), 0.2375))
    expected = (0.05 + 3 * 0.3625 * 0.6125) / (3 * 0.6125**2 + 0.1)
    torch.testing.assert_close(result[0], torch.tensor(expected))


def test_fusion_takes_the_picture_for_the_foreground_where_alpha_is_one() -> None:
    result = fuse(colours(0.1, 0.5, 0.9), torch.ones(1, 1, 1, 1), colours(0.3, 0.3, 0.3), colours(0.7, 0.7, 0.7))
    torch.testing.assert_close(result[:, 1:4], colours(0.1, 0.5, 0.9))


def test_fusion_clamps() -> None:
    result = fuse(colours(1, 1, 1), torch.full((1, 1, 1, 1), 0.5), colours(1, 1, 1), colours(0, 0, 0))
    assert result[:, 1:4].max() == 1
