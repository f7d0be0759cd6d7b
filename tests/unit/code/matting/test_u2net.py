from __future__ import annotations

import pytest
import torch

from matting.u2net import RSU, VARIANTS, RSUSizes, U2Net


@pytest.mark.parametrize(("variant", "parameters"), [("full", 44_009_869), ("small", 1_131_181)])
def test_has_the_public_checkpoints_keys_and_parameters(variant: str, parameters: int) -> None:
    with torch.device("meta"):
        network = U2Net(variant)
    assert len(network.state_dict()) == 798
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("block", "keys"),
    [("stage1", 98), ("stage2d", 84), ("stage3", 70), ("stage4d", 56), ("stage6", 56), ("side3", 2)],
)
def test_each_block_has_its_share_of_the_keys(block: str, keys: int) -> None:
    with torch.device("meta"):
        network = U2Net("full")
    assert sum(key.startswith(f"{block}.") for key in network.state_dict()) == keys


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("stage1.rebnconvin.conv_s1.weight", (64, 3, 3, 3)),
        ("stage1.rebnconv7.conv_s1.weight", (32, 32, 3, 3)),
        ("stage4d.rebnconv1d.conv_s1.weight", (256, 256, 3, 3)),
        ("stage6.rebnconv4.bn_s1.running_mean", (256,)),
        ("side5.weight", (1, 512, 3, 3)),
        ("outconv.weight", (1, 6, 1, 1)),
    ],
)
def test_full_variant_has_the_public_shapes(key: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert U2Net("full").state_dict()[key].shape == shape


def test_three_channels_change_only_the_sides_and_the_fusion() -> None:
    with torch.device("meta"):
        one, three = U2Net("small", 1).state_dict(), U2Net("small", 3).state_dict()
    changed = {key.split(".")[0] for key in one if one[key].shape != three[key].shape}
    assert changed == {"side1", "side2", "side3", "side4", "side5", "side6", "outconv"}
    assert three["outconv.weight"].shape == (3, 18, 1, 1)


def test_gives_seven_maps_of_the_pictures_odd_size() -> None:
    network = U2Net("small", 3).eval()
    with torch.inference_mode():
        maps = network(torch.rand(2, 3, 75, 93))
    assert [tuple(map_.shape) for map_ in maps] == [(2, 3, 75, 93)] * 7


def test_fused_map_is_the_fusion_of_the_six_sides() -> None:
    network = U2Net("small").eval()
    with torch.inference_mode():
        fused, *sides = network(torch.rand(1, 3, 64, 64))
        torch.testing.assert_close(fused, network.outconv(torch.cat(sides, dim=1)))


def test_block_adds_its_input_unit() -> None:
    block = RSU(RSUSizes(4, 3, 4, 8)).eval()
    final = block.get_submodule("rebnconv1d.bn_s1")
    torch.nn.init.zeros_(final.get_parameter("weight"))
    x = torch.rand(1, 3, 33, 21)
    with torch.inference_mode():
        torch.testing.assert_close(block(x), block.rebnconvin(x))


def test_dilations_follow_the_paper() -> None:
    def dilations(sizes: RSUSizes) -> list[int]:
        block = RSU(sizes)
        names = [f"rebnconv{level}" for level in range(1, sizes.height + 1)]
        convs = [block.get_submodule(f"{name}.conv_s1") for name in names]
        return [conv.dilation[0] for conv in convs if isinstance(conv, torch.nn.Conv2d)]

    assert dilations(VARIANTS["small"][0]) == [1, 1, 1, 1, 1, 1, 2]
    assert dilations(VARIANTS["small"][5]) == [1, 2, 4, 8]


def test_training_pass_reaches_every_parameter() -> None:
    network = U2Net("small", 3).train()
    loss = torch.stack([map_.square().mean() for map_ in network(torch.rand(2, 3, 64, 64))]).sum()
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in gradients)
