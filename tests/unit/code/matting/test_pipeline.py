from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from make_weights import random_matting_network
from matting.distance import squared_distance_windowed
from matting.fba import FBA
from matting.pipeline import (
    BATCH_PIXELS,
    Matte,
    MattingStage,
    Trimapped,
    TrimapStage,
    load_pipeline_stages,
    pad_to_multiple,
    working_size,
)
from matting.u2net import U2Net
from multigpu_inference.config import AccelerationSettings

CPU = torch.device("cpu")


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)


def trimap_of_thirds(height: int, width: int) -> Tensor:
    columns = torch.arange(width) * 3 // width
    return (columns * 128).clamp(max=255).to(torch.uint8).expand(height, width).contiguous()


@pytest.fixture(scope="module")
def trimap_stage() -> TrimapStage:
    torch.manual_seed(1)
    return TrimapStage(U2Net("small", 3), CPU)


@pytest.fixture(scope="module")
def matting_stage() -> MattingStage:
    torch.manual_seed(1)
    return MattingStage(FBA("small"), CPU)


@pytest.mark.parametrize(("height", "width"), [(61, 43), (64, 48), (7, 5), (1, 1), (3, 90)])
def test_stages_end_to_end(trimap_stage: TrimapStage, matting_stage: MattingStage, height: int, width: int) -> None:
    (trimapped,) = trimap_stage([picture(height, width)])
    (matte,) = matting_stage([trimapped])
    assert trimapped.trimap.shape == (height, width)
    assert set(trimapped.trimap.flatten().tolist()) <= {0, 128, 255}
    assert (matte.alpha.shape, matte.alpha.dtype) == ((height, width), torch.uint8)
    assert (matte.foreground.shape, matte.foreground.dtype) == ((height, width, 3), torch.uint8)
    assert torch.equal(matte.trimap, trimapped.trimap)


def test_stages_have_a_device_and_a_batch_size(trimap_stage: TrimapStage, matting_stage: MattingStage) -> None:
    assert (trimap_stage.device, trimap_stage.max_batch_size) == (CPU, 1)
    assert (matting_stage.device, matting_stage.max_batch_size) == (CPU, 1)


def test_trimaps_of_a_batch_are_those_of_single_pictures(trimap_stage: TrimapStage) -> None:
    pictures = [picture(40, 56, 1), picture(90, 30, 2), picture(64, 64, 3)]
    assert len({trimap_stage.batch_key(item) for item in pictures}) == 1
    together = trimap_stage(pictures)
    assert torch.equal(together[0].image, pictures[0])
    for one, both in zip((trimap_stage([item])[0] for item in pictures), together, strict=True):
        assert (one.trimap == both.trimap).float().mean() >= 0.99


@pytest.mark.parametrize(
    ("sizes", "max_pixels"),
    [
        ([(61, 83), (64, 88), (57, 81)], 0),  # all 64 x 88 once padded
        ([(64, 88), (64, 88)], 0),
        ([(300, 404), (301, 400)], 10_000),  # matted reduced, at 80 x 112
    ],
)
def test_mattes_of_a_batch_are_those_of_single_pictures(sizes: list[tuple[int, int]], max_pixels: int) -> None:
    stage = MattingStage(random_matting_network(), CPU, max_pixels, max_batch_size=8)
    items = [Trimapped(picture(*size, seed), trimap_of_thirds(*size)) for seed, size in enumerate(sizes)]
    assert len({stage.batch_key(item) for item in items}) == 1
    for item, both in zip(items, stage(items), strict=True):
        (one,) = stage([item])
        assert both.alpha.shape == item.trimap.shape
        for a, b in zip(one, both, strict=True):
            assert ((a.int() - b.int()).abs() <= 1).float().mean() >= 0.99


def test_a_batch_of_mattes_is_one_call_of_the_network() -> None:
    batches = []

    class Watched(FBA):
        def forward(self, image: Tensor, trimap: Tensor) -> Tensor:
            batches.append(tuple(image.shape))
            return super().forward(image, trimap)

    items = [Trimapped(picture(height, 20), trimap_of_thirds(height, 20)) for height in (17, 20, 24)]
    MattingStage(Watched("small"), CPU, max_batch_size=4)(items)
    assert batches == [(3, 3, 24, 24)]


