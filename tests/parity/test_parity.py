from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matting.distance import distance_features, squared_distance_exact, squared_distance_windowed
from matting.fba import FBA, fuse
from matting.u2net import U2Net
from parity import cases
from parity.cases import FBA_SIZES, U2NET_CASES, U2NetCase

U2NET_GOLDEN = cases.read_golden("u2net")
FBA_GOLDEN = cases.read_golden("fba")


@dataclass
class Networks:
    """Our networks under the seeded weights, each made when it is first asked for."""

    u2nets: dict[tuple[str, int], U2Net] = field(default_factory=dict)
    fbas: dict[torch.dtype, FBA] = field(default_factory=dict)

    def u2net(self, case: U2NetCase) -> U2Net:
        key = case.variant, case.channels
        if key not in self.u2nets:
            with torch.device("meta"):
                shapes = U2Net(*key)
            self.u2nets[key] = cases.load_u2net(cases.seeded_state(shapes))
        return self.u2nets[key]

    def fba(self, dtype: torch.dtype) -> FBA:
        if not self.fbas:
            with torch.device("meta"):
                shapes = FBA()
            state = cases.seeded_state(shapes)
            self.fbas = {torch.float32: cases.load_fba(state), torch.float64: cases.exact_fba(state)}
        return self.fbas[dtype]


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    # Threads that wait for one another in turns lose more on cores that are busy than they gain on maps as small as these.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Networks()
    torch.set_num_threads(threads)


def u2net_difference(network: U2Net, case: U2NetCase) -> float:
    found = cases.u2net_maps(network, case.height, case.width)
    return cases.largest_difference(cases.sample(found), U2NET_GOLDEN[case.name])


def fba_difference(network: FBA, size: tuple[int, int]) -> float:
    found = cases.fba_estimate(network, *size)
    return cases.largest_difference(cases.sample(found), FBA_GOLDEN[f"estimate {size[0]}x{size[1]}"])


@pytest.mark.parametrize("case", U2NET_CASES, ids=lambda case: case.name)
def test_u2net_gives_the_published_maps(networks: Networks, case: U2NetCase) -> None:
    assert u2net_difference(networks.u2net(case), case) <= cases.U2NET_TOLERANCE


@pytest.mark.parametrize("case", U2NET_CASES[:3], ids=lambda case: case.name)
def test_u2net_gives_them_in_float64_but_for_their_last_digits(networks: Networks, case: U2NetCase) -> None:
    assert u2net_difference(copy.deepcopy(networks.u2net(case)).double(), case) <= cases.GOLDEN_TOLERANCE


@pytest.mark.parametrize("size", FBA_SIZES)
def test_fba_gives_the_published_estimates(networks: Networks, size: tuple[int, int]) -> None:
    assert fba_difference(networks.fba(torch.float32), size) <= cases.FBA_TOLERANCE


@pytest.mark.parametrize("size", FBA_SIZES)
def test_fba_gives_them_in_float64_but_for_their_last_digits(networks: Networks, size: tuple[int, int]) -> None:
    assert fba_difference(networks.fba(torch.float64), size) <= cases.GOLDEN_TOLERANCE


