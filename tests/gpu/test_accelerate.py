"""CUDA graphs and number formats of real networks, against eager float32."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.gpu_setup import Setup
from matting.u2net import U2Net
from multigpu_inference import accelerate
from multigpu_inference.config import AccelerationSettings
from multigpu_inference.engine.accelerate import Accelerated
from multigpu_inference.errors import ModelError

pytestmark = pytest.mark.usefixtures("exact")

PLAIN = AccelerationSettings(dtype="float32", channels_last=False, cuda_graphs=False, compile=False)


@pytest.fixture(scope="module")
def network() -> U2Net:
    return replace(Setup.make("cuda", True), networks="small").trimap_network()


def prepared(network: torch.nn.Module, settings: AccelerationSettings) -> Accelerated:
    example = torch.zeros(1, 3, 96, 96)
    return accelerate(copy.deepcopy(network), "cuda", example=example, max_batch_size=4, settings=settings)


def images(number: int, seed: int = 0) -> Tensor:
    return torch.randn(number, 3, 96, 96, generator=torch.Generator().manual_seed(seed)).cuda()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_graphs_give_what_eager_gives(network: U2Net, size: int) -> None:
    graphs, eager = prepared(network, replace(PLAIN, cuda_graphs=True)), prepared(network, PLAIN)
    for seed in range(3):
        for a, b in zip(graphs(images(size, seed)), eager(images(size, seed)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_results_outlive_the_next_replay(network: U2Net) -> None:
    graphs = prepared(network, replace(PLAIN, cuda_graphs=True))
    first = graphs(images(2, 1))[0]
    kept = first.clone()
    graphs(images(2, 2))
    assert torch.equal(first, kept)


def test_larger_batches_and_other_shapes_run_eagerly(network: U2Net) -> None:
    graphs = prepared(network, replace(PLAIN, cuda_graphs=True))
    assert graphs(images(5))[0].shape == (5, 3, 96, 96)
    assert graphs(torch.zeros(1, 3, 64, 80, device="cuda"))[0].shape == (1, 3, 64, 80)


def test_calls_on_several_streams_do_not_mix(network: U2Net) -> None:
    graphs, eager = prepared(network, replace(PLAIN, cuda_graphs=True)), prepared(network, PLAIN)
    expected = [eager(images(1, seed))[0].clone() for seed in range(4)]
    wrong = []

    def call(seed: int) -> None:
        batch = images(1, seed)
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                result = graphs(batch)[0]
                torch.cuda.current_stream().synchronize()
                if not torch.allclose(result, expected[seed], rtol=1e-3, atol=1e-3):
                    wrong.append(seed)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_capture_beside_a_thread_that_allocates_and_copies(network: U2Net) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                while not stop.is_set():
                    torch.empty(1 << 20).pin_memory().to("cuda", non_blocking=True).sum().item()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        prepared(network, replace(PLAIN, cuda_graphs=True))(images(1))
    finally:
        stop.set()
        thread.join()
    assert errors == []


# The logits' standard deviation is about 1.
@pytest.mark.parametrize(("dtype", "most"), [("float16", 0.1), ("bfloat16", 0.6)])
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_half_precision_differs_by_rounding(network: U2Net, dtype: str, most: float, cuda_graphs: bool) -> None:
    half = prepared(network, replace(PLAIN, dtype=dtype, channels_last=None, cuda_graphs=cuda_graphs))(images(2))[0]
    difference = (half - prepared(network, PLAIN)(images(2))[0]).abs()
    assert half.dtype == torch.float32
    assert 0 < difference.mean().item() <= most


def test_matting_in_half_precision_differs_by_rounding() -> None:
    setup = Setup.make("cuda", True)
    inputs = torch.rand(1, 3, 128, 160, device="cuda"), torch.zeros(1, 2, 128, 160, device="cuda")
    inputs[1][:, 0, :, :40] = inputs[1][:, 1, :, 120:] = 1
    plain, half = (
        accelerate(setup.matting_network(), "cuda", cast_inputs=False, settings=replace(PLAIN, dtype=dtype))(*inputs)
        for dtype in ("float32", "float16")
    )
    assert torch.isfinite(half).all()
    assert ((plain - half).abs()[:, 0] <= 4 / 255).float().mean() >= 0.99


def test_a_network_that_waits_cannot_be_captured() -> None:
    class Waiting(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.sum().item()

    stream = torch.cuda.current_stream()
    with pytest.raises(ModelError, match="MULTIGPU_CUDA_GRAPHS=1: Waiting cannot be captured"):
        accelerate(Waiting(), "cuda", example=torch.ones(1, 2), settings=replace(PLAIN, cuda_graphs=True))
    assert torch.cuda.current_stream() == stream
    assert torch.ones(2, device="cuda").sum().item() == 2  # and the device goes on
