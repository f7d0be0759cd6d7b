"""The matting stages on a GPU: the pipelined way gives what the serial way gives, and nothing in a stage waits."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from bench.gpu_setup import FLOAT32, Setup
from matting.pipeline import Matte, MattingStage, Trimapped, TrimapStage
from multigpu_inference import Pipeline

pytestmark = pytest.mark.usefixtures("exact")

SIZES = [(256, 320), (250, 313), (249, 320), (256, 314)]  # all 256 x 320 once padded


@pytest.fixture(scope="module")
def stages() -> tuple[TrimapStage, MattingStage]:
    return Setup.make("cuda", quick=True).stages(FLOAT32, 4)


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    return [picture[:h, :w].contiguous() for picture, (h, w) in zip(Setup.make("cuda", True).pictures(4), SIZES, strict=True)]


@pytest.fixture
def no_waiting() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def serial(stages: tuple[TrimapStage, MattingStage], picture: Tensor) -> Matte:
    (matte,) = stages[1](stages[0]([picture]))
    return matte


def same_within_one(a: Tensor, b: Tensor) -> float:
    return ((a.int() - b.int()).abs() <= 1).float().mean().item()


def test_pipelined_is_serial_to_the_bit_at_batch_1(stages: tuple[TrimapStage, MattingStage], pictures: list[Tensor]) -> None:
    expected = [serial(stages, picture) for picture in pictures]
    pipeline = Pipeline(stages, max_batch_size=1)
    with ThreadPoolExecutor(4) as threads:
        for round_ in threads.map(lambda _: [pipeline(picture) for picture in pictures], range(4)):
            for matte, same in zip(round_, expected, strict=True):
                assert torch.equal(matte.alpha, same.alpha)
                assert torch.equal(matte.foreground, same.foreground)


def test_batched_differs_by_rounding(stages: tuple[TrimapStage, MattingStage], pictures: list[Tensor]) -> None:
    trimapped = [stages[0]([picture])[0] for picture in pictures]
    for alone, together in zip(trimapped, stages[0](pictures), strict=True):
        assert (alone.trimap == together.trimap).float().mean() >= 0.99
    assert len({stages[1].batch_key(item) for item in trimapped}) == 1
    for item, both in zip(trimapped, stages[1](trimapped), strict=True):
        (one,) = stages[1]([item])
        assert same_within_one(one.alpha, both.alpha) >= 0.99
        assert same_within_one(one.foreground, both.foreground) >= 0.99


def test_the_gpu_gives_what_the_cpu_gives() -> None:
    pytest.importorskip("scipy")  # the CPU's distances
    setup = Setup.make("cuda", quick=True)
    here, there = (MattingStage(setup.matting_network(), torch.device(name), 0, 1) for name in ("cpu", "cuda"))
    image = setup.pictures(1, pinned=False)[0][:128, :160].contiguous()
    trimap = (torch.arange(160) * 3 // 160 * 128).clamp(max=255).to(torch.uint8).expand(128, 160).contiguous()
    (a,), (b,) = here([Trimapped(image, trimap)]), there([Trimapped(image, trimap)])
    assert same_within_one(a.alpha, b.alpha.cpu()) >= 0.99


def test_the_stages_wait_for_nothing(
    stages: tuple[TrimapStage, MattingStage], pictures: list[Tensor], request: pytest.FixtureRequest
) -> None:
    pinned = [picture.pin_memory() for picture in pictures]
    stages[1](stages[0](pinned))  # chooses kernels, takes memory
    request.getfixturevalue("no_waiting")
    stages[1](stages[0](pinned))


def test_reduced_pictures_wait_for_nothing_either(pictures: list[Tensor], request: pytest.FixtureRequest) -> None:
    stage = MattingStage(Setup.make("cuda", True).matting_network(), torch.device("cuda"), max_pixels=40_000)
    trimap = torch.full(SIZES[0], 128, dtype=torch.uint8, device="cuda")
    items = [Trimapped(pictures[0].to("cuda"), trimap)]
    stage(items)
    request.getfixturevalue("no_waiting")
    stage(items)