@pytest.mark.parametrize("distance", [squared_distance_exact, squared_distance_windowed])
@pytest.mark.parametrize(("size", "foreground"), [((64, 64), True), ((72, 56), True), ((64, 64), False)])
def test_distance_features_are_the_published_ones(
    distance: object, size: tuple[int, int], foreground: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matting.distance.squared_distance_exact", distance)
    _, trimap = cases.fba_input(*size, foreground=foreground)
    expected = FBA_GOLDEN[f"features{'' if foreground else ', no foreground'} {size[0]}x{size[1]}"]
    assert cases.largest_difference(cases.sample(distance_features(trimap)), expected) <= cases.FEATURE_TOLERANCE


def test_fusion_is_the_published_one() -> None:
    image, alpha, foreground, background = cases.fusion_input()
    found = fuse(image, alpha, foreground, background)
    assert cases.largest_difference(found, FBA_GOLDEN["fusion"]) <= cases.FEATURE_TOLERANCE


def test_every_golden_map_says_something() -> None:
    maps = [map_ for maps in U2NET_GOLDEN.values() for map_ in maps.flatten(0, 1)]
    maps += [map_ for key in FBA_GOLDEN if key.startswith("estimate") for map_ in FBA_GOLDEN[key][0]]
    assert len(maps) == 7 * (1 + 3 + 1 + 1) + 2 * 7
    for map_ in maps:
        assert map_.std() > 0.01
        # Beyond these a sigmoid or a clamp would hide a difference.
        assert ((map_ > 0.01) & (map_ < 0.99)).float().mean() > 0.5


# Faults of the kinds that keys and shapes cannot show: the tests above would notice each, on whatever CPU.
NOTICED = 5  # times the tolerance, at least


def dilate(network: nn.Module, name: str, dilation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    conv = network.get_submodule(name)
    monkeypatch.setattr(conv, "dilation", (dilation, dilation))
    monkeypatch.setattr(conv, "padding", (dilation, dilation))


def set_all(network: nn.Module, kind: type[nn.Module], name: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in network.modules():
        if isinstance(module, kind):
            monkeypatch.setattr(module, name, value)


def swap_pairs(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchange the halves where two tensors are joined to one of so many channels."""
    join = torch.cat

    def swapped(tensors: tuple[Tensor, ...], dim: int = 0) -> Tensor:
        pair = len(tensors) == 2 and sum(tensor.shape[1] for tensor in tensors) == channels
        return join(tensors[::-1] if pair else tensors, dim=dim)

    monkeypatch.setattr(torch, "cat", swapped)


def with_options(function: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    original: Callable[..., Tensor] = getattr(F, function)
    monkeypatch.setattr(F, function, lambda *args, **kwargs: original(*args, **{**kwargs, **options}))


def without_residual(network: U2Net, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = network.get_submodule("stage6.rebnconvin.bn_s1")
    for name in ("weight", "bias"):
        monkeypatch.setattr(unit.get_parameter(name), "data", torch.zeros(64))


U2NET_FAULTS: dict[str, Callable[[U2Net, pytest.MonkeyPatch], None]] = {
    "bottom of a block not dilated": lambda network, patch: dilate(network, "stage2.rebnconv6.conv_s1", 1, patch),
    "dilation of a dilated block": lambda network, patch: dilate(network, "stage5.rebnconv3.conv_s1", 2, patch),
    "dilation of the deepest block's bottom": lambda network, patch: dilate(network, "stage6.rebnconv4.conv_s1", 4, patch),
    "dilation on the way up": lambda network, patch: dilate(network, "stage5d.rebnconv2d.conv_s1", 1, patch),
    "skip first in a block": lambda _, patch: swap_pairs(32, patch),
    "skip first between blocks": lambda _, patch: swap_pairs(128, patch),
    "corners aligned": lambda _, patch: with_options("interpolate", patch, align_corners=True),
    "nearest instead of bilinear": lambda _, patch: with_options("interpolate", patch, mode="nearest", align_corners=None),
    "larger constant in the normalisation": lambda network, patch: set_all(network, nn.BatchNorm2d, "eps", 1e-3, patch),
    "block without its residual": without_residual,
}


@pytest.mark.parametrize("fault", U2NET_FAULTS)
def test_fault_in_u2net_is_noticed(networks: Networks, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = U2NetCase("small", 1, 289, 33)
    U2NET_FAULTS[fault](networks.u2net(case), monkeypatch)
    assert u2net_difference(networks.u2net(case), case) > NOTICED * cases.U2NET_TOLERANCE


def swapped_features(_: FBA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matting.fba.distance_features", lambda trimap: distance_features(trimap.flip(1)))


def later_standardisation(network: FBA, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the newest published code: biased variance, the small constant under the root."""
    for key, weight in cases.seeded_state(network).items():
        if weight.ndim == 4 and not key.startswith("decoder.conv_up4."):
            rows = weight.flatten(1)
            rows = (rows - rows.mean(dim=1, keepdim=True)) / (rows.var(dim=1, keepdim=True, unbiased=False) + 1e-5).sqrt()
            monkeypatch.setattr(network.get_parameter(key), "data", rows.view_as(weight))


def fusion_by_the_networks_foreground(_: FBA, monkeypatch: pytest.MonkeyPatch) -> None:
    def fused(image: Tensor, alpha: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
        estimate = fuse(image, alpha, foreground, background)
        background = (1 - alpha) * image + (2 * alpha - alpha**2) * background - alpha * (1 - alpha) * foreground
        return torch.cat((estimate[:, :4], background.clamp(0, 1)), dim=1)

    monkeypatch.setattr("matting.fba.fuse", fused)


FBA_FAULTS: dict[str, Callable[[FBA, pytest.MonkeyPatch], None]] = {
    "dilation of the last layer": lambda network, patch: dilate(network, "encoder.layer4.1.conv2", 2, patch),
    "dilation of a layer's first block": lambda network, patch: dilate(network, "encoder.layer4.0.conv2", 4, patch),
    "another formula of standardisation": later_standardisation,
    "foreground's features first": swapped_features,
    "skip first": lambda _, patch: swap_pairs(512, patch),
    "another leak": lambda network, patch: set_all(network, nn.LeakyReLU, "negative_slope", 0.02, patch),
    "corners aligned": lambda _, patch: with_options("interpolate", patch, align_corners=True),
    "fusion by the network's foreground": fusion_by_the_networks_foreground,
}


@pytest.mark.parametrize("fault", FBA_FAULTS)
def test_fault_in_fba_is_noticed(networks: Networks, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks.fba(torch.float32)
    FBA_FAULTS[fault](network, monkeypatch)
    assert fba_difference(network, FBA_SIZES[1]) > NOTICED * cases.FBA_TOLERANCE