@pytest.mark.parametrize(
    ("size", "key"), [((61, 83), (64, 88)), ((64, 88), (64, 88)), ((1, 9), (8, 16)), ((300, 400), (80, 112))]
)
def test_pictures_share_a_batch_by_the_size_that_the_network_sees(size: tuple[int, int], key: tuple[int, int]) -> None:
    stage = MattingStage(FBA("small"), CPU, max_pixels=10_000)
    assert stage.batch_key(Trimapped(picture(*size), trimap_of_thirds(*size))) == key


@pytest.mark.parametrize(
    ("key", "limit"), [((8, 8), 6), ((512, 512), 6), ((1024, 1024), 2), ((1024, 1032), 1), ((4000, 4000), 1)]
)
def test_a_batch_of_mattes_is_bounded_by_its_pixels(key: tuple[int, int], limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BATCH_PIXELS, "cpu", 2 * 1024 * 1024)
    assert MattingStage(FBA("small"), CPU, max_batch_size=6).batch_limit(key) == limit


def test_a_gpus_batch_takes_five_pictures_of_1024_by_768() -> None:
    assert BATCH_PIXELS["cuda"] // (1024 * 768) == 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_changes_a_matte_little(dtype: str) -> None:
    item = Trimapped(picture(64, 96), trimap_of_thirds(64, 96))
    plain, half = (
        MattingStage(random_matting_network(), CPU, settings=AccelerationSettings(name, None, False, False))([item])[0]
        for name in ("float32", dtype)
    )
    difference = (plain.alpha.int() - half.alpha.int()).abs()
    assert difference.sum() > 0
    assert (difference <= 4).float().mean() >= 0.99


def test_number_format_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_DTYPE", "bfloat16")
    network = FBA("small")
    MattingStage(network, CPU)
    assert network.encoder.conv1.weight.dtype == torch.bfloat16


# A tensor's value asked for; places counted by value; a tensor made of Python's lists; a tensor or a list as an index.
WAITING = {"item", "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "lift_fresh", "index"}


class Dispatched(TorchDispatchMode):
    """The names of all operations that torch carries out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("channels", [1, 3])
def test_stages_do_nothing_that_would_wait_for_a_gpu(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matting.distance.squared_distance_exact", squared_distance_windowed)
    pictures = [picture(60, 90, 1), picture(64, 96, 2)]
    first = TrimapStage(U2Net("small", channels), CPU, max_batch_size=2)
    second = MattingStage(FBA("small"), CPU, max_pixels=4000, max_batch_size=2)
    with Dispatched() as dispatched:
        second(first(pictures))
    assert {"conv2d", "cat"} <= dispatched.names
    assert not dispatched.names & WAITING


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x[[0, 1]],
        lambda x: torch.tensor([1, 2]),
        lambda x: x.nonzero(),
        lambda x: x.unique(),
    ],
)
def test_what_would_wait_is_seen(work: Callable[[Tensor], object]) -> None:
    with torch.inference_mode(), Dispatched() as dispatched:
        work(torch.ones(3))
    assert dispatched.names & WAITING


def test_stages_can_be_imported_where_there_is_only_torch() -> None:
    """As in a GPU benchmark: torch, NumPy and Pillow alone."""
    script = (
        "import sys\n"
        "for name in ('scipy', 'safetensors', 'requests', 'urllib3'): sys.modules[name] = None\n"
        "import matting.pipeline\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], env=environ, check=True)


def test_nothing_in_nothing_out(trimap_stage: TrimapStage, matting_stage: MattingStage) -> None:
    assert trimap_stage([]) == []
    assert matting_stage([]) == []


def test_black_picture_gives_a_trimap(trimap_stage: TrimapStage) -> None:
    (trimapped,) = trimap_stage([torch.zeros(20, 30, 3, dtype=torch.uint8)])
    assert trimapped.trimap.shape == (20, 30)


class Saliency(U2Net):
    """Draws one map, whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__("small", 1)
        self.logits = logits

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.logits.expand(len(image), 1, *self.logits.shape),)


def test_one_channel_is_stretched_and_drawn_as_a_trimap() -> None:
    logits = torch.full((320, 320), -1.0)
    logits[100:220, 100:220] = 0.2  # its sigmoid is 0.55: an object only once stretched to 1
    (trimapped,) = TrimapStage(Saliency(logits), CPU)([picture(320, 320)])
    trimap = trimapped.trimap
    assert trimap[160, [0, 60, 71, 99, 103, 106, 160]].tolist() == [0, 0, 128, 128, 128, 255, 255]


