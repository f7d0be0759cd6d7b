from __future__ import annotations

import torch

from matting.resnet import ResNet


def small_encoder() -> ResNet:
    return ResNet(11, stem=8, planes=(4, 8, 8, 8), blocks=(1, 2, 3, 3), groups=4)


def test_output_stride_is_eight() -> None:
    with torch.inference_mode():
        features = small_encoder()(torch.rand(1, 11, 64, 80))
    sizes = [tuple(feature.shape[1:]) for feature in features]
    assert sizes == [(8, 32, 40), (16, 16, 20), (32, 8, 10), (32, 8, 10), (32, 8, 10)]


def test_dilations_of_the_last_layers() -> None:
    encoder = small_encoder()
    for layer, expected in (("layer3", [1, 2, 2]), ("layer4", [2, 4, 4])):
        convs = [block.get_submodule("conv2") for block in encoder.get_submodule(layer).children()]
        assert [conv.dilation[0] for conv in convs if isinstance(conv, torch.nn.Conv2d)] == expected
        assert [conv.padding[0] for conv in convs if isinstance(conv, torch.nn.Conv2d)] == expected


def test_stride_is_on_the_three_by_three_convolution_and_the_shortcut() -> None:
    block = small_encoder().get_submodule("layer2.0")
    strides = {name: module.stride[0] for name, module in block.named_modules() if isinstance(module, torch.nn.Conv2d)}
    assert strides == {"conv1": 1, "conv2": 2, "conv3": 1, "downsample.0": 2}