def test_flat_saliency_is_background() -> None:
    (trimapped,) = TrimapStage(Saliency(torch.zeros(320, 320)), CPU)([picture(33, 47)])
    assert trimapped.trimap.max() == 0


def test_known_pixels_keep_their_alpha_and_colours(matting_stage: MattingStage) -> None:
    image, trimap = picture(45, 60), trimap_of_thirds(45, 60)
    (matte,) = matting_stage([Trimapped(image, trimap)])
    assert matte.alpha[trimap == 0].max() == 0
    assert matte.alpha[trimap == 255].min() == 255
    assert torch.equal(matte.foreground[trimap == 255], image[trimap == 255])


def test_multiple_of_eight_is_the_network_and_its_fusion_alone() -> None:
    torch.manual_seed(2)
    network = FBA("small").eval()
    image, trimap = picture(48, 64), torch.full((48, 64), 128, dtype=torch.uint8)
    trimap[0, 0] = 0
    with torch.inference_mode():
        known = torch.stack((trimap == 0, trimap == 255)).float()[None]
        expected = network(image.permute(2, 0, 1)[None] / 255, known)[0, 0]
    (matte,) = MattingStage(network, CPU)([Trimapped(image, trimap)])
    unknown = trimap == 128
    torch.testing.assert_close(matte.alpha[unknown].float(), expected[unknown] * 255, atol=0.51, rtol=0)


def test_large_picture_is_matted_reduced_and_given_back_at_its_size() -> None:
    sizes = []

    class Watched(FBA):
        def forward(self, image: Tensor, trimap: Tensor) -> Tensor:
            sizes.append(tuple(image.shape[-2:]))
            return super().forward(image, trimap)

    image, trimap = picture(150, 201), trimap_of_thirds(150, 201)
    (matte,) = MattingStage(Watched("small"), CPU, max_pixels=8000)([Trimapped(image, trimap)])
    assert sizes == [(72, 96)]
    assert matte.alpha.shape == (150, 201)
    assert torch.equal(matte.foreground[trimap == 255], image[trimap == 255])


@pytest.mark.parametrize(
    ("size", "max_pixels", "expected"),
    [
        ((1000, 1000), 0, (1000, 1000)),
        ((768, 1024), 1_050_000, (768, 1024)),
        ((1024, 1024), 1024 * 1024, (1024, 1024)),
        ((1023, 1025), 1024 * 1024, (1016, 1024)),
        ((3000, 4000), 1_000_000, (864, 1152)),
        ((1, 1_000_000), 1_000_000, (8, 125_000)),
        ((1_000_000, 1), 1_000_000, (125_000, 8)),
    ],
)
def test_working_size(size: tuple[int, int], max_pixels: int, expected: tuple[int, int]) -> None:
    assert working_size(size, max_pixels) == expected


def test_padding_reflects_at_the_bottom_and_the_right() -> None:
    x = torch.rand(2, 3, 13, 21)
    expected = torch.nn.functional.pad(x, (0, 3, 0, 3), mode="reflect")
    assert torch.equal(pad_to_multiple(x, 8), expected)


def test_multiple_is_not_padded() -> None:
    x = torch.rand(1, 3, 16, 24)
    assert pad_to_multiple(x, 8) is x


def test_padding_goes_back_and_forth_over_a_tiny_picture() -> None:
    x = torch.arange(3.0).view(1, 1, 1, 3)
    assert pad_to_multiple(x, 8)[0, 0, 5].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]


def test_loads_both_stages_of_a_model_folder(tmp_path: Path) -> None:
    save_file(U2Net("small", 3).state_dict(), tmp_path / "checkpoint.safetensors")
    save_file(FBA("small").state_dict(), tmp_path / "checkpoint_2.safetensors")
    first, second = load_pipeline_stages(tmp_path, ["cpu", "cpu"], max_pixels=5000, max_batch_size=4)
    assert isinstance(first, TrimapStage)
    assert isinstance(second, MattingStage)
    assert (first.max_batch_size, second.max_batch_size, second.max_pixels) == (4, 4, 5000)
    assert isinstance(second(first([picture(90, 70)]))[0], Matte)


def test_results_are_ordinary_tensors_to_send(trimap_stage: TrimapStage, matting_stage: MattingStage) -> None:
    (matte,) = matting_stage(trimap_stage([picture(20, 20)]))
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in matte)
